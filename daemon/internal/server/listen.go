package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/echod/echod/daemon/internal/rpc"
)

// maxSocketPath is what sockaddr_un leaves for a path on Linux; other systems have a few bytes less.
const maxSocketPath = 107

// controlListeners are where a daemon takes control calls; nil is switched off.
type controlListeners struct {
	grpc, http, unix net.Listener
}

// listen binds every control socket, or none.
func listen(c Config) (_ *controlListeners, err error) {
	l := &controlListeners{}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if l.grpc, err = listenTCP("grpc-listen", c.GRPCListen, c.clientSilence()); err != nil {
		return nil, err
	}
	if l.http, err = listenTCP("http-listen", c.HTTPListen, c.clientSilence()); err != nil {
		return nil, err
	}
	if l.unix, err = listenUnix(c.Socket); err != nil {
		return nil, fmt.Errorf("%w (another path: --socket PATH; none: --socket '')", err)
	}
	return l, nil
}

func (l *controlListeners) close() {
	for _, one := range []net.Listener{l.grpc, l.http, l.unix} {
		if one != nil {
			_ = one.Close() // a server that stopped has closed it already
		}
	}
}

// described tells the addresses as bound.
func (l *controlListeners) described() []rpc.Listener {
	var all []rpc.Listener
	if l.grpc != nil {
		all = append(all, rpc.Listener{Protocol: "grpc", Address: l.grpc.Addr().String()})
	}
	if l.unix != nil {
		all = append(all, rpc.Listener{Protocol: "grpc", Address: "unix:" + l.unix.Addr().String()})
	}
	if l.http != nil {
		all = append(all, rpc.Listener{Protocol: "http", Address: l.http.Addr().String()})
	}
	return all
}

// listenTCP binds a control listener whose connections break when the other host is silent: for silence without anything
// under way, and then to as many probes; or, where the system can do it, for twice as long when it is to acknowledge something.
func listenTCP(flag, address string, silence time.Duration) (net.Listener, error) {
	if address == "" {
		return nil, nil
	}
	c := net.ListenConfig{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: silence, Interval: max(silence/2, time.Second), Count: 2},
		Control: func(_, _ string, raw syscall.RawConn) error {
			var err error
			return errors.Join(raw.Control(func(fd uintptr) { err = setUserTimeout(fd, 2*silence) }), err)
		},
	}
	l, err := c.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on --%s %s: %w", flag, address, shortReason(err))
	}
	return l, nil
}

// listenUnix binds the control socket for its owner and group. A socket file that nobody listens on any more is replaced.
func listenUnix(path string) (net.Listener, error) {
	if path == "" {
		return nil, nil
	}
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("cannot listen on --socket %s: the path has more than %d bytes", path, maxSocketPath)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("cannot make the folder of --socket %s: %w", path, shortReason(err))
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on --socket %s: %w", path, shortReason(err))
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot set the mode of --socket %s: %w", path, shortReason(err)), l.Close())
	}
	return l, nil
}

// removeStale removes a socket file that refuses connections; whatever else is there stays and is an error.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("cannot look at --socket %s: %w", path, shortReason(err))
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("cannot listen on --socket %s: there is a file that is no socket", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = conn.Close() // it was only to see whether somebody answers
		return fmt.Errorf("cannot listen on --socket %s: another process listens there; stop it, or choose another path", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("cannot tell whether --socket %s is in use: %w", path, shortReason(err))
	}
	return os.Remove(path)
}

// shortReason strips "listen tcp 127.0.0.1:7007: bind:" from an error: the message around it says that better.
func shortReason(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
