//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// place is where a program runs. The zero place is where this one does.
type place struct {
	namespace *os.File // of the network; nil: this one's
	pinned    bool     // to the processor
	processor int
}

// do runs f on a thread that is in the place. The processes that f starts are there, too.
func (p place) do(f func() error) error {
	if p.namespace == nil && !p.pinned {
		return f()
	}
	done := make(chan error)
	go func() { done <- p.doLocked(f) }()
	return <-done
}

// doLocked leaves the goroutine locked, so that the thread ends with it, unless it could be brought back.
func (p place) doLocked(f func() error) (err error) {
	runtime.LockOSThread()
	home, err := ownNamespace()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, home.Close()) }()
	var everywhere, here unix.CPUSet
	if err := unix.SchedGetaffinity(0, &everywhere); err != nil {
		return err
	}
	if p.namespace != nil {
		if err := unix.Setns(int(p.namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("cannot enter a network namespace: %w", err)
		}
	}
	if p.pinned {
		here.Set(p.processor)
		if err := unix.SchedSetaffinity(0, &here); err != nil {
			return fmt.Errorf("cannot run on processor %d alone: %w", p.processor, err)
		}
	}
	err = f()
	if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil && unix.SchedSetaffinity(0, &everywhere) == nil {
		runtime.UnlockOSThread()
	}
	return err
}

// ownNamespace opens the network namespace of this thread.
func ownNamespace() (*os.File, error) { return os.Open("/proc/thread-self/ns/net") }

// The addresses of the ends of a cable. Nothing but the two namespaces sees them.
const (
	clientAddress = "10.0.0.1"
	serverAddress = "10.0.0.2"
	// cableDevice is what both ends are called in their namespaces.
	cableDevice = "cable"
)

// cable is two network namespaces and a veth pair between them: two hosts and a cable, which are gone when it is closed.
type cable struct{ client, server *os.File }

// cableWithin is how long a cable may take to be plugged in.
const cableWithin = 5 * time.Second

func newCable(ctx context.Context) (_ *cable, err error) {
	c := &cable{}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	for _, end := range []**os.File{&c.client, &c.server} {
		if *end, err = newNamespace(); err != nil {
			return nil, err
		}
	}
	// The other namespace has no name; ip reaches it through our open file.
	peer := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), c.server.Fd())
	err = c.ip(ctx, c.client, "link add name cable type veth peer name cable netns "+peer)
	for _, end := range []struct {
		namespace *os.File
		address   string
	}{{c.client, clientAddress}, {c.server, serverAddress}} {
		if err == nil {
			err = c.ip(ctx, end.namespace, "addr add "+end.address+"/24 dev cable")
		}
		if err == nil {
			err = c.ip(ctx, end.namespace, "link set cable up")
		}
	}
	if err == nil {
		err = place{namespace: c.client}.do(awaitCable)
	}
	return c, err
}

// newNamespace makes an empty network namespace, which lasts while the file is open or a process in it.
func newNamespace() (made *os.File, err error) {
	err = inNew(func() error {
		made, err = ownNamespace()
		return err
	})
	return made, err
}

// inNew runs f on a thread in a new network namespace.
func inNew(f func() error) error {
	home, err := ownNamespace()
	if err != nil {
		return err
	}
	defer func() { _ = home.Close() }() // it was only read
	return place{namespace: home}.do(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("cannot make a network namespace: %w", err)
		}
		return f()
	})
}

// ip runs an ip command in a namespace.
func (c *cable) ip(ctx context.Context, namespace *os.File, command string) error {
	return place{namespace: namespace}.do(func() error {
		_, err := output(ctx, "", "ip", strings.Fields(command)...)
		return err
	})
}

// awaitCable returns when the cable is plugged in at both ends: what is sent before that may be dropped.
func awaitCable() error {
	for began := time.Now(); time.Since(began) < cableWithin; time.Sleep(10 * time.Millisecond) {
		device, err := net.InterfaceByName(cableDevice)
		if err != nil {
			return err
		}
		if device.Flags&net.FlagRunning != 0 {
			return nil
		}
	}
	return fmt.Errorf("the cable between two network namespaces is not ready after %v", cableWithin)
}

func (c *cable) close() {
	for _, end := range []*os.File{c.client, c.server} {
		if end != nil {
			_ = end.Close() // it was only read
		}
	}
}
