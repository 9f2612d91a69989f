package handover

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

const notifyVariable = "NOTIFY_SOCKET"

const (
	// notifyPatience is how long a message may wait for room, and for the manager to have read it.
	notifyPatience = 2 * time.Second
	// stuckPatience is that, once the manager has let one wait in vain.
	stuckPatience = 10 * time.Millisecond
)

// Notifier tells the service manager how the daemon is, by the protocol of sd_notify(3). Its methods may be called by any
// goroutine; those of a nil Notifier do nothing. An error is of the message alone: the next may go well.
type Notifier struct {
	path string
	conn *net.UnixConn

	mu    sync.Mutex // guards stuck
	stuck bool       // the manager does not read
}

// notifierFor makes the notifier for a value of NOTIFY_SOCKET; nil for none. A warning says why there is none although there
// should: whoever started us may have left us a variable that was not meant for us.
func notifierFor(path string) (n *Notifier, warning string, err error) {
	if path == "" {
		return nil, "", nil
	}
	if !strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "@") {
		return nil, "", fmt.Errorf("%s=%q: must be the path of a unix socket, or @ and an abstract name", notifyVariable, path)
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		return nil, fmt.Sprintf("the service manager is not told how this daemon is: cannot reach %s=%s: %v", notifyVariable, path, err), nil
	}
	return &Notifier{path: path, conn: conn}, "", nil
}

// Close ends the connection to the manager.
func (n *Notifier) Close() error {
	if n == nil {
		return nil
	}
	return n.conn.Close()
}

// Environment is what another process needs to tell the same manager, as "NAME=value".
func (n *Notifier) Environment() []string {
	if n == nil {
		return nil
	}
	return []string{notifyVariable + "=" + n.path}
}

// Ready tells that the daemon serves, which process it is, and what it does.
func (n *Notifier) Ready(pid int, status string) error {
	return n.send(nil, "READY=1", fmt.Sprint("MAINPID=", pid), statusLine(status))
}

// MainPID tells that another process is the daemon from now on.
func (n *Notifier) MainPID(pid int) error { return n.send(nil, fmt.Sprint("MAINPID=", pid)) }

// Stopping tells that the daemon ends, and may take so long for it.
func (n *Notifier) Stopping(within time.Duration, status string) error {
	return n.send(nil, "STOPPING=1", fmt.Sprint("EXTEND_TIMEOUT_USEC=", within.Microseconds()), statusLine(status))
}

// Status tells what the daemon does, in a line for people.
func (n *Notifier) Status(text string) error { return n.send(nil, statusLine(text)) }

// Alive is a sign of life for the watchdog.
func (n *Notifier) Alive() error { return n.send(nil, "WATCHDOG=1") }

func statusLine(text string) string { return "STATUS=" + strings.ReplaceAll(text, "\n", " ") }

// send sends one message, with descriptors.
func (n *Notifier) send(files []*os.File, lines ...string) error {
	if n == nil {
		return nil
	}
	// All senders share the deadline of who came last.
	if err := n.conn.SetWriteDeadline(time.Now().Add(n.patience())); err != nil {
		return notTold(err)
	}
	err := sendMessage(n.conn, []byte(strings.Join(lines, "\n")), files)
	n.heard(err == nil)
	return notTold(err)
}

func notTold(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("cannot tell the service manager: %w", err)
}

// patience is how long the manager may take now.
func (n *Notifier) patience() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stuck {
		return stuckPatience
	}
	return notifyPatience
}

func (n *Notifier) heard(ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stuck = !ok
}

// await returns when the manager has done all that it was told before: it is given the end of a pipe, and closes it then.
func (n *Notifier) await() error {
	if n == nil {
		return nil
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		return notTold(err)
	}
	defer func() { _ = reader.Close() }()
	err = n.send([]*os.File{writer}, "BARRIER=1")
	_ = writer.Close() // the manager has its own
	if err != nil {
		return err
	}
	if err := reader.SetReadDeadline(time.Now().Add(n.patience())); err != nil {
		return notTold(err)
	}
	_, err = reader.Read(make([]byte, 1)) // nobody writes: it ends, or takes too long
	if errors.Is(err, os.ErrDeadlineExceeded) {
		n.heard(false)
		return errors.New("the service manager does not answer")
	}
	return nil
}
