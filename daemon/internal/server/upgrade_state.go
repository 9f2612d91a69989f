package server

import (
	"errors"
	"sync"

	"github.com/echod/echod/daemon/internal/store"
)

// errStateGiven is why nothing can be kept while another process has the state file.
var errStateGiven = errors.New("the state file is another process's for the moment of an upgrade")

// stateFile is the store of a daemon that may have to lend it to another process. A nil stateFile is none.
type stateFile struct {
	open func() (*store.Store, error)

	mu  sync.RWMutex // held over calls of the store, so that none is under way when it is closed
	now *store.Store // nil while another process has it
}

func openState(open func() (*store.Store, error)) (*stateFile, error) {
	now, err := open()
	if err != nil {
		return nil, err
	}
	return &stateFile{open: open, now: now}, nil
}

// suspend closes the file.
func (s *stateFile) suspend() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now == nil {
		return nil
	}
	err := s.now.Close()
	s.now = nil
	return err
}

// resume opens it again.
func (s *stateFile) resume() (err error) {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now, err = s.open()
	if err != nil {
		s.now = nil
	}
	return err
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

// Health is that of the store.
func (s *stateFile) Health() error { return s.with((*store.Store).Health) }
