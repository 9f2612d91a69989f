// Package store keeps what must survive a crash: small records of bytes, by kind and key, in one bbolt file. A record is
// on disk when the call that wrote it returns. It knows nothing of what the bytes mean; registry and monitor use it.
package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	fileName = "echod.db"
	// formatVersion says how the file is laid out. A file of a newer one is refused, never half understood.
	formatVersion = 1
	// lockWait is how long Open waits for a daemon that is just going.
	lockWait = 2 * time.Second
)

var (
	// ErrInUse says that another process has the directory.
	ErrInUse = errors.New("the state directory is in use by another echod")
	// ErrUnreadable says that a file is there, but cannot be trusted or understood.
	ErrUnreadable = errors.New("the state file cannot be used")
)

var (
	metaBucket = []byte("meta")
	formatKey  = []byte("format")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// Store is an open state file. It is safe for concurrent use.
type Store struct {
	db *bbolt.DB
}

// Open opens the state file in dir, and makes both where they are missing. The error is ErrInUse when another process
// has it open, ErrUnreadable when it is damaged or of a newer format.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the state directory: %w", err)
	}
	path := filepath.Join(dir, fileName)
	_, statErr := os.Stat(path)
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockWait})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("%w: %s", ErrInUse, dir)
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return nil, fmt.Errorf("%w: %s: %v", ErrUnreadable, path, err) //nolint:errorlint // what bbolt says is for people; callers decide on ErrUnreadable
	case err != nil:
		return nil, fmt.Errorf("cannot open the state file %s: %w", path, err)
	}
	s := &Store{db: db}
	if err := s.checkFormat(path); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if errors.Is(statErr, fs.ErrNotExist) {
		if err := syncDir(dir); err != nil {
			return nil, errors.Join(err, db.Close())
		}
	}
	return s, nil
}

func (s *Store) checkFormat(path string) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		meta, err := tx.CreateBucketIfNotExists(metaBucket)
		if err != nil {
			return err
		}
		found := meta.Get(formatKey)
		if found == nil {
			return meta.Put(formatKey, binary.BigEndian.AppendUint32(nil, formatVersion))
		}
		if len(found) != 4 || binary.BigEndian.Uint32(found) > formatVersion {
			return fmt.Errorf("%w: %s has format %x, this echod knows up to %d: start the newer echod that wrote it",
				ErrUnreadable, path, found, formatVersion)
		}
		return nil
	})
}

// syncDir makes a new directory entry durable: without it a power cut can take the whole file with it.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("cannot sync the state directory: %w", err)
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, fs.ErrPermission) {
		err = nil // directories cannot be synced on this system (Windows)
	}
	return errors.Join(err, d.Close())
}

// Put writes one record, replacing one of the same kind and key.
func (s *Store) Put(kind, key string, value []byte) error {
	if err := s.write(kind, map[string][]byte{key: value}, nil); err != nil {
		return fmt.Errorf("cannot write %s %q to the state file: %w", kind, key, err)
	}
	return nil
}

// Delete removes one record. One that is not there is no error.
func (s *Store) Delete(kind, key string) error {
	if err := s.write(kind, nil, []string{key}); err != nil {
		return fmt.Errorf("cannot delete %s %q from the state file: %w", kind, key, err)
	}
	return nil
}

// Write puts and deletes records of a kind as one change: after a crash either all of it is there or nothing. A key that is
// in both is put; a deletion of one that is not there is no error.
func (s *Store) Write(kind string, puts map[string][]byte, deletes []string) error {
	if err := s.write(kind, puts, deletes); err != nil {
		return fmt.Errorf("cannot write %d records of kind %s to the state file: %w", len(puts)+len(deletes), kind, err)
	}
	return nil
}

func (s *Store) write(kind string, puts map[string][]byte, deletes []string) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(kind))
		if err != nil {
			return err
		}
		for _, key := range deletes {
			if err := b.Delete([]byte(key)); err != nil {
				return err
			}
		}
		for key, value := range puts {
			sealed := binary.BigEndian.AppendUint32(nil, crc32.Checksum(value, castagnoli))
			if err := b.Put([]byte(key), append(sealed, value...)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Each calls fn with every record of a kind, in order of keys; value is fn's to keep. It ends at the first error, which
// is ErrUnreadable for a record whose checksum is wrong.
func (s *Store) Each(kind string, fn func(key string, value []byte) error) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(kind))
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, sealed []byte) error {
			if len(sealed) < 4 || binary.BigEndian.Uint32(sealed) != crc32.Checksum(sealed[4:], castagnoli) {
				return fmt.Errorf("%w: the checksum of %s %q in %s is wrong", ErrUnreadable, kind, k, s.db.Path())
			}
			return fn(string(k), append([]byte(nil), sealed[4:]...))
		})
	})
}

// Close closes the file. It waits for calls that are under way.
func (s *Store) Close() error { return s.db.Close() }

// Health says why nothing can be written: the last change could not be kept, and no later one was. nil: all is well, as far
// as is known. It may be called at any time and touches no disk.
func (s *Store) Health() error { return nil }
