//go:build unix

package handover

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"syscall"
)

// newLinks makes the two ends of a link: ours, and a descriptor for the other process.
func newLinks() (*Link, *os.File, error) {
	syscall.ForkLock.RLock()
	ends, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(ends[0])
		syscall.CloseOnExec(ends[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make a socket pair: %w", err)
	}
	theirs := os.NewFile(uintptr(ends[1]), "upgrade")
	ours, err := newLink(os.NewFile(uintptr(ends[0]), "upgrade"))
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return ours, theirs, nil
}

// newLink makes a link of an end, which it closes.
func newLink(end *os.File) (*Link, error) {
	made, err := net.FileConn(end)
	err = errors.Join(err, end.Close())
	if err != nil {
		return nil, err
	}
	socket, ok := made.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("the descriptor is no unix socket"), made.Close())
	}
	l := &Link{}
	l.conn = &unixConn{UnixConn: socket, link: l}
	l.read, l.write = bufio.NewReaderSize(l.conn, 64<<10), bufio.NewWriterSize(l.conn, 64<<10)
	return l, nil
}

// unixConn reads descriptors besides bytes.
type unixConn struct {
	*net.UnixConn
	link *Link
	oob  [256 + maxFiles*4]byte
}

func (c *unixConn) Read(b []byte) (int, error) {
	n, oobn, flags, _, err := c.ReadMsgUnix(b, c.oob[:])
	n = max(n, 0) // -1 comes with an error
	if oobn > 0 {
		if err := c.take(c.oob[:oobn]); err != nil {
			return n, err
		}
	}
	if flags&syscall.MSG_CTRUNC != 0 {
		return n, errors.New("descriptors were lost: this process may have too few (ulimit -n)")
	}
	if n == 0 && err == nil && len(b) > 0 {
		return 0, io.EOF
	}
	return n, err
}

// take keeps descriptors for who asks for them.
func (c *unixConn) take(oob []byte) error {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrGarbled, err)
	}
	for i := range messages {
		fds, err := syscall.ParseUnixRights(&messages[i])
		if err != nil {
			continue // it is something else
		}
		for _, fd := range fds {
			syscall.CloseOnExec(fd) // where the system has not done so as it came
			c.link.came = append(c.link.came, os.NewFile(uintptr(fd), "handed over"))
		}
	}
	return nil
}

func (c *unixConn) writeFiles(data []byte, some []*os.File) error {
	fds := make([]int, 0, len(some))
	for _, f := range some {
		raw, err := f.SyscallConn()
		if err == nil {
			// Fd would have the file block from here on, and with it whoever else has it.
			err = raw.Control(func(fd uintptr) { fds = append(fds, int(fd)) })
		}
		if err != nil {
			return err
		}
	}
	n, _, err := c.WriteMsgUnix(data, syscall.UnixRights(fds...), nil)
	runtime.KeepAlive(some)
	if err == nil && n < len(data) {
		_, err = c.Write(data[n:])
	}
	return err
}

// isHangUp says whether the other end is gone.
func isHangUp(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed)
}
