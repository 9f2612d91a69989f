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
	unixPassed       bool // the service manager has made it, and its file
}

// listen answers every control listener, or none: those that are given, which exist already, and for the others those that the
// configuration wants, bound. What is given is closed when it fails.
func listen(c Config, given controlListeners) (_ *controlListeners, err error) {
	l := &given
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if err := l.check(c.Insecure); err != nil {
		return nil, err
	}
	if l.grpc, err = givenOrBound(given.grpc, "grpc-listen", c.GRPCListen, c.clientSilence()); err != nil {
		return nil, err
	}
	if l.http, err = givenOrBound(given.http, "http-listen", c.HTTPListen, c.clientSilence()); err != nil {
		return nil, err
	}
	if l.unix == nil {
		if l.unix, err = listenUnix(c.Socket); err != nil {
			return nil, fmt.Errorf("%w (another path: --socket PATH; none: --socket '')", err)
		}
	}
	return l, nil
}

// check says whether listeners that are given may be served.
func (l *controlListeners) check(insecure bool) error {
	for _, one := range []net.Listener{l.grpc, l.http} {
		if one == nil || insecure {
			continue
		}
		if host, _, err := net.SplitHostPort(one.Addr().String()); err != nil || !isLoopback(host) {
			return fmt.Errorf("the control listener on %s, which was passed to this process, is open to the network, and anybody who reaches it "+
				"can control this daemon; pass a loopback address or a unix socket, or say --insecure if the network is yours alone", one.Addr())
		}
	}
	return nil
}

// givenOrBound is a control listener that exists already or, if there is none, one that is bound.
func givenOrBound(given net.Listener, flag, address string, silence time.Duration) (net.Listener, error) {
	if given != nil {
		return watchSilence(given, silence)
	}
	return listenTCP(flag, address, silence)
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
		KeepAliveConfig: keepAlive(silence),
		Control:         func(_, _ string, raw syscall.RawConn) error { return boundSilence(raw, silence) },
	}
	l, err := c.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on --%s %s: %w", flag, address, shortReason(err))
	}
	return l, nil
}

func keepAlive(silence time.Duration) net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: silence, Interval: max(silence/2, time.Second), Count: 2}
}

// boundSilence bounds how long what the connections of a listener send may stay unacknowledged.
func boundSilence(listener syscall.RawConn, silence time.Duration) error {
	var err error
	return errors.Join(listener.Control(func(fd uintptr) { err = setUserTimeout(fd, 2*silence) }), err)
}

// watchSilence has the connections of a listener that exists already break as those of listenTCP do.
func watchSilence(given net.Listener, silence time.Duration) (net.Listener, error) {
	l, ok := given.(*net.TCPListener)
	if !ok {
		return given, nil // another system than TCP tells when the other end is gone
	}
	raw, err := l.SyscallConn()
	if err == nil {
		err = boundSilence(raw, silence)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot serve the control listener on %s that was passed to this process: %w", l.Addr(), err), l.Close())
	}
	return silenceListener{l, keepAlive(silence)}, nil
}

// silenceListener gives its connections what package net gives to those of a listener that it has bound.
type silenceListener struct {
	*net.TCPListener
	keepAlive net.KeepAliveConfig
}

// Accept is that of net.Listener.
func (l silenceListener) Accept() (net.Conn, error) {
	conn, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	_ = conn.SetKeepAliveConfig(l.keepAlive) // one that is dead already says so when it is read
	return conn, nil
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
