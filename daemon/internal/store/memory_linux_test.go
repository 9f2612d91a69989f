package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pageBytes is the size of bbolt's pages in the files of these tests.
var pageBytes = os.Getpagesize()

// overflow has each page but the meta pages say that it goes on for all others that there can be.
func overflow(text []byte) {
	for at := 2 * pageBytes; at < len(text); at += pageBytes {
		binary.NativeEndian.PutUint32(text[at+12:], 1<<32-1)
	}
}

// lengthen has the first record of each leaf say that its value has 1.25 GiB.
func lengthen(text []byte) {
	for at := 2 * pageBytes; at < len(text); at += pageBytes {
		if flags := binary.NativeEndian.Uint16(text[at+8:]); flags == 2 && binary.NativeEndian.Uint16(text[at+10:]) > 0 {
			binary.NativeEndian.PutUint32(text[at+16+12:], 0x50000000)
		}
	}
}

// enlarge has both meta pages say, with a checksum that is right, that the file has 2 GiB.
func enlarge(text []byte) {
	for _, at := range []int{16, pageBytes + 16} {
		binary.NativeEndian.PutUint64(text[at+40:], uint64(2<<30/pageBytes))
		h := fnv.New64a()
		_, _ = h.Write(text[at : at+56])
		binary.NativeEndian.PutUint64(text[at+56:], h.Sum64())
	}
}

// TestNoFileTakesTheMachinesMemory checks files that ask for gigabytes: whoever checks them takes no more than a file of their size
// is worth, and what comes back is the state, or the good copy.
func TestNoFileTakesTheMachinesMemory(t *testing.T) {
	want := map[string][]byte{}
	for i := range 20 { // fewer are no page of their own
		want[fmt.Sprint(i)] = record[:150]
	}
	for name, tc := range map[string]struct {
		harm  []func(text []byte)
		size  int64 // of the file then, with a hole; 0: as it is
		whole bool  // the records are all right
	}{
		"pages that go on for ever":                  {[]func([]byte){overflow}, 0, true},
		"a value that is larger than the file":       {[]func([]byte){lengthen}, 8 << 30, false},
		"a value as large as the hole that it is in": {[]func([]byte){lengthen, enlarge}, 8 << 30, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, Options{})
			must(t, s.Write("endpoint", want, nil), s.Close())
			path := filepath.Join(dir, fileName)
			text, err := os.ReadFile(path)
			must(t, err)
			for _, harm := range tc.harm {
				harm(text)
			}
			must(t, os.WriteFile(path, text, 0o600))
			if tc.size > 0 {
				must(t, os.Truncate(path, tc.size))
			}

			self, err := os.Executable()
			must(t, err)
			var out, talk bytes.Buffer
			cmd := exec.CommandContext(t.Context(), self, verifyArg, path)
			cmd.Stdout, cmd.Stderr = &out, &talk
			stdin, err := cmd.StdinPipe()
			must(t, err)
			defer stdin.Close()
			begun := time.Now()
			ended := cmd.Run()
			used := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
			first, _, _ := strings.Cut(talk.String(), "\n")
			t.Logf("%d MiB, %v, %v: %s%.200s", used>>20, time.Since(begun).Round(time.Millisecond), ended, out.String(), first)
			if used > 700<<20 {
				t.Errorf("%d MiB for a file of %d KiB", used>>20, len(text)>>10)
			}

			s = open(t, dir, inChild(t))
			if got := records(t, s, "endpoint"); len(got) != len(want) {
				t.Errorf("got %d records", len(got))
			}
			if r := s.Report(); len(r.Damaged) != 1 || r.Damaged[0].Whole != tc.whole || (r.Restored == nil) != tc.whole {
				t.Errorf("report: %+v", r)
			}
			must(t, s.Close())
		})
	}
}
