package store

import "time"

// keepCopy keeps the good copy no older than it must be, until the store closes: at most one in CopyInterval, and longer apart
// where they take long, so that they take little of the disk.
func (s *Store) keepCopy() {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-s.closing:
			return
		case <-s.changed:
		}
		begun := time.Now()
		if !s.refreshCopy() {
			select {
			case s.changed <- struct{}{}: // try again
			default:
			}
		}
		pause.Reset(max(s.o.CopyInterval, 20*time.Since(begun)))
		select {
		case <-s.closing:
			return
		case <-pause.C:
		}
	}
}

// refreshCopy writes the image, as it is now, into the good copy. It is made from memory: a copy of a file has its damage.
// It says whether the copy is up to date then.
func (s *Store) refreshCopy() bool {
	s.mu.Lock()
	now, last := s.image.clone(), s.copied
	s.mu.Unlock()
	if last != nil && now.head.same(*last) {
		return true
	}
	now.head.Running = false // nobody ever writes to it
	err := writeNew(s.dir, s.path(copyName), now, func(step string) error { return s.at("copy." + step) })
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.copied = &now.head
	}
	if (err == nil) != (s.reason == nil) {
		if err != nil {
			s.o.Log.Warn("the good copy of the state file cannot be written; the older one stays", "file", s.path(copyName), "reason", err)
		} else {
			s.o.Log.Info("the good copy of the state file is up to date again", "file", s.path(copyName))
		}
	}
	s.reason = err
	return err == nil
}
