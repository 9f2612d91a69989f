// Package netns does a thing inside a network namespace, and nothing else. A socket stays in the namespace in which it was
// made, wherever it is used then, so that is all it takes to listen and to send in any namespace of the host.
//
// It knows nothing of what is done. The registry of endpoints and package probe call it. Linux only: elsewhere every
// namespace is [ErrNotAvailable].
package netns

import (
	"errors"
	"fmt"
	"strings"
)

// ErrNotAvailable is what errors.Is finds where a namespace cannot be entered: there is none of that name, or this process
// may not. The text says which, and what to do. Where the process has no file descriptor left the error is the system's.
var ErrNotAvailable = errors.New("the network namespace is not available")

// notAvailable is an ErrNotAvailable whose text is the problem alone. It wraps no error of the system: a permission that is
// missing here must not be taken for one to use a port.
type notAvailable string

func (e notAvailable) Error() string        { return string(e) }
func (e notAvailable) Is(target error) bool { return target == ErrNotAvailable }

// Do calls f inside the network namespace of that name: one in /run/netns (or /var/run/netns), as ip-netns(8) has them, or
// the absolute path of a namespace's file, as /proc/PID/ns/net. Empty is the process's own: then f is just called. The error
// is f's, or why it was not called.
//
// f runs on a thread of its own, which nobody else runs on meanwhile. It must be short, start no goroutine to work inside
// (that one would not be), and not end its goroutine. It must also leave to others what package net remembers for the whole
// process: which number an interface has (net.Interfaces, net.InterfaceByName, IPv6 zones).
func Do(name string, f func() error) error {
	if name == "" {
		return f()
	}
	n, err := Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = n.Close() }() // It was opened to be looked through.
	return n.Do(f)
}

// Canonical is the shortest way to write a name, as [Do] takes them: "a" for "/run/netns/a" and "/var/run/netns/a". Two names
// whose canonical ones differ may still be of one namespace.
func Canonical(name string) string {
	for _, folder := range folders {
		if short, ok := strings.CutPrefix(name, folder+"/"); ok && isName(short) {
			return short
		}
	}
	return name
}

// ID tells a network namespace from every other one that is there at the same time. One that is gone may leave its ID to
// another; as long as a socket is in it, it is not gone.
type ID struct{ Device, Inode uint64 }

// Identify answers which namespace has a name, as [Do] takes them, or why none can be had. The zero ID is the process's own,
// of the empty name.
func Identify(name string) (ID, error) {
	if name == "" {
		return ID{}, nil
	}
	n, err := Open(name)
	if err != nil {
		return ID{}, err
	}
	defer func() { _ = n.Close() }() // It was opened to be looked at.
	return n.ID()
}

// Paths are where the file of a namespace of that name may be, the first one first.
func Paths(name string) []string {
	if strings.HasPrefix(name, "/") {
		return []string{name}
	}
	var paths []string
	if isName(name) {
		for _, folder := range folders {
			paths = append(paths, folder+"/"+name)
		}
	}
	return paths
}

// folders are where ip-netns(8) keeps the namespaces that have names. On most systems the second is the first.
var folders = []string{"/run/netns", "/var/run/netns"}

// isName says whether a name is one that a file in a folder of namespaces can have.
func isName(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}

// noSuch does not tell what else is wrong with a name or path: whoever may name files must not learn which there are.
func noSuch(name string) error {
	if strings.HasPrefix(name, "/") {
		return notAvailable(fmt.Sprintf("no network namespace can be opened at %q; name one of \"ip netns\", or a file such as /proc/PID/ns/net", name))
	}
	return notAvailable(fmt.Sprintf("there is no network namespace %q; \"ip netns\" lists those that there are, and \"ip netns add\" makes one", name))
}
