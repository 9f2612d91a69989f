package echotest

import (
	"os/exec"
	"syscall"
)

// endsWithParent says whether endWithParent does anything.
const endsWithParent = true

// endWithParent has the kernel kill the process when the thread that starts it ends, which is ours for as long as the process
// lives: nothing is left of a test binary that is killed, or that go test ends for taking too long.
func endWithParent(command *exec.Cmd) {
	if command.SysProcAttr == nil {
		command.SysProcAttr = &syscall.SysProcAttr{}
	}
	command.SysProcAttr.Pdeathsig = syscall.SIGKILL
}
