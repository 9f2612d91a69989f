package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// faults is a disk whose steps fail or hang as a test says.
type faults struct {
	failing atomic.Pointer[map[string]error] // by step
	hang    chan struct{}                    // not nil: commit.begin waits for it, when hanging
	hanging atomic.Bool
	commits atomic.Int64
}

func (f *faults) fail(steps map[string]error) { f.failing.Store(&steps) }

func (f *faults) at(point string) error {
	if point == "commit.begin" {
		f.commits.Add(1)
		if f.hanging.Load() {
			<-f.hang
		}
	}
	if steps := f.failing.Load(); steps != nil {
		return (*steps)[point]
	}
	return nil
}

// onDisk says what a start would find now.
func onDisk(t testing.TB, dir, kind string) map[string]string {
	t.Helper()
	// bbolt holds its own lock on the open file: look at a copy.
	text, err := os.ReadFile(filepath.Join(dir, fileName))
	must(t, err)
	path := filepath.Join(t.TempDir(), "copy")
	must(t, os.WriteFile(path, text, 0o600))
	m, err := read(path)
	must(t, err)
	got := map[string]string{}
	for key, value := range m.kinds[kind] {
		got[key] = string(value)
	}
	return got
}

// TestAFailedCommitChangesNothing fails after bbolt has written all of a change, as a sync that fails does: the open file has it,
// and whoever asked for it was told that it was not kept.
func TestAFailedCommitChangesNothing(t *testing.T) {
	dir := t.TempDir()
	f := &faults{}
	s := open(t, dir, Options{at: f.at, retry: time.Hour})
	must(t, s.Put("k", "a", []byte("1")))
	f.fail(map[string]error{"commit.done": syscall.EIO})
	if err := s.Put("k", "b", []byte("2")); !errors.Is(err, ErrNotWritable) || !errors.Is(err, syscall.EIO) {
		t.Errorf("Put: %v", err)
	}
	for what, err := range map[string]error{
		`k "b"`: s.Write("k", map[string][]byte{"b": nil}, nil), `k "a"`: s.Write("k", nil, []string{"a"}), "2 records of kind k": s.Write("k", map[string][]byte{"b": nil}, []string{"a"}),
	} {
		if err == nil || !strings.HasPrefix(err.Error(), "cannot write "+what+" to the state file: ") {
			t.Errorf("Write: %v, want %s", err, what)
		}
	}
	// The disk took the new file: nothing is wrong any more, and what was refused is on it no more.
	must(t, s.Health())
	wantRecords(t, s, "k", map[string]string{"a": "1"})
	if got := onDisk(t, dir, "k"); len(got) != 1 {
		t.Errorf("the disk has %v", got)
	}
	f.fail(nil)
	must(t, s.Put("k", "c", []byte("3")))
	abandon(t, s)
	s = open(t, dir, Options{})
	wantRecords(t, s, "k", map[string]string{"a": "1", "c": "3"})
}

// TestADiskThatFailsForAWhile fails each step in turn, and sees that changes are refused, that what was kept stays, and that all
// is well again by itself.
func TestADiskThatFailsForAWhile(t *testing.T) {
	for _, step := range []string{"written", "synced", "renamed", "done"} {
		t.Run(step, func(t *testing.T) {
			dir := t.TempDir()
			f := &faults{}
			s := open(t, dir, Options{at: f.at, retry: time.Millisecond})
			must(t, s.Put("k", "a", []byte("1")))
			f.fail(map[string]error{"commit.begin": syscall.EIO, "state." + step: syscall.ENOSPC, "copy." + step: syscall.ENOSPC})
			for range 3 {
				if err := s.Put("k", "b", []byte("2")); !errors.Is(err, ErrNotWritable) {
					t.Errorf("Put: %v", err)
				}
				if err := s.Health(); !errors.Is(err, ErrNotWritable) || !errors.Is(err, syscall.ENOSPC) {
					t.Errorf("health: %v", err)
				}
				wantRecords(t, s, "k", map[string]string{"a": "1"})
				if got := onDisk(t, dir, "k"); len(got) != 1 || got["a"] != "1" {
					t.Errorf("the disk has %v", got)
				}
			}
			f.fail(nil)
			soon(t, "health comes back without a call", func() bool { return s.Health() == nil })
			must(t, s.Put("k", "c", []byte("3")), s.Close())
			s = open(t, dir, Options{})
			wantRecords(t, s, "k", map[string]string{"a": "1", "c": "3"})
			if r := s.Report(); r.Last != Stopped || len(r.Warnings()) > 0 {
				t.Errorf("report: %+v", r)
			}
		})
	}
}

func TestAStopWhileTheDiskFails(t *testing.T) {
	dir := t.TempDir()
	f := &faults{}
	s := open(t, dir, Options{at: f.at, retry: time.Hour})
	must(t, s.Put("k", "a", []byte("1")))
	f.fail(map[string]error{"commit.begin": syscall.EIO, "state.written": syscall.EIO, "copy.written": syscall.EIO})
	if err := s.Close(); !errors.Is(err, ErrNotWritable) {
		t.Errorf("Close: %v", err)
	}
	s = open(t, dir, Options{})
	wantRecords(t, s, "k", map[string]string{"a": "1"})
	if got := s.Report().Last; got != Crashed {
		t.Errorf("the last run: %v", got)
	}
}

// TestADiskThatDoesNotAnswer lets callers go, refuses further ones at once, and undoes what those who went had asked for.
func TestADiskThatDoesNotAnswer(t *testing.T) {
	dir := t.TempDir()
	f := &faults{hang: make(chan struct{})}
	s := open(t, dir, Options{at: f.at, Patience: 300 * time.Millisecond, retry: time.Millisecond})
	put := func(key, value string) { // a disk that is only slow may take more than one try
		soon(t, "the disk takes "+key, func() bool { return s.Put("k", key, []byte(value)) == nil })
	}
	put("a", "1")
	f.hanging.Store(true)
	begun := f.commits.Load()
	answers := make(chan error, 2)
	go func() { answers <- s.Put("k", "a", []byte("under way")) }()
	soon(t, "the disk hangs", func() bool { return f.commits.Load() > begun })
	go func() { answers <- s.Put("k", "queued", nil) }()
	for range 2 {
		if err := <-answers; !errors.Is(err, ErrNotWritable) || !strings.Contains(err.Error(), "not answered") {
			t.Errorf("Put: %v", err)
		}
	}
	if err := s.Health(); !errors.Is(err, ErrNotWritable) {
		t.Errorf("health: %v", err)
	}
	if err := s.Put("k", "more", nil); !errors.Is(err, ErrNotWritable) {
		t.Errorf("a further Put: %v", err)
	}
	wantRecords(t, s, "k", map[string]string{"a": "1"})
	f.hanging.Store(false)
	close(f.hang)
	soon(t, "health comes back", func() bool { return s.Health() == nil })
	put("b", "2")
	want := map[string]string{"a": "1", "b": "2"}
	wantRecords(t, s, "k", want)
	if got := onDisk(t, dir, "k"); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the disk has %v", got)
	}
}

// TestAStopWhileTheDiskDoesNotAnswer does not wait for ever, and lets nobody else in.
func TestAStopWhileTheDiskDoesNotAnswer(t *testing.T) {
	dir := t.TempDir()
	f := &faults{hang: make(chan struct{})}
	s := open(t, dir, Options{at: f.at, Patience: 100 * time.Millisecond})
	f.hanging.Store(true)
	if err := s.Put("k", "a", nil); !errors.Is(err, ErrNotWritable) {
		t.Errorf("Put: %v", err)
	}
	if err := s.Close(); !errors.Is(err, ErrNotWritable) {
		t.Errorf("Close: %v", err)
	}
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrInUse) {
		t.Errorf("Open: %v", err)
	}
	close(f.hang)
	soon(t, "what was begun ends", func() bool { // nobody may be at the files when they are removed
		says, err := Check(filepath.Join(dir, fileName))
		_, copyErr := Check(filepath.Join(dir, copyName))
		return err == nil && copyErr == nil && !says.Running
	})
}

// TestTheFileIsTakenAwayWhileItRuns does to the open file what an operator may by mistake: memory knows better.
func TestTheFileIsTakenAwayWhileItRuns(t *testing.T) {
	for name, harm := range map[string]func(path string) error{
		"emptied": func(path string) error { return os.Truncate(path, 0) },
		"overwritten": func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.Write(make([]byte, 1<<20))
			return errors.Join(err, f.Close())
		},
		"removed": os.Remove,
		"replaced": func(path string) error { // by a backup
			text, err := os.ReadFile(path)
			return errors.Join(err, os.WriteFile(path+"-backup", text, 0o600), os.Rename(path+"-backup", path))
		},
		"with its lock": func(path string) error {
			return errors.Join(os.Remove(path), os.Remove(filepath.Join(filepath.Dir(path), lockName)))
		},
		"with its directory": func(path string) error {
			return errors.Join(os.RemoveAll(filepath.Dir(path)), os.Mkdir(filepath.Dir(path), 0o700))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, Options{})
			many := map[string][]byte{}
			for i := range 500 {
				many[fmt.Sprint("a", i)] = record
			}
			must(t, s.Write("k", many, nil), harm(filepath.Join(dir, fileName)))
			// One call may be refused: the file is found to be of no use by it.
			if err := s.Put("k", "b", nil); err != nil && !errors.Is(err, ErrNotWritable) {
				t.Error(err)
			}
			must(t, s.Put("k", "c", nil), s.Delete("k", "b"), s.Health())
			if strings.HasPrefix(name, "with") {
				if _, err := Open(dir, Options{}); !errors.Is(err, ErrInUse) {
					t.Errorf("a second store: %v", err)
				}
			}
			abandon(t, s)
			s = open(t, dir, inChild(t))
			if got := records(t, s, "k"); len(got) != 501 || s.Report().Restored != nil {
				t.Errorf("%d records, %+v", len(got), s.Report())
			}
		})
	}
}

// TestTheDirectoryIsTakenAwayWhileItRuns removes it, and has another daemon make it anew: nothing is kept that cannot be found, nor
// over what is another's.
func TestTheDirectoryIsTakenAwayWhileItRuns(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := open(t, dir, Options{retry: time.Hour})
	must(t, s.Put("k", "a", []byte("1")), os.RemoveAll(dir))
	refused := func() {
		t.Helper()
		if err := s.Put("k", "b", []byte("2")); !errors.Is(err, ErrNotWritable) || !strings.Contains(err.Error(), lockName) {
			t.Error(err)
		}
		if err := s.Health(); !errors.Is(err, ErrNotWritable) {
			t.Errorf("health: %v", err)
		}
	}
	refused()
	other := open(t, dir, Options{})
	must(t, other.Put("k", "other", nil))
	refused()
	wantRecords(t, other, "k", map[string]string{"other": ""})
	must(t, other.Close(), os.RemoveAll(dir), os.Mkdir(dir, 0o700))
	must(t, s.Put("k", "c", []byte("3")), s.Health(), os.Remove(filepath.Join(dir, fileName)), s.Close())
	s = open(t, dir, inChild(t))
	wantRecords(t, s, "k", map[string]string{"a": "1", "c": "3"})
	if r := s.Report(); r.Last != Stopped || len(r.Warnings()) > 0 {
		t.Errorf("report: %+v", r)
	}
}
