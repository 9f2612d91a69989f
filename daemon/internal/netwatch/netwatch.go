// Package netwatch tells that something of the host's network has changed: a link or an address, in this network namespace or
// in others, or which namespace a name means. It says that and where, not what: who is told looks for themselves, with [Look].
//
// It knows nothing of endpoints; their registry calls it. Linux only: elsewhere it tells nothing, and all looks are alike.
package netwatch

import (
	"maps"
	"sync"

	"github.com/echod/echod/daemon/internal/netns"
)

// What is followed at most. Each namespace takes a file descriptor. Who has more to follow learns of the rest in other ways.
const (
	MaxNamespaces = 64
	MaxFolders    = 64
)

// Changes are what has changed.
type Changes struct {
	// Links are the namespaces, as [netns.Do] takes them, of which a link or an address has changed.
	Links map[string]bool
	// Names says that a name may lead to another namespace, or to none, or to one again.
	Names bool
}

// Watch follows the network. Make one with [New]; it costs nothing until the first Follow. It is safe for concurrent use, but
// for Follow and Close, which one goroutine calls.
type Watch struct {
	follower // what the system needs
	wake     chan struct{}
	readers  sync.WaitGroup

	mu      sync.Mutex // guards what follows
	changes Changes
}

// New makes a watch that follows nothing.
func New() *Watch { return &Watch{wake: make(chan struct{}, 1)} }

// Changed has a token when Take has something to answer. That of a nil watch never has.
func (w *Watch) Changed() <-chan struct{} {
	if w == nil {
		return nil
	}
	return w.wake
}

// Take answers what has changed since it was last called.
func (w *Watch) Take() Changes {
	w.mu.Lock()
	defer w.mu.Unlock()
	taken := Changes{Links: maps.Clone(w.changes.Links), Names: w.changes.Names}
	w.changes = Changes{}
	return taken
}

// Follow sets what is followed: the links and addresses of the namespaces links, of which the empty name is our own, and what
// the names of namespaces lead to. What cannot be followed (since it is not there, or there are more than MaxNamespaces or
// MaxFolders) is left out, and tried again with the next call. What is followed from now on is told as changed once: it may
// have before.
func (w *Watch) Follow(links, names []string) {
	if w != nil {
		w.follow(links, names)
	}
}

// Close ends the watch and waits for its goroutines. It may be called again; Follow may not be called any more.
func (w *Watch) Close() {
	if w != nil {
		w.stop()
		w.readers.Wait()
	}
}

// linksChanged notes that something of a namespace has changed.
func (w *Watch) linksChanged(namespace string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.changes.Links == nil {
		w.changes.Links = map[string]bool{}
	}
	w.changes.Links[namespace] = true
	w.tellLocked()
}

// namesChanged notes that a name may mean another namespace.
func (w *Watch) namesChanged() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changes.Names = true
	w.tellLocked()
}

func (w *Watch) tellLocked() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Sight is what a socket stands on: two that differ mean that one which was made at the first does not serve at the second.
type Sight struct {
	Namespace netns.ID  // zero: our own
	Indexes   [2]uint32 // of the interfaces that were asked for; 0: none was, or there is none of that name
}
