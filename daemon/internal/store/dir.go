package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// The files of a state directory.
const (
	fileName      = "echod.db"      // the state
	copyName      = "echod.db.good" // the last good copy of it
	lockName      = "echod.db.lock" // held by the daemon that has the directory; its content means nothing
	newSuffix     = ".new"          // being written; means nothing yet
	damagedMiddle = ".damaged-"     // set aside, before the time
	keptDamaged   = 3               // of the state, and of the copy
)

// makeDir makes a directory, and makes sure that a power cut does not take it away again.
func makeDir(dir string) error {
	var made []string
	for at := filepath.Clean(dir); ; at = filepath.Dir(at) {
		if _, err := os.Stat(at); !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at) {
			break
		}
		made = append(made, at)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("cannot make the state directory: %w", err)
	}
	for _, one := range made {
		if err := syncDir(filepath.Dir(one)); err != nil {
			return err
		}
	}
	return nil
}

// syncDir makes directory entries durable: without it a power cut can take a whole new file, or bring back what it replaced.
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

// setAside renames a damaged file, and answers to what. Of those of the same name the latest few stay. A file that is not there
// is no error.
func setAside(dir, name string, now time.Time) (string, error) {
	to := filepath.Join(dir, name+damagedMiddle+now.UTC().Format("20060102T150405.000Z"))
	err := os.Rename(filepath.Join(dir, name), to)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if err := syncDir(dir); err != nil {
		return to, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return to, err
	}
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return !strings.HasPrefix(e.Name(), name+damagedMiddle) })
	for len(entries) > keptDamaged { // in order of names, and so of times
		if err := removeIfThere(filepath.Join(dir, entries[0].Name())); err != nil {
			return to, err
		}
		entries = entries[1:]
	}
	return to, nil
}

// lock takes the directory for this process, until the file that it answers is closed or the process has ended, however it
// does. It waits a moment for a daemon that is just going.
func lock(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission) {
		// What is there can be served from a disk that cannot be written to.
		f, err = os.Open(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the state directory %s is not there any more: put it back", dir) // it was, as Open makes it
	}
	if err != nil {
		return nil, fmt.Errorf("cannot lock the state directory: %w", err)
	}
	for deadline := time.Now().Add(lockWait); ; time.Sleep(20 * time.Millisecond) {
		taken, err := tryLock(f)
		switch {
		case err != nil:
			return nil, errors.Join(fmt.Errorf("cannot lock the state directory: %s: %w", path, err), f.Close())
		case taken:
			return f, nil
		case time.Now().After(deadline):
			return nil, errors.Join(fmt.Errorf("%w: %s", ErrInUse, dir), f.Close())
		}
	}
}
