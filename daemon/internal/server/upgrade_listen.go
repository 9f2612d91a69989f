package server

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

// restingListener is a listener that can let connections wait for a moment, or for another process.
type restingListener struct {
	socketListener
	closed chan struct{}
	once   sync.Once

	mu   sync.Mutex
	wake chan struct{} // closed when it accepts again; nil: it accepts
}

// socketListener is what a listener of TCP and one of unix sockets have in common.
type socketListener interface {
	net.Listener
	SetDeadline(time.Time) error
	File() (*os.File, error)
}

// canRest has a listener be able to rest, where it can.
func canRest(l net.Listener) net.Listener {
	if with, ok := l.(socketListener); ok {
		return &restingListener{socketListener: with, closed: make(chan struct{})}
	}
	return l
}

// Accept is that of net.Listener.
func (l *restingListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.socketListener.Accept()
		wake := l.resting()
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return conn, err
		}
		if wake == nil {
			continue // just woken
		}
		select {
		case <-wake:
		case <-l.closed:
			return nil, net.ErrClosed
		}
	}
}

// Close is that of net.Listener.
func (l *restingListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.socketListener.Close()
}

func (l *restingListener) resting() chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wake
}

// rest has connections wait in the kernel.
func (l *restingListener) rest() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wake == nil {
		l.wake = make(chan struct{})
		_ = l.SetDeadline(time.Unix(1, 0)) // one that is closed accepts nothing, either
	}
}

// resume takes connections again.
func (l *restingListener) resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wake != nil {
		_ = l.SetDeadline(time.Time{})
		close(l.wake)
		l.wake = nil
	}
}

// canRest has all control listeners be able to rest.
func (l *controlListeners) canRest() {
	for _, one := range []*net.Listener{&l.grpc, &l.http, &l.unix} {
		if *one != nil {
			*one = canRest(*one)
		}
	}
}

func (l *controlListeners) rest()   { l.each((*restingListener).rest) }
func (l *controlListeners) resume() { l.each((*restingListener).resume) }

// keepSocketFile leaves the file of the unix socket where it is: it is another process's.
func (l *controlListeners) keepSocketFile() { l.unlinkOnClose(false) }

// ownSocketFile has it removed when this process stops, unless it is the service manager's.
func (l *controlListeners) ownSocketFile() { l.unlinkOnClose(!l.unixPassed) }

func (l *controlListeners) unlinkOnClose(unlink bool) {
	l.each(func(r *restingListener) {
		if unix, ok := r.socketListener.(*net.UnixListener); ok {
			unix.SetUnlinkOnClose(unlink)
		}
	})
}

func (l *controlListeners) each(do func(*restingListener)) {
	for _, one := range []net.Listener{l.grpc, l.http, l.unix} {
		if r, ok := one.(*restingListener); ok {
			do(r)
		}
	}
}

// handedListeners are the control listeners that there are.
func (d *daemon) handedListeners() (all []handedListener) {
	for _, l := range d.listeners.named(d.config) {
		if *l.listener != nil {
			all = append(all, handedListener{l.flag, l.value, l.listener == &d.listeners.unix && d.listeners.unixPassed})
		}
	}
	return all
}

// listenerFiles are their descriptors.
func (d *daemon) listenerFiles(handed []handedListener) (files []*os.File, err error) {
	for _, l := range d.listeners.named(d.config) {
		if *l.listener == nil {
			continue
		}
		with, ok := (*l.listener).(interface{ File() (*os.File, error) })
		if !ok {
			return files, fmt.Errorf("the listener of --%s cannot be handed over", l.flag)
		}
		f, err := with.File()
		if err != nil {
			return files, fmt.Errorf("cannot hand over the listener of --%s: %w", l.flag, err)
		}
		files = append(files, f)
	}
	if len(files) != len(handed) {
		return files, fmt.Errorf("there are %d control listeners, and were %d", len(files), len(handed))
	}
	return files, nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // who has it has a descriptor of its own
	}
}

// namedListener is a control listener, if there is one, with its flag.
type namedListener struct {
	flag, value string
	listener    *net.Listener
}

func (l *controlListeners) named(c Config) []namedListener {
	return []namedListener{
		{"grpc-listen", c.GRPCListen, &l.grpc}, {"http-listen", c.HTTPListen, &l.http}, {"socket", c.Socket, &l.unix},
	}
}
