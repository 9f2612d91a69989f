package store

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestWhatIsNoFile has something else at the place of the state file. Nobody waits for whoever might write into a pipe.
func TestWhatIsNoFile(t *testing.T) {
	for name, tc := range map[string]struct {
		harm func(path string) error
		says string
	}{
		"a directory": {func(path string) error { return os.Mkdir(path, 0o700) }, "it is no file"},
		"a pipe":      {func(path string) error { return syscall.Mkfifo(path, 0o600) }, "it is no file"},
		"a device":    {func(path string) error { return os.Symlink("/dev/zero", path) }, "it is no file"},
		"nothing":     {func(path string) error { return os.WriteFile(path, nil, 0o600) }, "it is empty"},
		"a few bytes": {func(path string) error { return os.WriteFile(path, []byte("twelve bytes"), 0o600) }, "it ends after 12 bytes"},
	} {
		for which, o := range map[string]Options{"here": {}, "in a child": inChild(t)} {
			t.Run(name+", "+which, func(t *testing.T) {
				dir := closed(t)
				path := filepath.Join(dir, fileName)
				must(t, os.Remove(path), tc.harm(path))
				s := open(t, dir, o)
				wantRecords(t, s, "endpoint", map[string]string{"a": "value"})
				if r := s.Report(); len(r.Damaged) != 1 || !strings.Contains(r.Damaged[0].Reason.Error(), tc.says) || r.Restored == nil {
					t.Errorf("report: %+v", r)
				}
				must(t, s.Put("endpoint", "b", nil), s.Close())
			})
		}
	}
}
