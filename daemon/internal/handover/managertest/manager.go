//go:build linux

// Package managertest is a service manager for tests: what of systemd a daemon sees. It passes sockets (LISTEN_FDS), listens to
// what the daemon tells (NOTIFY_SOCKET), and keeps descriptors for it (FDSTORE). Starting and killing the daemon is the test's.
package managertest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Patience is how long a test waits for what has to come.
const Patience = 30 * time.Second

// Manager is the manager of one service.
type Manager struct {
	path string
	conn *net.UnixConn

	mu       sync.Mutex // guards what follows
	passed   []named    // of socket units
	stored   []named
	released []*os.File // whose descriptors lead nowhere any more
	messages []Message
	more     chan struct{} // closed at the next message
	watchdog time.Duration
}

type named struct {
	name string
	file *os.File
	fd   int // file's
}

func newNamed(name string, file *os.File) named { return named{name, file, int(file.Fd())} }

// releaseLocked closes what a descriptor leads to. The file stays open, for whoever has started a process with it may have done
// so without our knowing: nothing orders his reading of the file before a close that this process asks for.
func (m *Manager) releaseLocked(one named) {
	m.released = append(m.released, one.file)
	null, err := syscall.Open(os.DevNull, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	if err := errors.Join(syscall.Dup3(null, one.fd, syscall.O_CLOEXEC), syscall.Close(null)); err != nil {
		panic(err)
	}
}

// Message is what the daemon has told at once.
type Message struct {
	Text  string // lines
	PID   int32  // whose it is, by the kernel
	Files int    // descriptors that came with it
}

// Has says whether a message has a line.
func (m Message) Has(line string) bool { return slices.Contains(strings.Split(m.Text, "\n"), line) }

// Start begins to listen, until the test ends.
func Start(t *testing.T) *Manager {
	t.Helper()
	dir, err := os.MkdirTemp("", "manager-")
	if err != nil {
		t.Fatal(err)
	}
	m := &Manager{path: filepath.Join(dir, "notify"), more: make(chan struct{})}
	if m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: m.path}); err != nil {
		t.Fatal(err)
	}
	raw, err := m.conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var optionErr error
	if err := raw.Control(func(fd uintptr) {
		optionErr = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_PASSCRED, 1)
	}); err != nil || optionErr != nil {
		t.Fatal(err, optionErr)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.listen()
	}()
	t.Cleanup(func() {
		_ = m.conn.Close()
		<-done
		for _, one := range append(m.passed, m.stored...) {
			_ = one.file.Close()
		}
		for _, file := range m.released {
			_ = file.Close()
		}
		_ = os.RemoveAll(dir)
	})
	return m
}

// Path is where it listens.
func (m *Manager) Path() string { return m.path }

// Pass has the daemon get a copy of a socket each time that it is started, under a name.
func (m *Manager) Pass(t *testing.T, name string, socket interface{ File() (*os.File, error) }) {
	t.Helper()
	file, err := socket.File()
	if err != nil {
		t.Fatal(err)
	}
	m.PassFile(name, file)
}

// PassFile is Pass of any descriptor, which is the manager's then.
func (m *Manager) PassFile(name string, file *os.File) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.passed = append(m.passed, newNamed(name, file))
}

// Withdraw passes a socket no more.
func (m *Manager) Withdraw(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.passed = slices.DeleteFunc(m.passed, func(one named) bool {
		if one.name == name {
			_ = one.file.Close()
		}
		return one.name == name
	})
}

// Watchdog has the daemon told how often it is to give a sign of life.
func (m *Manager) Watchdog(every time.Duration) { m.watchdog = every }

// Prepare makes a command one that this manager starts. Only the process itself knows its number, so a shell tells it.
func (m *Manager) Prepare(c *exec.Cmd) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c.Env = append(c.Env, "NOTIFY_SOCKET="+m.path)
	var names []string
	for _, one := range append(slices.Clone(m.passed), m.stored...) {
		names = append(names, one.name)
		c.ExtraFiles = append(c.ExtraFiles, one.file)
	}
	if len(names) > 0 {
		c.Env = append(c.Env, fmt.Sprint("LISTEN_FDS=", len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	}
	if m.watchdog > 0 {
		c.Env = append(c.Env, fmt.Sprint("WATCHDOG_USEC=", m.watchdog.Microseconds()))
	}
	UnderOwnPID(c)
}

// UnderOwnPID has a command find its process number in LISTEN_PID and WATCHDOG_PID.
func UnderOwnPID(c *exec.Cmd) {
	c.Args = append([]string{"sh", "-c", `export LISTEN_PID=$$ WATCHDOG_PID=$$; exec "$0" "$@"`, c.Path}, c.Args[1:]...)
	c.Path = "/bin/sh"
}

// listen reads messages until the socket is closed.
func (m *Manager) listen() {
	text, control := make([]byte, 8192), make([]byte, 8192)
	for {
		n, controlLen, _, _, err := m.conn.ReadMsgUnix(text, control)
		if err != nil {
			return
		}
		message := Message{Text: string(text[:n])}
		files, pid := received(control[:controlLen])
		message.PID, message.Files = pid, len(files)
		m.take(message, files)
	}
}

// received reads the descriptors and the sender of a message.
func received(control []byte) (files []*os.File, pid int32) {
	parts, err := syscall.ParseSocketControlMessage(control)
	if err != nil {
		return nil, 0
	}
	for _, part := range parts {
		switch part.Header.Type {
		case syscall.SCM_RIGHTS:
			fds, err := syscall.ParseUnixRights(&part)
			if err != nil {
				continue
			}
			for _, fd := range fds {
				syscall.CloseOnExec(fd)
				files = append(files, os.NewFile(uintptr(fd), "passed"))
			}
		case syscall.SCM_CREDENTIALS:
			if credentials, err := syscall.ParseUnixCredentials(&part); err == nil {
				pid = credentials.Pid
			}
		}
	}
	return files, pid
}

// take does what a message asks for.
func (m *Manager) take(message Message, files []*os.File) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name := ""
	for line := range strings.SplitSeq(message.Text, "\n") {
		if value, ok := strings.CutPrefix(line, "FDNAME="); ok {
			name = value
		}
	}
	switch {
	case message.Has("FDSTORE=1"):
		for _, f := range files {
			m.stored = append(m.stored, newNamed(name, f))
		}
	case message.Has("FDSTOREREMOVE=1"):
		m.stored = slices.DeleteFunc(m.stored, func(one named) bool {
			if one.name == name {
				m.releaseLocked(one)
			}
			return one.name == name
		})
	default: // BARRIER=1 has the end of a pipe
		for _, f := range files {
			_ = f.Close()
		}
	}
	m.messages = append(m.messages, message)
	close(m.more)
	m.more = make(chan struct{})
}

// Await waits until what the daemons have told, in order, satisfies the test.
func (m *Manager) Await(t *testing.T, what string, satisfied func([]Message) bool) {
	t.Helper()
	timeout := time.After(Patience)
	for {
		m.mu.Lock()
		ok, more := satisfied(slices.Clone(m.messages)), m.more
		m.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-more:
		case <-timeout:
			t.Fatalf("the daemon does not tell %s; it told %v", what, m.Messages())
		}
	}
}

// AwaitLine waits for a line in any message, and answers that message.
func (m *Manager) AwaitLine(t *testing.T, line string) (found Message) {
	t.Helper()
	m.Await(t, line, func(all []Message) bool {
		i := slices.IndexFunc(all, func(one Message) bool { return one.Has(line) })
		if i >= 0 {
			found = all[i]
		}
		return i >= 0
	})
	return found
}

// Messages is all that was told.
func (m *Manager) Messages() []Message {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.messages)
}

// Forget forgets what was told until now.
func (m *Manager) Forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.messages = nil
}

// Stored answers the names in the store, sorted.
func (m *Manager) Stored() (names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, one := range m.stored {
		names = append(names, one.name)
	}
	slices.Sort(names)
	return names
}

// Put puts a descriptor into the store, before the others. It is the manager's then.
func (m *Manager) Put(name string, file *os.File) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stored = append([]named{newNamed(name, file)}, m.stored...)
}

// Listen binds a TCP listener for the test as systemd does: package net would make it one of Multipath TCP.
func Listen(t *testing.T, network, address string) *net.TCPListener {
	t.Helper()
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	l, err := config.Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.(*net.TCPListener)
}

// ListenPacket binds a UDP socket for the test.
func ListenPacket(t *testing.T, network, address string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.UDPConn)
}

// Run runs a program as the manager would, and answers what it wrote, and how it ended.
func (m *Manager) Run(t *testing.T, c *exec.Cmd) (string, error) {
	t.Helper()
	var output bytes.Buffer
	c.Stdout, c.Stderr = &output, &output
	m.Prepare(c)
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return output.String(), err
}
