// Package store keeps what must survive a crash: small records of bytes, by kind and key. A record is on disk when the call
// that wrote it returns. It knows nothing of what the bytes mean; registry and monitor use it.
//
// The records are in memory, as they were acknowledged, and in one bbolt file, which is read at the start alone and believed
// only after every checksum in it was looked at. Whenever writing to it fails it is left behind, and the records in memory are
// written into a new one: what a disk that failed has kept is nothing to build on. A second file is a copy of a while ago at
// most, for the day when the first is damaged.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/bbolt"
)

const (
	// lockWait is how long Open waits for a daemon that is just going.
	lockWait = 2 * time.Second
	// maxKey and maxValue are what nobody comes near, and bbolt takes.
	maxKey   = 32768
	maxValue = 16 << 20
)

var (
	// ErrInUse says that another process has the directory.
	ErrInUse = errors.New("the state directory is in use by another echod")
	// ErrNewer says that a newer echod has written the file: start that one.
	ErrNewer = errors.New("the state file is one of a newer echod")
	// ErrDamaged says that a file is not what was written.
	ErrDamaged = errors.New("the state file is damaged")
	// ErrLost says that there was state, and none of it can be trusted: nothing can be read or written.
	ErrLost = errors.New("the state is lost")
	// ErrNotWritable says that a change was not kept, since the disk does not take it.
	ErrNotWritable = errors.New("the state file cannot be written")
	// ErrClosed says that the store is closed.
	ErrClosed = errors.New("the state file is closed")
)

// Options are how a store is opened. The zero value is right where nothing else is said.
type Options struct {
	// Verify reads a state file, as Check does, where a file that makes the reader hang or die does no harm: NewVerifier.
	// nil: Check itself, in this process.
	Verify func(ctx context.Context, path string) (Summary, error)
	// VerifyTimeout is how long Verify may take for one file before it is taken for damaged; 0: 30 seconds.
	VerifyTimeout time.Duration
	// AcceptDataLoss starts empty where the state is lost. It changes nothing where it is not.
	AcceptDataLoss bool
	// Patience is how long a call waits for the disk before it is refused; 0: 10 seconds.
	Patience time.Duration
	// CopyInterval is the shortest time between two good copies while changes come; 0: 10 seconds.
	CopyInterval time.Duration
	// Log is told of what nobody else is: that a good copy cannot be written, or that the disk takes changes again. nil: nobody.
	Log *slog.Logger

	// at is told of each step of writing, by the names of failpoints, and makes it fail with its error, or slow; nil outside tests.
	at func(point string) error
	// retry is how long the first wait before the file is written anew is, which doubles; 0: one second.
	retry time.Duration
}

func (o Options) withDefaults() Options {
	def := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	def(&o.VerifyTimeout, 30*time.Second)
	def(&o.Patience, 10*time.Second)
	def(&o.CopyInterval, 10*time.Second)
	def(&o.retry, time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Store is an open state directory. It is safe for concurrent use.
type Store struct {
	dir     string
	o       Options
	lock    *os.File // held; of the committer once it runs; nil: the directory is not ours
	report  Report
	wake    chan struct{} // there are calls
	changed chan struct{} // the copy is older than the state
	closing chan struct{}
	idle    chan struct{}  // closed when nobody of this store is at the files any more
	ended   sync.WaitGroup // the committer and the one who copies
	close   func() error

	// Of the committer alone.
	db    *bbolt.DB     // nil: it has to be made anew from the image
	file  *os.File      // db's
	aside []string      // names of damaged files that still stand where ours are to be
	wait  time.Duration // before the file is made anew

	mu     sync.Mutex
	image  *image // as acknowledged; nil when the state is lost
	queue  []*call
	closed bool
	broken error     // why nothing can be written; nil: all is well
	busy   time.Time // since when the committer is at the disk; zero: it is not
	copied *Summary  // of the good copy; nil: there is none
	reason error     // why the good copy could not be written, if it was tried last
}

// Open opens the state in dir, and makes what is missing. It answers a store also where the state file is damaged: with what its
// good copy holds or, if that cannot be trusted either, one that takes and gives nothing and whose Health says so. Report tells.
// The error is ErrInUse when another process has the directory, ErrNewer when a newer echod wrote it, else why a directory could
// not be made or a file not be read.
func Open(dir string, o Options) (*Store, error) {
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	held, err := lock(dir)
	if err != nil {
		return nil, err
	}
	s := newStore(dir, o.withDefaults())
	s.lock = held
	if err := s.choose(); err != nil {
		return nil, errors.Join(err, held.Close())
	}
	if s.image == nil {
		return s, nil
	}
	s.wait = s.o.retry
	s.image.head.Running = true
	if err := s.renew(); err != nil {
		if s.report.Last == First || s.report.Accepted {
			return nil, errors.Join(fmt.Errorf("cannot write a state file in %s: %w", dir, err), held.Close())
		}
		s.broken = fmt.Errorf("%w: %w", ErrNotWritable, err) // what is there can be served nevertheless
	}
	s.begin()
	return s, nil
}

func newStore(dir string, o Options) *Store {
	s := &Store{
		dir: dir, o: o,
		wake: make(chan struct{}, 1), changed: make(chan struct{}, 1), closing: make(chan struct{}), idle: make(chan struct{}),
	}
	s.close = sync.OnceValue(s.shut)
	return s
}

// begin has changes kept from now on.
func (s *Store) begin() {
	s.changed <- struct{}{}
	s.ended.Go(s.commitCalls)
	s.ended.Go(s.keepCopy)
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }

// at tells tests, and failpoints, of a step.
func (s *Store) at(point string) error {
	failpoint(point)
	if s.o.at != nil {
		return s.o.at(point)
	}
	return nil
}

// Report says what Open found.
func (s *Store) Report() Report { return s.report }

// Put writes one record, replacing one of the same kind and key. Its errors are those of Write.
func (s *Store) Put(kind, key string, value []byte) error {
	if err := s.write(kind, map[string][]byte{key: value}, nil); err != nil {
		return fmt.Errorf("cannot write %s %q to the state file: %w", kind, key, err)
	}
	return nil
}

// Delete removes one record. One that is not there is no error. Its errors are those of Write.
func (s *Store) Delete(kind, key string) error {
	if err := s.write(kind, nil, []string{key}); err != nil {
		return fmt.Errorf("cannot delete %s %q from the state file: %w", kind, key, err)
	}
	return nil
}

// Write puts and deletes records of a kind as one change: after a crash either all of it is there or nothing. A key that is
// in both is put; a deletion of one that is not there is no error. Calls that come while the disk is busy are kept together,
// in their order.
//
// With an error nothing was changed: ErrNotWritable when the disk does not take it, ErrLost, ErrClosed. A call waits for the disk
// for Patience at most. What the disk was at when its caller was sent away is undone as soon as the disk answers; a crash before
// that may leave it.
func (s *Store) Write(kind string, puts map[string][]byte, deletes []string) error {
	if err := s.write(kind, puts, deletes); err != nil {
		return fmt.Errorf("cannot write %s to the state file: %w", told(kind, puts, deletes), err)
	}
	return nil
}

// told says what a change is about.
func told(kind string, puts map[string][]byte, deletes []string) string {
	if len(puts)+len(deletes) != 1 {
		return fmt.Sprintf("%d records of kind %s", len(puts)+len(deletes), kind)
	}
	for key := range puts {
		return fmt.Sprintf("%s %q", kind, key)
	}
	return fmt.Sprintf("%s %q", kind, deletes[0])
}

// Each calls fn with every record of a kind, in order of keys; value is fn's to keep. It ends at the first error. The error is
// fn's, or ErrLost.
func (s *Store) Each(kind string, fn func(key string, value []byte) error) error {
	s.mu.Lock()
	if s.image == nil {
		s.mu.Unlock()
		return s.report.Lost
	}
	keys := s.image.keys(kind)
	values := make([][]byte, len(keys))
	for i, key := range keys {
		values[i] = s.image.kinds[kind][key]
	}
	s.mu.Unlock()
	for i, key := range keys {
		if err := fn(key, append([]byte(nil), values[i]...)); err != nil {
			return err
		}
	}
	return nil
}

// Health says why nothing can be written: the disk failed, and has not taken the state since; or it does not answer; or the state
// is lost. nil: all is well, as far as is known. It may be called at any time and touches no disk. All but a lost state heals by
// itself, whether or not somebody makes a change.
func (s *Store) Health() error {
	if s.report.Lost != nil {
		return s.report.Lost
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.stuckLocked(); err != nil {
		return err
	}
	return s.broken
}

// Close keeps what was asked for, notes that the daemon stopped in order, brings the good copy up to date, and lets go of the
// directory. For a disk that does not answer it waits for Patience only.
func (s *Store) Close() error { return s.close() }

func (s *Store) shut() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	close(s.closing)
	done := make(chan error, 1)
	go func() {
		defer close(s.idle)
		s.ended.Wait()
		done <- s.finish()
	}()
	patience := time.NewTimer(s.o.Patience)
	defer patience.Stop()
	select {
	case err := <-done:
		<-s.idle
		return errors.Join(err, s.unlock())
	case <-patience.C:
		// The lock stays: whoever is stuck in the disk may write yet.
		return fmt.Errorf("%w: the disk has not answered for %v", ErrNotWritable, s.o.Patience)
	}
}

// unlock lets go of the directory.
func (s *Store) unlock() error {
	if s.lock == nil {
		return nil
	}
	err := s.lock.Close()
	s.lock = nil
	return err
}

// finish is the last word, when nobody else is at the files any more.
func (s *Store) finish() error {
	if s.image == nil {
		return nil
	}
	if err := s.at("close.begin"); err != nil {
		return err
	}
	s.image.head.Running = false
	s.leaveStranded()
	var err error
	if s.db == nil {
		err = s.renew()
	} else if err = s.commit(change{head: s.image.head}); err != nil {
		s.leave(err)
		err = s.renew()
	}
	if err != nil {
		return fmt.Errorf("%w: the next start will take this for a crash: %w", ErrNotWritable, err)
	}
	if err := errors.Join(s.at("close.marked"), s.db.Close()); err != nil {
		return err
	}
	s.refreshCopy()
	return nil
}
