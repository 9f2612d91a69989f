//go:build unix

package server

import "syscall"

// fileLimit is how many descriptors the process may have; 0: no limit to speak of. Go has raised the soft limit to the
// hard one.
func fileLimit() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > 1<<30 {
		return 0
	}
	return int(limit.Cur)
}
