package probe

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// dialThere connects a flow over TCP from the network namespace of the run. Package net would make its sockets where the thread
// is that calls it, and that thread would have to wait there for the connection. Begun is when it began to connect, which is
// after the socket was made.
func (r *run) dialThere(ctx context.Context, flow int) (conn net.Conn, begun time.Time, err error) {
	fd, err := r.openSocket(unix.SOCK_STREAM)
	if err != nil {
		return nil, begun, err
	}
	if source := r.source(flow); source.IsValid() {
		if err := unix.Bind(fd, sockaddr(fd, source)); err != nil {
			_ = unix.Close(fd)
			return nil, begun, os.NewSyscallError("bind", err)
		}
	}
	begun = time.Now()
	err = unix.Connect(fd, sockaddr(fd, r.address))
	file := os.NewFile(uintptr(fd), "tcp")
	defer func() { _ = file.Close() }() // The connection has a descriptor of its own.
	if err != nil && !errors.Is(err, unix.EINPROGRESS) && !errors.Is(err, unix.EINTR) {
		return nil, begun, os.NewSyscallError("connect", err)
	}
	if err := awaitConnected(ctx, file); err != nil {
		return nil, begun, err
	}
	conn, err = net.FileConn(file)
	return conn, begun, err
}

// awaitConnected waits until a socket is connected, cannot be, or ctx ends.
func awaitConnected(ctx context.Context, file *os.File) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	woken := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(woken)
		_ = file.SetWriteDeadline(time.Unix(1, 0)) // Fails only on a closed file.
	})
	defer func() {
		if !cancel() {
			<-woken
		}
	}()
	var failed error
	err = raw.Write(func(fd uintptr) (done bool) {
		done, failed = isConnected(int(fd))
		return done
	})
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(err, failed)
}

// isConnected says whether it is known what has become of a socket that connects, and why it is not connected.
func isConnected(fd int) (done bool, err error) {
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && errno != 0 {
		err = syscall.Errno(errno)
	}
	if err != nil {
		return true, os.NewSyscallError("connect", err)
	}
	peer, onItsWay := unix.Getpeername(fd) // ENOTCONN
	if onItsWay == nil && localOf(fd) == addressOf(peer) {
		// Nobody listens, and the port that the system chose was the target's.
		return true, os.NewSyscallError("connect", unix.ECONNREFUSED)
	}
	return onItsWay == nil, nil
}
