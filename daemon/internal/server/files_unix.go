//go:build unix

package server

import "syscall"

// keptFiles are the descriptors that are kept back from the endpoints, so that an operator can always list and delete:
// for control connections, probes, the state file and the runtime.
const keptFiles = 256

// maxSockets is how many sockets endpoints may have. Go has raised the soft limit of open files to the hard one.
func maxSockets() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > 1<<30 {
		return 0 // no limit to speak of
	}
	return max(int(limit.Cur)-min(keptFiles, int(limit.Cur)/2), 1)
}
