package load

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// poller waits until one of its sockets can be read: level-triggered epoll. Who adds a socket names it by a number.
type poller struct {
	fd    int
	ready [256]unix.EpollEvent
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot open an epoll descriptor: %w", err)
	}
	return &poller{fd: fd}, nil
}

func (p *poller) add(fd, name int) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(name)}
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &event)
}

// wait returns what can be read, nothing after waitFor. It blocks the thread without telling Go's scheduler, which has
// nothing else to run.
func (p *poller) wait() ([]unix.EpollEvent, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd),
		uintptr(unsafe.Pointer(&p.ready[0])), uintptr(len(p.ready)), uintptr(waitFor.Milliseconds()), 0, 0)
	if errno == unix.EINTR {
		return nil, nil
	}
	if errno != 0 {
		return nil, fmt.Errorf("cannot wait: %w", errno)
	}
	return p.ready[:n], nil
}

func (p *poller) close() { _ = unix.Close(p.fd) }

// turns has ready called for each socket that can be read, by its name, and after once a turn, until the trial is over.
func (p *poller) turns(t *trial, ready func(name int) error, after func() error) error {
	t.begin()
	for {
		on, err := t.goesOn()
		if err != nil || !on {
			return err
		}
		events, err := p.wait()
		if err != nil {
			return err
		}
		for i := range events {
			if err := ready(int(events[i].Fd)); err != nil {
				return err
			}
		}
		if err := after(); err != nil {
			return err
		}
	}
}

// nothing is an after of turns.
func nothing() error { return nil }
