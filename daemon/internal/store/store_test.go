package store

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

func records(t *testing.T, s *Store, kind string) map[string]string {
	t.Helper()
	got := map[string]string{}
	if err := s.Each(kind, func(k string, v []byte) error { got[k] = string(v); return nil }); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestRecordsSurviveReopening(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "by", "open")
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []error{
		s.Put("endpoint", "a", []byte("1")), s.Put("endpoint", "b", []byte("2")), s.Put("endpoint", "a", []byte("3")),
		s.Put("other", "a", nil), s.Delete("endpoint", "b"), s.Delete("endpoint", "never"), s.Delete("nokind", "x"), s.Close(),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	s, err = Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := records(t, s, "endpoint"); len(got) != 1 || got["a"] != "3" {
		t.Errorf("endpoint records = %v, want a=3 only", got)
	}
	if got := records(t, s, "other"); len(got) != 1 {
		t.Errorf("other records = %v, want one", got)
	}
	if info, err := os.Stat(filepath.Join(dir, fileName)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("file mode %v, %v; want 0600", info.Mode(), err)
	}
}

func TestASecondProcessIsRefused(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := Open(dir); !errors.Is(err, ErrInUse) {
		t.Errorf("second Open: %v, want ErrInUse", err)
	}
}

func TestWhatCannotBeTrustedIsRefused(t *testing.T) {
	newFile := func(t *testing.T) string {
		dir := t.TempDir()
		s, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Put("endpoint", "a", []byte("value")), s.Close()); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	change := func(t *testing.T, dir, bucket, key string, value []byte) {
		db, err := bbolt.Open(filepath.Join(dir, fileName), 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte(bucket)).Put([]byte(key), value) })
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("a newer format", func(t *testing.T) {
		dir := newFile(t)
		change(t, dir, "meta", "format", binary.BigEndian.AppendUint32(nil, formatVersion+1))
		if _, err := Open(dir); !errors.Is(err, ErrUnreadable) {
			t.Errorf("Open: %v, want ErrUnreadable", err)
		}
	})
	t.Run("not our file", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fileName), make([]byte, 16384), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); !errors.Is(err, ErrUnreadable) {
			t.Errorf("Open: %v, want ErrUnreadable", err)
		}
	})
	for name, value := range map[string][]byte{"a flipped bit": []byte("\x00\x00\x00\x00valuf"), "a short record": {1}} {
		t.Run(name, func(t *testing.T) {
			dir := newFile(t)
			change(t, dir, "endpoint", "a", value)
			s, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if err := s.Each("endpoint", func(string, []byte) error { return nil }); !errors.Is(err, ErrUnreadable) {
				t.Errorf("Each: %v, want ErrUnreadable", err)
			}
		})
	}
}
