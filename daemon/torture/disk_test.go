//go:build linux

package torture_test

import (
	"io/fs"
	"os"
)

// disk is a file system of its own for the state directory.
type disk struct{ dir string }

// regular is what can be copied of a directory: its sockets cannot.
func regular(dir string) fs.FS { return files{os.DirFS(dir)} }

type files struct{ fs.FS }

func (f files) ReadDir(name string) ([]fs.DirEntry, error) {
	all, err := fs.ReadDir(f.FS, name)
	var kept []fs.DirEntry
	for _, e := range all {
		if e.IsDir() || e.Type().IsRegular() {
			kept = append(kept, e)
		}
	}
	return kept, err
}
