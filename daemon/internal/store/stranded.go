package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// People remove, replace and restore files under a daemon that runs. What it has open lives on without a name then: each write to
// it succeeds, and the next start finds none of it. So it is looked at before a change is kept, for the price of two lookups.

// leaveStranded gives up an open file that is not in the directory any more. What is there in its place is set aside, as it may be
// a backup that somebody has put back.
func (s *Store) leaveStranded() {
	if s.db == nil || s.stands(fileName, s.file) && s.stands(lockName, s.lock) {
		return
	}
	if !s.stands(fileName, s.file) {
		s.o.Log.Warn("the state file was removed or replaced while the daemon has it; it is written anew", "file", s.path(fileName))
		s.aside = append(s.aside, fileName)
	}
	s.leave(nil)
}

// stands says whether what we have open is what the directory has by that name. What cannot be looked at does.
func (s *Store) stands(name string, open *os.File) bool {
	there, err := os.Stat(s.path(name))
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	ours, err := open.Stat()
	return err != nil || os.SameFile(ours, there)
}

// relock takes the directory again when the file that was locked is not there any more: another daemon could have it.
func (s *Store) relock() error {
	if s.lock != nil && s.stands(lockName, s.lock) {
		return nil
	}
	held, err := lock(s.dir)
	if err != nil && s.lock != nil {
		return fmt.Errorf("%s was removed while the daemon has it: %w", s.path(lockName), err)
	}
	if err != nil {
		return err
	}
	_ = s.unlock() // it locks nothing that can be found
	s.lock = held
	s.mu.Lock()
	defer s.mu.Unlock()
	s.copied = nil // it may have gone with the lock
	return nil
}
