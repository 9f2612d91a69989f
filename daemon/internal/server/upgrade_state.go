package server

import (
	"errors"
	"sync"

	"github.com/echod/echod/daemon/internal/store"
)

// errStateGiven is why nothing can be kept while another process has the state file.
var errStateGiven = errors.New("the state file is another process's for the moment of an upgrade")

// stateFile is what the rooms know of the store. It is opened when control calls are served already: a disk that is slow is told
// then, rather than felt; and it may be lent to another process. The zero stateFile is not open.
type stateFile struct {
	mu   sync.RWMutex // held over calls of the store, so that none is under way when it is closed
	now  *store.Store // nil while it is not open
	past *store.Store // what it was before it was closed; nil: it was not open
}

// is says what the store is.
func (s *stateFile) is(now *store.Store) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = now
}

// close closes it, if it is open: for good, or for another process.
func (s *stateFile) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now == nil {
		return nil
	}
	s.now, s.past = nil, s.now
	return s.past.Close()
}

// reopen opens it again as it was, if it was open.
func (s *stateFile) reopen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.past != nil {
		s.now, s.past = s.past.Reopen(), nil
	}
}

func (s *stateFile) with(do func(*store.Store) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.now == nil {
		return errStateGiven
	}
	return do(s.now)
}

// Put is that of the store, as are those below.
func (s *stateFile) Put(kind, key string, value []byte) error {
	return s.with(func(to *store.Store) error { return to.Put(kind, key, value) })
}

// Delete is that of the store.
func (s *stateFile) Delete(kind, key string) error {
	return s.with(func(to *store.Store) error { return to.Delete(kind, key) })
}

// Write is that of the store.
func (s *stateFile) Write(kind string, puts map[string][]byte, deletes []string) error {
	return s.with(func(to *store.Store) error { return to.Write(kind, puts, deletes) })
}

// Each is that of the store.
func (s *stateFile) Each(kind string, fn func(key string, value []byte) error) error {
	return s.with(func(to *store.Store) error { return to.Each(kind, fn) })
}

// Health is that of the store. For the moment of an upgrade nothing is wrong.
func (s *stateFile) Health() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.now == nil {
		return nil
	}
	return s.now.Health()
}
