//go:build unix

package handover

import (
	"os"
	"syscall"
)

// rightsOf is the control message that passes descriptors.
func rightsOf(files []*os.File) ([]byte, error) {
	if len(files) == 0 {
		return nil, nil
	}
	fds := make([]int, 0, len(files))
	for _, f := range files {
		raw, err := f.SyscallConn()
		if err == nil {
			// The file stays open until the message is sent, which the caller sees to.
			err = raw.Control(func(fd uintptr) { fds = append(fds, int(fd)) })
		}
		if err != nil {
			return nil, notTold(err)
		}
	}
	return syscall.UnixRights(fds...), nil
}
