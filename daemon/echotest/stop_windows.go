package echotest

import "os"

// stopProcess kills: Windows has no signal to send to a process.
func stopProcess(p *os.Process) error { return p.Kill() }
