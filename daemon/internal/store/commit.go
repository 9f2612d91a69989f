package store

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

const (
	// maxGroup is how many calls are kept together at most, so that none waits for too many others.
	maxGroup = 4096
	// maxRetry is the longest wait before a file that could not be written is tried again.
	maxRetry = 30 * time.Second
)

// call is what somebody waits for. What is below the channel is guarded by the store's lock.
type call struct {
	kind    string
	puts    map[string][]byte
	deletes []string
	done    chan error // gets one

	taken   bool // by the committer
	left    bool // by its caller
	decided bool // what done gets stands
}

func (c *call) check() error {
	if c.kind == "" || c.kind == metaKind {
		return fmt.Errorf("%q cannot be a kind of records", c.kind)
	}
	for key, value := range c.puts {
		if key == "" || len(key) > maxKey || len(value) > maxValue {
			return fmt.Errorf("a key of %d bytes with a value of %d cannot be kept", len(key), len(value))
		}
	}
	return nil
}

// write hands a call to the committer and waits for what comes of it.
func (s *Store) write(kind string, puts map[string][]byte, deletes []string) error {
	c := &call{kind: kind, puts: puts, deletes: deletes, done: make(chan error, 1)}
	if err := c.check(); err != nil {
		return err
	}
	if err := s.enqueue(c); err != nil {
		return err
	}
	patience := time.NewTimer(s.o.Patience)
	defer patience.Stop()
	select {
	case err := <-c.done:
		return err
	case <-patience.C:
		return s.giveUp(c)
	}
}

func (s *Store) enqueue(c *call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return ErrClosed
	case s.image == nil:
		return s.report.Lost
	}
	if err := s.stuckLocked(); err != nil {
		return err // one more would only wait as long
	}
	s.queue = append(s.queue, c)
	select {
	case s.wake <- struct{}{}:
	default: // it is awake
	}
	return nil
}

// stuckLocked says that the disk has not answered for longer than a call waits.
func (s *Store) stuckLocked() error {
	if s.busy.IsZero() {
		return nil
	}
	if since := time.Since(s.busy); since >= s.o.Patience {
		return fmt.Errorf("%w: the disk has not answered for %v", ErrNotWritable, since.Round(time.Second))
	}
	return nil
}

// giveUp takes a call back whose caller has waited long enough.
func (s *Store) giveUp(c *call) error {
	s.mu.Lock()
	if c.decided {
		s.mu.Unlock()
		return <-c.done
	}
	defer s.mu.Unlock()
	c.left = true
	if !c.taken {
		s.queue = slices.DeleteFunc(s.queue, func(other *call) bool { return other == c })
	}
	return fmt.Errorf("%w: the disk has not answered for %v", ErrNotWritable, s.o.Patience)
}

// commitCalls keeps calls until the store closes and none is left. A call that comes alone is kept at once; those that come
// while others are being kept go together after them.
func (s *Store) commitCalls() {
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		retry.Stop()
		if s.db == nil {
			retry.Reset(s.wait)
		}
		select {
		case <-s.wake:
			s.keep()
		case <-retry.C:
			s.heal()
		case <-s.closing:
			for s.keep() {
			}
			return
		}
	}
}

// take answers the calls that wait, and marks since when the disk is at them.
func (s *Store) take() []*call {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(len(s.queue), maxGroup)
	group := slices.Clone(s.queue[:n])
	s.queue = slices.Delete(s.queue, 0, n)
	for _, c := range group {
		c.taken = true
	}
	if n > 0 {
		s.busy = time.Now()
	}
	if len(s.queue) > 0 {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	return group
}

// keep keeps a group of calls and answers them. It says whether there were any.
func (s *Store) keep() bool {
	group := s.take()
	if len(group) == 0 {
		return false
	}
	err := s.ready()
	var c change
	if err == nil {
		c = s.image.plan(group, time.Now()) // only this goroutine changes the image
		if err = s.commit(c); err != nil {
			// The file may hold what is refused now, and memory does not. What is in memory is right.
			s.leave(err)
			_ = s.ready() // noted in Health
		}
	}
	if err != nil {
		s.answer(group, fmt.Errorf("%w: %w", ErrNotWritable, err))
		return true
	}
	if s.accept(group, c) {
		s.leave(nil)
		_ = s.ready() // noted in Health
	}
	s.mu.Lock()
	s.busy = time.Time{}
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
	return true
}

// accept makes what the file has taken true in memory, and answers those who wait for it. It says whether the file has taken
// more than that, for callers who have gone.
func (s *Store) accept(group []*call, c change) (more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stayed := slices.DeleteFunc(slices.Clone(group), func(c *call) bool { return c.left })
	if more = len(stayed) < len(group); more {
		c = s.image.plan(stayed, c.head.Changed)
	}
	s.image.apply(c)
	failpoint("commit.kept")
	for _, one := range stayed {
		one.decided = true
		one.done <- nil
	}
	return more
}

// answer answers all of a group, those who have gone included, whom it does not reach.
func (s *Store) answer(group []*call, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = time.Time{}
	for _, c := range group {
		c.decided = true
		c.done <- err
	}
}

// commit writes a change into the file and syncs it.
func (s *Store) commit(c change) error {
	if err := s.at("commit.begin"); err != nil {
		return err
	}
	if info, err := s.file.Stat(); err == nil {
		s.db.AllocSize = max(growBy, int(info.Size())) // it doubles: to grow is to sync once more
	}
	if err := guard(func() error { return s.db.Update(func(tx *bbolt.Tx) error { return put(tx, c) }) }); err != nil {
		return err
	}
	return s.at("commit.done")
}

// leave gives up the open file, for the reason given: nil when nothing is wrong with it but what it holds. To sync it again
// would prove nothing: Linux tells of a failed write once.
func (s *Store) leave(why error) {
	if errors.Is(why, errFault) {
		_ = s.file.Close() // bbolt may hold its own locks for ever; what is mapped stays mapped
	} else {
		_ = s.db.Close() // it does not matter how that ends
	}
	s.db, s.file = nil, nil
}

// ready sees to it that there is a file to write to.
func (s *Store) ready() error {
	s.leaveStranded()
	if s.db != nil {
		return nil
	}
	err := s.renew()
	s.mu.Lock()
	was := s.broken
	s.broken = nil
	if err != nil {
		s.broken = fmt.Errorf("%w: %w", ErrNotWritable, err)
	}
	s.mu.Unlock()
	switch {
	case err == nil:
		s.wait = s.o.retry
		if was != nil {
			s.o.Log.Info("the state file can be written again", "stateDirectory", s.dir)
		}
	case was == nil:
		s.o.Log.Error("the state file cannot be written; changes are refused until it can", "stateDirectory", s.dir, "reason", err)
	}
	return err
}

// heal tries to make the file anew though nobody waits for it.
func (s *Store) heal() {
	s.mu.Lock()
	s.busy = time.Now()
	s.mu.Unlock()
	if s.ready() != nil {
		s.wait = min(2*s.wait, maxRetry)
	}
	s.mu.Lock()
	s.busy = time.Time{}
	s.mu.Unlock()
}

// renew writes the image into a new file and opens that.
func (s *Store) renew() error {
	if err := s.relock(); err != nil {
		return err
	}
	for len(s.aside) > 0 {
		name := s.aside[0]
		to, err := setAside(s.dir, name, time.Now())
		if err != nil {
			return fmt.Errorf("cannot set the damaged %s aside: %w", name, err)
		}
		s.aside = s.aside[1:]
		if to != "" {
			s.o.Log.Warn("a damaged state file was set aside", "file", s.path(name), "as", to)
		}
		if err := s.at("aside.renamed"); err != nil {
			return err
		}
	}
	path := s.path(fileName)
	if err := writeNew(s.dir, path, s.image, func(step string) error { return s.at("state." + step) }); err != nil {
		return err
	}
	return guard(func() error {
		o := *options
		o.OpenFile = func(name string, flag int, mode os.FileMode) (_ *os.File, err error) {
			s.file, err = os.OpenFile(name, flag, mode)
			return s.file, err
		}
		db, err := openToWrite(path, &o)
		if err == nil {
			s.db = db
		}
		return err
	})
}
