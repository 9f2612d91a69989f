package proc

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
)

func TestOwn(t *testing.T) {
	self := os.Getpid()
	first, err := CPU(self)
	if err != nil || first <= 0 {
		t.Fatalf("CPU is %v, %v", first, err)
	}
	if second, err := CPU(self); err != nil || second < first {
		t.Errorf("CPU went from %v to %v, %v", first, second, err)
	}
	if bytes, err := Resident(self); err != nil || bytes < 1<<20 {
		t.Errorf("resident are %d bytes, %v", bytes, err)
	}
}

// The time of a child in the group counts, while it runs and after it was waited for.
func TestGroup(t *testing.T) {
	// A shell that works in a child, then waits for it, says so, and stays until its input ends.
	shell := exec.Command("/bin/sh", "-c", `(i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done); echo done; read -r _`)
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := shell.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := shell.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := shell.Start(); err != nil {
		t.Skipf("there is no shell: %v", err)
	}
	defer func() { stdin.Close(); shell.Wait() }()
	if _, err := stdout.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	alone, err := CPU(shell.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if group, err := GroupCPU(shell.Process.Pid); err != nil || group <= alone {
		t.Errorf("the group used %v, the shell alone %v, %v", group, alone, err)
	}
}

func TestNobody(t *testing.T) {
	const nobody = 1 << 22 // the kernel's largest process id is one less
	if used, err := GroupCPU(nobody); err == nil {
		t.Errorf("got %v", used)
	}
	if bytes, err := Resident(nobody); err == nil {
		t.Errorf("got %d", bytes)
	}
}
