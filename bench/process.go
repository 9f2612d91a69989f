//go:build linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"os/user"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// startWithin is how long a server may take to listen.
	startWithin = 20 * time.Second
	// endWithin is how long a killed process may hold its output open.
	endWithin = 5 * time.Second
	// complaintBytes of what a process writes to its standard error are kept.
	complaintBytes = 4 << 10
)

// process is a program that we started, in a process group of its own. Its standard input stays open until stop: our own
// programs end when it closes, so they do not outlive this one.
type process struct {
	cmd       *exec.Cmd
	stdin     io.Closer
	lines     *bufio.Reader
	complaint *clipped
}

func startProcess(argv []string) (*process, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = endWithin
	p := &process{cmd: cmd, complaint: &clipped{}}
	cmd.Stderr = p.complaint
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", argv[0], err)
	}
	p.stdin, p.lines = stdin, bufio.NewReader(stdout)
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// line reads the next line of the output. A process that takes longer than within is killed.
func (p *process) line(within time.Duration) (string, error) {
	late := time.AfterFunc(within, p.kill)
	line, err := p.lines.ReadString('\n')
	if err == nil && late.Stop() {
		return strings.TrimSpace(line), nil
	}
	return "", fmt.Errorf("%s said nothing and ended or was ended after %v: %s", p.cmd.Path, within, p.complaint)
}

// kill ends the process and those that it started. It is called before stop only.
func (p *process) kill() { _ = syscall.Kill(-p.pid(), syscall.SIGKILL) }

// stop kills the process and waits for its end.
func (p *process) stop() {
	p.kill()
	_ = p.stdin.Close()
	_ = p.cmd.Wait() // that it was killed is no news
}

// clipped keeps the beginning of what is written to it.
type clipped struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (c *clipped) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text.Write(b[:min(len(b), complaintBytes-c.text.Len())])
	return len(b), nil
}

func (c *clipped) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return firstLine(c.text.String())
}

// running is a server that listens.
type running struct {
	*process
	addr netip.AddrPort
}

// startServer starts s and returns when it listens.
func startServer(t *tools, s Server, engine, protocol, address string) (*running, error) {
	var port uint16
	if s.Told {
		var err error
		if port, err = freePort(address); err != nil {
			return nil, err
		}
	}
	argv, err := t.command(s, engine, protocol, address, port)
	if err != nil {
		return nil, err
	}
	p, err := startProcess(argv)
	if err != nil {
		return nil, err
	}
	r := &running{process: p}
	if s.Told {
		r.addr = netip.AddrPortFrom(netip.MustParseAddr(address), port)
		err = awaitAnswer(r.addr)
	} else {
		r.addr, err = announced(p)
	}
	if err != nil {
		p.stop()
		return nil, fmt.Errorf("%s does not serve: %w %s", s.Name, err, p.complaint)
	}
	return r, nil
}

func announced(p *process) (netip.AddrPort, error) {
	line, err := p.line(startWithin)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.ParseAddrPort(line)
}

// freePort finds a TCP port that was free just now.
func freePort(address string) (uint16, error) {
	listener, err := net.Listen("tcp4", net.JoinHostPort(address, "0"))
	if err != nil {
		return 0, err
	}
	addr, err := netip.ParseAddrPort(listener.Addr().String())
	return addr.Port(), errors.Join(err, listener.Close())
}

// awaitAnswer asks until a byte is echoed.
func awaitAnswer(addr netip.AddrPort) error {
	for began := time.Now(); time.Since(began) < startWithin; time.Sleep(10 * time.Millisecond) {
		if answers(addr.String()) {
			return nil
		}
	}
	return errors.New("no answer")
}

func answers(target string) bool {
	conn, err := net.Dial("tcp4", target)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	var answer [1]byte
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return false
	}
	if _, err := conn.Write([]byte{'?'}); err != nil {
		return false
	}
	n, err := conn.Read(answer[:])
	return err == nil && n == 1
}

// userName is who runs this; xinetd wants to know.
func userName() string {
	if me, err := user.Current(); err == nil {
		return me.Username
	}
	return "root"
}
