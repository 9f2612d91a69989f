package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace that is held open: it lasts until Close, whatever becomes of its name. It is safe for
// concurrent use. A nil one is the process's own.
type Namespace struct {
	name string
	file *os.File
}

// Open opens a namespace by its name or path, as [Do] takes them, other than the empty one. The caller closes it.
func Open(name string) (*Namespace, error) {
	for _, path := range Paths(name) {
		file, err := openFile(path)
		switch {
		case err == nil:
			return &Namespace{name, file}, nil
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOMEM):
			return nil, fmt.Errorf("cannot open network namespace %q: %w", name, err)
		}
	}
	return nil, noSuch(name)
}

// openFile opens the file of a network namespace, and nothing else: to open what a client names may do something (a FIFO
// waits, a device starts), so the file is looked at by a descriptor that does not open it, and then opened by that.
func openFile(path string) (*os.File, error) {
	look, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(look) }()
	var kind unix.Statfs_t
	if err := unix.Fstatfs(look, &kind); err != nil {
		return nil, err
	}
	if kind.Type != unix.NSFS_MAGIC {
		return nil, unix.EINVAL
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", look), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	which, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil || which != unix.CLONE_NEWNET {
		_ = unix.Close(fd)
		return nil, unix.EINVAL
	}
	return os.NewFile(uintptr(fd), path), nil
}

// ID answers which namespace it is; the zero ID is the process's own, of a nil one.
func (n *Namespace) ID() (ID, error) {
	if n == nil {
		return ID{}, nil
	}
	var s unix.Stat_t
	if err := unix.Fstat(int(n.file.Fd()), &s); err != nil {
		return ID{}, fmt.Errorf("cannot identify network namespace %q: %w", n.name, err)
	}
	return ID{Device: s.Dev, Inode: s.Ino}, nil
}

// Do calls f inside the namespace, under the rules of the function [Do].
func (n *Namespace) Do(f func() error) error {
	if n == nil {
		return f()
	}
	done := make(chan error, 1)
	// In a goroutine of its own: should its thread not come back, the caller does.
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The first thread's namespace is that of /proc/self and /proc/PID for everybody, so it never leaves. While
			// it waits here, another has to run what follows.
			done <- n.Do(f)
			return
		}
		done <- n.inside(f)
	}()
	return <-done
}

// inside calls f on this goroutine's thread, which it locks for that. A thread that cannot be set back stays locked: it ends
// with the goroutine, and nobody runs on it again.
func (n *Namespace) inside(f func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("cannot enter network namespace %q: %w", n.name, err)
	}
	defer func() { _ = home.Close() }()
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return n.closed(err)
	}
	defer func() {
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return f()
}

// closed says why the namespace cannot be entered.
func (n *Namespace) closed(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return notAvailable(fmt.Sprintf("cannot enter network namespace %q: permission denied; that needs root, or CAP_SYS_ADMIN", n.name))
	case errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("cannot enter network namespace %q: %w", n.name, err)
	default:
		return notAvailable(fmt.Sprintf("cannot enter network namespace %q: %v", n.name, err))
	}
}

// Close lets go of the namespace. What was made in it stays.
func (n *Namespace) Close() error {
	if n == nil {
		return nil
	}
	return n.file.Close()
}
