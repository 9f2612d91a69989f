package handover

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
)

const (
	// keptPrefix begins the names of the sockets that we have given to the store. No name of an endpoint has a dot.
	keptPrefix = "echod."
	// keptBytes is how many random bytes end them.
	keptBytes = 4
	// maxKeptNames is how many bytes the names in the store may have together: the next process gets all of them in one
	// variable of its environment, which has at most 128 KiB on Linux, the names of sockets from socket units included.
	maxKeptNames = 96 << 10
)

// Store is the service manager's store of descriptors for this service. A socket in it outlives the process: connections and
// datagrams wait in it for the next one, which gets it by Manager.Sockets. It may be used by any goroutine.
type Store struct {
	notifier *Notifier
	log      *slog.Logger
	max      int // of sockets; -1: not known

	mu     sync.Mutex // guards what follows
	kept   int        // sockets
	bytes  int        // of their names
	warned bool
}

// NewStore makes the store of a manager, or answers nil when there is none.
func (m *Manager) NewStore(log *slog.Logger) *Store {
	if m.Notifier == nil || m.StoreMax == 0 {
		return nil
	}
	return &Store{notifier: m.Notifier, log: log, max: m.StoreMax}
}

// KeptFor answers for which endpoint a socket was kept, by its name in the store. A socket of another name was not: that of a
// unit echod.web.socket is one, too.
func KeptFor(name string) (endpoint string, ok bool) {
	rest, ours := strings.CutPrefix(name, keptPrefix)
	endpoint, one, _ := strings.Cut(rest, ".")
	if _, err := hex.DecodeString(one); !ours || err != nil || len(one) != hex.EncodedLen(keptBytes) {
		return "", false
	}
	return endpoint, true
}

// Keep has the manager keep a copy of a socket for an endpoint, and answers by what name. It is empty when it cannot, which is logged.
func (s *Store) Keep(endpoint string, socket *os.File) (name string) {
	name = keptName(endpoint)
	if !s.reserve(name) {
		return ""
	}
	// FDPOLL=0: the manager is not to drop it for an error of the socket.
	if err := s.notifier.send([]*os.File{socket}, "FDSTORE=1", "FDNAME="+name, "FDPOLL=0"); err != nil {
		s.log.Warn("the socket of an endpoint does not outlive this process", "endpoint", endpoint, "error", err)
		s.give(name)
		return ""
	}
	return name
}

// Kept counts a socket that the manager has kept already, by its name. A nil Store does not.
func (s *Store) Kept(name string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept++
	s.bytes += len(name) + 1
}

// keptName is a name that no other socket in the store has: an endpoint may have two for a moment.
func keptName(endpoint string) string {
	var one [keptBytes]byte
	_, _ = rand.Read(one[:]) // never fails
	return keptPrefix + endpoint + "." + hex.EncodeToString(one[:])
}

// reserve counts a socket in, unless there would be too many.
func (s *Store) reserve(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if full := s.max >= 0 && s.kept >= s.max; full || s.bytes+len(name)+1 > maxKeptNames {
		if !s.warned {
			s.warned = true
			s.log.Warn("the service manager keeps no more sockets: those of further endpoints do not outlive a crash", "kept", s.kept,
				"limit", fmt.Sprintf("%d KiB of names, FileDescriptorStoreMax=%d", maxKeptNames>>10, s.max))
		}
		return false
	}
	s.kept++
	s.bytes += len(name) + 1
	return true
}

func (s *Store) give(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept--
	s.bytes -= len(name) + 1
	s.warned = false
}

// Release has the manager close what it has kept by a name, and returns when it has.
func (s *Store) Release(name string) {
	err := s.notifier.send(nil, "FDSTOREREMOVE=1", "FDNAME="+name)
	if err == nil {
		err = s.notifier.await()
	}
	s.give(name)
	if err != nil {
		s.log.Warn("the service manager may still hold the port of a socket", "socket", name, "error", err)
	}
}
