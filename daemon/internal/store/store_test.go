package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// verifyArg makes the test binary the process that checks a state file.
const verifyArg = "verify-state"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == verifyArg {
		os.Exit(VerifyMain(os.Args[2], os.Stdout))
	}
	os.Exit(m.Run())
}

const patience = 30 * time.Second

func open(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// inChild checks files in a process of its own.
func inChild(t testing.TB) Options {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Options{Verify: NewVerifier(self, verifyArg)}
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func records(t testing.TB, s *Store, kind string) map[string]string {
	t.Helper()
	got := map[string]string{}
	must(t, s.Each(kind, func(k string, v []byte) error { got[k] = string(v); return nil }))
	return got
}

func wantRecords(t testing.TB, s *Store, kind string, want map[string]string) {
	t.Helper()
	if got := records(t, s, kind); !maps.Equal(got, want) {
		t.Errorf("%s records are %v, want %v", kind, got, want)
	}
}

// soon waits for something that is to come by itself.
func soon(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so: %s", what)
		}
	}
}

// abandon ends a store as a kill of its process does: no word to the files, and the lock is free.
func abandon(t testing.TB, s *Store) {
	t.Helper()
	close(s.closing)
	s.ended.Wait()
	if s.db != nil {
		must(t, s.db.Close())
	}
	must(t, s.lock.Close())
	s.close = func() error { return nil }
}

func TestRecordsSurviveReopening(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "by", "open")
	s := open(t, dir, Options{})
	must(t, s.Put("endpoint", "a", []byte("1")), s.Put("endpoint", "b", []byte("2")), s.Put("endpoint", "a", []byte("3")),
		s.Put("other", "a", nil), s.Delete("endpoint", "b"), s.Delete("endpoint", "never"), s.Delete("nokind", "x"),
		s.Write("endpoint", map[string][]byte{"c": []byte("4")}, []string{"c", "d"}), s.Close(), s.Close())
	if err := s.Put("endpoint", "late", nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Put after Close: %v", err)
	}
	s = open(t, dir, inChild(t))
	wantRecords(t, s, "endpoint", map[string]string{"a": "3", "c": "4"})
	wantRecords(t, s, "other", map[string]string{"a": ""})
	if r := s.Report(); r.Last != Stopped || len(r.Warnings()) > 0 {
		t.Errorf("report: %+v", r)
	}
	for _, name := range []string{fileName, copyName, lockName} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want mode 0600", name, info, err)
		}
	}
}

func TestWhatCannotBeARecordIsRefused(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	for _, err := range []error{s.Put("", "a", nil), s.Put(metaKind, "head", nil), s.Put("k", "", nil), s.Put("k", strings.Repeat("x", maxKey+1), nil)} {
		if err == nil {
			t.Error("taken")
		}
	}
	must(t, s.Health(), s.Put("k", "a", nil))
}

func TestASecondProcessIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	must(t, s.Put("k", "a", []byte("1")))
	soon(t, "the copy is there", func() bool { _, err := os.Stat(filepath.Join(dir, copyName)); return err == nil })
	before, err := os.ReadDir(dir)
	must(t, err)
	if _, err := Open(dir, Options{AcceptDataLoss: true}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Errorf("second Open: %v, want ErrInUse", err)
	}
	after, err := os.ReadDir(dir)
	must(t, err, s.Put("k", "b", nil))
	if len(after) != len(before) {
		t.Errorf("the files were %v and are %v", before, after)
	}
}

func TestHowTheLastRunEnded(t *testing.T) {
	dir := t.TempDir()
	for i, want := range []LastRun{First, Stopped, Crashed, Crashed, Stopped} {
		s := open(t, dir, Options{})
		if got := s.Report().Last; got != want {
			t.Errorf("start %d: %v, want %v", i, got, want)
		}
		if i == 1 || i == 2 {
			abandon(t, s)
		} else {
			must(t, s.Close())
		}
	}
}

// edit changes a state file behind the store's back, in ways that bbolt finds right.
func edit(t testing.TB, path string, change func(*bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	must(t, err)
	must(t, db.Update(change), db.Close())
}

// closed answers a directory whose store was closed with one record, a=value.
func closed(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	s := open(t, dir, Options{})
	must(t, s.Put("endpoint", "a", []byte("value")), s.Close())
	return dir
}

func TestANewerFormatIsRefused(t *testing.T) {
	for _, name := range []string{fileName, copyName} {
		for which, o := range map[string]Options{"here": {}, "in a child": inChild(t)} {
			dir := closed(t)
			path := filepath.Join(dir, name)
			edit(t, path, func(tx *bbolt.Tx) error {
				newer := binary.BigEndian.AppendUint32(nil, formatVersion+1)
				return tx.Bucket(metaBucket).Put(formatKey, seal(metaKind, string(formatKey), newer))
			})
			before, err := os.ReadFile(path)
			must(t, err)
			o.AcceptDataLoss = true
			if _, err := Open(dir, o); !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "format 3") {
				t.Errorf("%s, %s: %v, want ErrNewer", name, which, err)
			}
			if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
				t.Errorf("%s, %s: the file was changed: %v", name, which, err)
			}
		}
	}
}

// TestFormat1 reads what the first echod wrote, which had no head and no checksums over keys.
func TestFormat1(t *testing.T) {
	dir := t.TempDir()
	db, err := bbolt.Open(filepath.Join(dir, fileName), 0o600, nil)
	must(t, err)
	must(t, db.Update(func(tx *bbolt.Tx) error {
		meta, err := tx.CreateBucket(metaBucket)
		must(t, err, meta.Put(formatKey, binary.BigEndian.AppendUint32(nil, 1)))
		b, err := tx.CreateBucket([]byte("endpoint"))
		must(t, err)
		return b.Put([]byte("a"), append(binary.BigEndian.AppendUint32(nil, crc32.Checksum([]byte("old"), castagnoli)), "old"...))
	}), db.Close())
	for range 2 {
		s := open(t, dir, inChild(t))
		wantRecords(t, s, "endpoint", map[string]string{"a": "old"})
		must(t, s.Close())
	}
	if says, err := Check(filepath.Join(dir, fileName)); err != nil || says.Format != formatVersion {
		t.Errorf("the file is now %+v, %v", says, err)
	}
}

// damages are ways to harm a state file that a disk, or a person, has.
var damages = map[string]func(t testing.TB, path string){
	"empty": func(t testing.TB, path string) { must(t, os.Truncate(path, 0)) },
	"cut":   func(t testing.TB, path string) { must(t, os.Truncate(path, 5000)) },
	"zeros": func(t testing.TB, path string) { must(t, os.WriteFile(path, make([]byte, 32768), 0o600)) },
	"foreign": func(t testing.TB, path string) {
		must(t, os.WriteFile(path, []byte(strings.Repeat("hello\n", 4000)), 0o600))
	},
	"foreign bbolt": func(t testing.TB, path string) {
		edit(t, path, func(tx *bbolt.Tx) error { return tx.DeleteBucket(metaBucket) })
	},
	"missing":         func(t testing.TB, path string) { must(t, os.Remove(path)) },
	"a changed value": changeRecord("a", []byte("\x00\x00\x00\x00valuf")),
	"a short record":  changeRecord("a", []byte{1}),
	"a record more":   changeRecord("b", seal("endpoint", "b", []byte("value"))),
	"an old record":   changeRecord("a", seal("endpoint", "a", []byte("older"))),
	"a record less": func(t testing.TB, path string) {
		edit(t, path, func(tx *bbolt.Tx) error { return tx.Bucket([]byte("endpoint")).Delete([]byte("a")) })
	},
	"a lost head": func(t testing.TB, path string) {
		edit(t, path, func(tx *bbolt.Tx) error { return tx.Bucket(metaBucket).Delete(headKey) })
	},
}

func changeRecord(key string, sealed []byte) func(t testing.TB, path string) {
	return func(t testing.TB, path string) {
		edit(t, path, func(tx *bbolt.Tx) error { return tx.Bucket([]byte("endpoint")).Put([]byte(key), sealed) })
	}
}

func TestADamagedFileGivesWayToItsCopy(t *testing.T) {
	for name, damage := range damages {
		for which, o := range map[string]Options{"here": {}, "in a child": inChild(t)} {
			t.Run(name+", "+which, func(t *testing.T) {
				dir := closed(t)
				path := filepath.Join(dir, fileName)
				damage(t, path)
				s := open(t, dir, o)
				wantRecords(t, s, "endpoint", map[string]string{"a": "value"})
				r := s.Report()
				if len(r.Damaged) != 1 || r.Damaged[0].Path != path || !errors.Is(r.Damaged[0].Reason, ErrDamaged) || r.Last != Unknown ||
					r.Restored == nil || r.Restored.Generation != 1 || time.Since(r.Restored.Changed) > time.Hour || len(r.Warnings()) != 2 || r.Lost != nil {
					t.Errorf("report: %+v", r)
				}
				if kept := strings.Contains(r.Warnings()[0], "it is kept as"); kept != (name != "missing") {
					t.Errorf("warning: %s", r.Warnings()[0])
				}
				must(t, s.Health(), s.Put("endpoint", "b", []byte("2")), s.Close())
				kept, err := filepath.Glob(path + damagedMiddle + "*")
				if must(t, err); len(kept) != 1 != (name == "missing") {
					t.Errorf("set aside: %q", kept)
				}
				if says, err := Check(filepath.Join(dir, copyName)); err != nil || says.Records != 2 {
					t.Errorf("the copy is %+v, %v", says, err)
				}
				s = open(t, dir, o)
				wantRecords(t, s, "endpoint", map[string]string{"a": "value", "b": "2"})
				if r := s.Report(); len(r.Warnings()) > 0 {
					t.Errorf("report of the next start: %+v", r)
				}
			})
		}
	}
}

func TestADamagedCopyIsMadeAnew(t *testing.T) {
	for name, damage := range damages {
		dir := closed(t)
		damage(t, filepath.Join(dir, copyName))
		s := open(t, dir, inChild(t))
		wantRecords(t, s, "endpoint", map[string]string{"a": "value"})
		if r := s.Report(); r.Last != Stopped || r.Restored != nil || len(r.Damaged) == 1 != (name != "missing") {
			t.Errorf("%s: report: %+v", name, r)
		}
		soon(t, "a copy", func() bool { says, err := Check(filepath.Join(dir, copyName)); return err == nil && says.Records == 1 })
		must(t, s.Close())
	}
}

func TestBothDamaged(t *testing.T) {
	for name, damage := range damages {
		if name == "missing" {
			continue
		}
		for _, gone := range []bool{true, false} {
			dir := closed(t)
			path := filepath.Join(dir, fileName)
			damage(t, path)
			if damage(t, filepath.Join(dir, copyName)); gone {
				must(t, os.Remove(filepath.Join(dir, copyName)))
			}
			bad, err := os.ReadFile(path)
			must(t, err)
			for range 2 {
				s := open(t, dir, inChild(t))
				for what, err := range map[string]error{
					"health": s.Health(), "put": s.Put("k", "a", nil), "delete": s.Delete("endpoint", "a"),
					"each": s.Each("endpoint", func(string, []byte) error { return nil }), "report": s.Report().Lost,
				} {
					if !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "--accept-data-loss") {
						t.Errorf("%s: %s: %v", name, what, err)
					}
				}
				must(t, s.Close())
			}
			if now, err := os.ReadFile(path); err != nil || string(now) != string(bad) {
				t.Errorf("%s: the damaged file was touched: %v", name, err)
			}
			s := open(t, dir, Options{AcceptDataLoss: true})
			wantRecords(t, s, "endpoint", map[string]string{})
			if r := s.Report(); !r.Accepted || r.Lost != nil || !strings.Contains(strings.Join(r.Warnings(), "\n"), "empty start") {
				t.Errorf("%s: report: %+v", name, r)
			}
			must(t, s.Health(), s.Put("endpoint", "new", nil), s.Close())
			if kept, err := filepath.Glob(path + damagedMiddle + "*"); err != nil || len(kept) != 1 {
				t.Errorf("%s: set aside: %q, %v", name, kept, err)
			}
			s = open(t, dir, Options{AcceptDataLoss: true}) // changes nothing where nothing is lost
			wantRecords(t, s, "endpoint", map[string]string{"new": ""})
			must(t, s.Close())
		}
	}
}

func TestAnOldFileGivesWayToANewerCopy(t *testing.T) {
	dir := closed(t)
	path := filepath.Join(dir, fileName)
	old, err := os.ReadFile(path)
	must(t, err)
	s := open(t, dir, Options{})
	must(t, s.Put("endpoint", "b", []byte("2")), s.Close(), os.WriteFile(path, old, 0o600))
	s = open(t, dir, Options{})
	wantRecords(t, s, "endpoint", map[string]string{"a": "value", "b": "2"})
	if r := s.Report(); r.Restored == nil || !strings.Contains(r.Warnings()[0], "generation 1") {
		t.Errorf("report: %+v", r)
	}
}

func TestFewDamagedFilesAreKept(t *testing.T) {
	dir := closed(t)
	path := filepath.Join(dir, fileName)
	for range keptDamaged + 2 {
		must(t, os.Truncate(path, 10))
		s := open(t, dir, Options{})
		must(t, s.Close())
		time.Sleep(2 * time.Millisecond) // names have milliseconds
	}
	if kept, err := filepath.Glob(path + damagedMiddle + "*"); err != nil || len(kept) != keptDamaged {
		t.Errorf("set aside: %q, %v", kept, err)
	}
}

// TestTheGoodCopyFollows sees the copy come after changes, and not at once each time.
func TestTheGoodCopyFollows(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{CopyInterval: time.Hour})
	path := filepath.Join(dir, copyName)
	soon(t, "the first copy", func() bool { _, err := Check(path); return err == nil })
	must(t, s.Put("endpoint", "a", []byte("1")))
	if says, err := Check(path); err != nil || says.Records != 0 {
		t.Errorf("a copy within the hour: %+v, %v", says, err)
	}
	must(t, s.Close())
	if says, err := Check(path); err != nil || says.Records != 1 || says.Generation != 1 {
		t.Errorf("after Close: %+v, %v", says, err)
	}
	s = open(t, dir, Options{CopyInterval: time.Millisecond})
	must(t, s.Put("endpoint", "b", []byte("1")))
	soon(t, "a copy with both", func() bool { says, err := Check(path); return err == nil && says.Records == 2 })
}

// TestTheCheckingProcess has it hang, die and be told to stop.
func TestTheCheckingProcess(t *testing.T) {
	dir := closed(t)
	path := filepath.Join(dir, fileName)
	for name, tc := range map[string]struct {
		script string
		is     error
		says   string
	}{
		"hangs":           {"exec sleep 1000", ErrDamaged, "in time"},
		"dies":            {"echo 'panic: whatever' >&2; kill -SEGV $$", ErrDamaged, "panic: whatever"},
		"says nothing":    {"exit 0", ErrDamaged, "dies"},
		"told to stop":    {"kill -TERM $$", errCannotCheck, "broken off"},
		"cannot read":     {`echo '{"kind": "other", "problem": "permission denied"}'; exit 1`, nil, "permission denied"},
		"another's lock":  {`echo '{"kind": "in use", "problem": "x"}'; exit 1`, ErrInUse, "x"},
		"waits for stdin": {"cat; exit 0", ErrDamaged, "in time"},
	} {
		wait := patience
		if strings.Contains(tc.says, "time") {
			wait = 50 * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		_, err := NewVerifier("sh", "-c", tc.script)(ctx, path)
		cancel()
		if err == nil || tc.is != nil && !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.says) || tc.is == nil && errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What cannot be started says nothing of the file.
	s := open(t, dir, Options{Verify: NewVerifier("/nonexistent/echod")})
	wantRecords(t, s, "endpoint", map[string]string{"a": "value"})
	must(t, s.Close())
	// Nor does a file that may not be read.
	if os.Geteuid() != 0 {
		must(t, os.Chmod(path, 0))
		if _, err := Open(dir, inChild(t)); err == nil || errors.Is(err, ErrDamaged) {
			t.Errorf("a file that may not be read: %v", err)
		}
	}
}

func TestHangingChecksLoseNothing(t *testing.T) {
	dir := closed(t)
	s := open(t, dir, Options{Verify: NewVerifier("sleep", "1000"), VerifyTimeout: 20 * time.Millisecond})
	if err := s.Health(); !errors.Is(err, ErrLost) {
		t.Errorf("health: %v", err)
	}
	must(t, s.Close())
	s = open(t, dir, inChild(t))
	wantRecords(t, s, "endpoint", map[string]string{"a": "value"})
}

func TestManyWritersShareTransactions(t *testing.T) {
	dir := t.TempDir()
	begun, release := make(chan struct{}), make(chan struct{})
	commits := 0
	s := open(t, dir, Options{at: func(point string) error {
		if point == "commit.begin" {
			if commits++; commits == 1 {
				close(begun)
				<-release
			}
		}
		return nil
	}})
	const writers = 200
	errs := make(chan error, writers)
	want := map[string]string{}
	for i := range writers {
		key := fmt.Sprint(i)
		want[key] = key
		go func() { errs <- s.Put("endpoint", key, []byte(key)) }()
		if i == 0 {
			<-begun // with a change of its own
		}
	}
	soon(t, "all others wait", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.queue) == writers-1
	})
	close(release)
	for range writers {
		must(t, <-errs)
	}
	if commits != 2 {
		t.Errorf("%d calls took %d transactions", writers, commits)
	}
	abandon(t, s)
	s = open(t, dir, Options{})
	wantRecords(t, s, "endpoint", want)
}
