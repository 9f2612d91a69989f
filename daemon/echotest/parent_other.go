//go:build !linux

package echotest

import "os/exec"

// endsWithParent says whether endWithParent does anything.
const endsWithParent = false

// endWithParent does nothing: this system has no such thing.
func endWithParent(*exec.Cmd) {}
