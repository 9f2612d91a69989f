//go:build unix

package handover

import (
	"errors"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// sendMessage sends a message with descriptors, which package net does not do over a connected datagram socket.
func sendMessage(conn *net.UnixConn, text []byte, files []*os.File) error {
	rights, err := rightsOf(files)
	if err != nil {
		return err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	waitErr := raw.Write(func(fd uintptr) (done bool) {
		for {
			if err = unix.Sendmsg(int(fd), text, rights, nil, 0); !errors.Is(err, unix.EINTR) {
				return !errors.Is(err, unix.EAGAIN)
			}
		}
	})
	if waitErr != nil { // it took too long
		return waitErr
	}
	return err
}

// rightsOf is the control message that passes descriptors. The files stay open until it is sent, which the caller sees to.
func rightsOf(files []*os.File) ([]byte, error) {
	if len(files) == 0 {
		return nil, nil
	}
	fds := make([]int, 0, len(files))
	for _, f := range files {
		raw, err := f.SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) { fds = append(fds, int(fd)) })
		}
		if err != nil {
			return nil, err
		}
	}
	return unix.UnixRights(fds...), nil
}
