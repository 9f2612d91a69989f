package store

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// briefly is how long a store waits for a disk that hangs. One that only is slow has to have patience.
const briefly = 100 * time.Millisecond

// wantKept closes a store and looks at what the next start finds.
func wantKept(t *testing.T, s *Store, want map[string]string) {
	t.Helper()
	must(t, s.Health(), s.Close())
	s = open(t, s.dir, inChild(t))
	wantRecords(t, s, "k", want)
	if r := s.Report(); r.Last != Stopped || len(r.Warnings()) > 0 {
		t.Errorf("report: %+v", r)
	}
}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	for _, key := range []string{"a", "b"} {
		must(t, s.Put("k", key, nil), s.Close())
		// Whoever it was closed for reads it, and writes the same.
		other := open(t, dir, Options{})
		soon(t, "there is a copy", func() bool { _, err := Check(filepath.Join(dir, copyName)); return err == nil })
		abandon(t, other)
		s = s.Reopen()
		t.Cleanup(func() { _ = s.Close() })
		must(t, s.Put("k", key, nil)) // which waits until it is open
		if _, err := Open(dir, Options{}); !errors.Is(err, ErrInUse) {
			t.Errorf("a second store: %v", err)
		}
	}
	must(t, s.Health(), s.Put("k", "c", nil), s.Delete("k", "a"))
	wantKept(t, s, map[string]string{"b": "", "c": ""})
}

// TestWhatIsReopenedIsNotWhatLiesThere has the directory be another one by then.
func TestWhatIsReopenedIsNotWhatLiesThere(t *testing.T) {
	for name, harm := range map[string]struct{ before, after func(dir string) error }{
		"emptied":       {before: func(dir string) error { return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)) }},
		"emptied after": {after: func(dir string) error { return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)) }},
		"cut":           {after: func(dir string) error { return os.Truncate(filepath.Join(dir, fileName), 100) }},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			s := open(t, dir, Options{})
			must(t, s.Put("k", "a", nil))
			if harm.before != nil {
				must(t, harm.before(dir))
			}
			_ = s.Close() // it may have been for nothing
			if harm.after != nil {
				must(t, harm.after(dir))
			}
			s = s.Reopen()
			must(t, s.Put("k", "b", nil))
			wantKept(t, s, map[string]string{"a": "", "b": ""})
		})
	}
}

// TestReopenWithoutADirectory refuses changes until the directory is there again.
func TestReopenWithoutADirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := open(t, dir, Options{retry: time.Millisecond})
	must(t, s.Put("k", "a", nil), os.Rename(dir, dir+"-moved"))
	if err := s.Close(); !errors.Is(err, ErrNotWritable) {
		t.Errorf("Close: %v", err)
	}
	s = s.Reopen()
	if err := s.Put("k", "b", nil); !errors.Is(err, ErrNotWritable) {
		t.Errorf("Put: %v", err)
	}
	if err := s.Health(); !errors.Is(err, ErrNotWritable) {
		t.Errorf("health: %v", err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the directory was made anew")
	}
	must(t, os.Rename(dir+"-moved", dir))
	soon(t, "it can be written again", func() bool { return s.Health() == nil })
	must(t, s.Put("k", "c", nil))
	wantKept(t, s, map[string]string{"a": "", "c": ""})
}

// TestReopenWhileTheDiskDoesNotAnswer has the store that was closed still be at it.
func TestReopenWhileTheDiskDoesNotAnswer(t *testing.T) {
	dir := t.TempDir()
	f := &faults{hang: make(chan struct{})}
	s := open(t, dir, Options{at: f.at, Patience: patience, retry: time.Millisecond})
	must(t, s.Put("k", "a", nil))
	s.o.Patience = briefly
	f.hanging.Store(true)
	for what, err := range map[string]error{"Put": s.Put("k", "b", nil), "Close": s.Close()} {
		if !errors.Is(err, ErrNotWritable) {
			t.Errorf("%s: %v", what, err)
		}
	}
	s = s.Reopen()
	if err := s.Put("k", "c", nil); !errors.Is(err, ErrNotWritable) {
		t.Errorf("Put: %v", err)
	}
	if err := s.Health(); !errors.Is(err, ErrNotWritable) {
		t.Errorf("health: %v", err)
	}
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrInUse) {
		t.Errorf("a second store: %v", err)
	}
	if err := s.Close(); !errors.Is(err, ErrNotWritable) {
		t.Errorf("Close: %v", err)
	}
	s.o.Patience = patience
	s = s.Reopen()
	f.hanging.Store(false)
	close(f.hang)
	soon(t, "it can be written again", func() bool { return s.Health() == nil })
	must(t, s.Put("k", "d", nil))
	wantKept(t, s, map[string]string{"a": "", "d": ""})
}

// TestReopenWaitsForNoDisk has the disk hang between the two stores: who reopens goes on, and who stops does.
func TestReopenWaitsForNoDisk(t *testing.T) {
	dir := t.TempDir()
	hang := make(chan struct{})
	var hanging atomic.Bool
	at := func(step string) error {
		if step == "state.written" && hanging.Load() {
			<-hang
		}
		return nil
	}
	s := open(t, dir, Options{at: at, Patience: patience})
	must(t, s.Put("k", "a", nil), s.Close())
	s.o.Patience = briefly
	hanging.Store(true)
	opened := make(chan *Store, 1)
	go func() { opened <- s.Reopen() }()
	select {
	case s = <-opened:
	case <-time.After(patience):
		t.Error("it waits for a disk that hangs")
		close(hang)
		return
	}
	if err := s.Put("k", "b", nil); !errors.Is(err, ErrNotWritable) {
		t.Errorf("Put: %v", err)
	}
	if err := s.Health(); !errors.Is(err, ErrNotWritable) {
		t.Errorf("health: %v", err)
	}
	if err := s.Close(); !errors.Is(err, ErrNotWritable) {
		t.Errorf("Close: %v", err)
	}
	s.o.Patience = patience
	s = s.Reopen()
	hanging.Store(false)
	close(hang)
	must(t, s.Put("k", "c", nil))
	wantKept(t, s, map[string]string{"a": "", "c": ""})
}

func TestReopenOfWhatIsLost(t *testing.T) {
	dir := closed(t)
	must(t, os.Truncate(filepath.Join(dir, fileName), 100), os.Truncate(filepath.Join(dir, copyName), 100))
	s := open(t, dir, inChild(t))
	must(t, s.Close())
	s = s.Reopen()
	if err := s.Put("k", "a", nil); !errors.Is(err, ErrLost) {
		t.Errorf("Put: %v", err)
	}
	if err := s.Health(); !errors.Is(err, ErrLost) {
		t.Errorf("health: %v", err)
	}
	must(t, s.Close())
}
