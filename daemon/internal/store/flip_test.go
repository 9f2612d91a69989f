package store

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"
)

// TestEveryByteOfAStateFile flips a bit of each byte in turn, and cuts the file at each length: what comes back is the state that
// was acknowledged, or the older good copy with a report that says so; never a third, and nothing hangs or dies. With -short, and
// unless ECHOD_TORTURE is set, a sample.
func TestEveryByteOfAStateFile(t *testing.T) {
	source := t.TempDir()
	older, newest := map[string]string{}, map[string]string{}
	s := open(t, source, Options{})
	puts := map[string][]byte{}
	for i := range 30 { // more than one page
		key := fmt.Sprintf("endpoint-%02d", i)
		older[key] = string(record[:150])
		puts[key] = record[:150]
	}
	must(t, s.Write("endpoint", puts, nil), s.Put("session", "s", []byte("held")), s.Close())
	s = open(t, source, Options{CopyInterval: 1 << 60})
	maps.Copy(newest, older)
	delete(newest, "endpoint-07")
	newest["endpoint-08"] = "changed"
	must(t, s.Write("endpoint", map[string][]byte{"endpoint-08": []byte("changed")}, []string{"endpoint-07"}))
	abandon(t, s)
	good, err := os.ReadFile(filepath.Join(source, fileName))
	must(t, err)
	copied, err := os.ReadFile(filepath.Join(source, copyName))
	must(t, err)

	step := 997
	switch {
	case os.Getenv("ECHOD_TORTURE") != "":
		step = 1
	case testing.Short():
		step = 4999
	}
	o := inChild(t)
	exact, restored, whole := 0, 0, 0
	try := func(what string, text []byte) {
		dir, err := os.MkdirTemp("", "flip-")
		must(t, err)
		defer os.RemoveAll(dir)
		must(t, os.WriteFile(filepath.Join(dir, fileName), text, 0o600), os.WriteFile(filepath.Join(dir, copyName), copied, 0o600))
		s, err := Open(dir, o)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			return
		}
		got, report := records(t, s, "endpoint"), s.Report()
		must(t, s.Close())
		switch {
		case report.Restored != nil && maps.Equal(got, older) && len(report.Warnings()) > 0:
			restored++
		case report.Restored == nil && maps.Equal(got, newest):
			exact++
			if len(report.Damaged) > 0 {
				whole++
			}
		default:
			t.Errorf("%s: another state: %d records, %+v", what, len(got), report)
		}
	}
	flip := func(at int, bit int) {
		text := append([]byte(nil), good...)
		text[at] ^= 1 << bit
		try(fmt.Sprintf("bit %d of byte %d", bit, at), text)
	}
	// What describes pages is in their beginnings: all of it in any case.
	for at := 0; at < len(good); at += step {
		flip(at, at%8)
	}
	if step > 1 {
		for page := 0; page < len(good); page += 4096 {
			for at := page + step%7; at < page+80; at += 7 + step/200 {
				flip(at, at%8)
			}
		}
	}
	for length := 0; length < len(good); length += step {
		try(fmt.Sprintf("%d bytes", length), good[:length])
	}
	t.Logf("%d bytes: %d times the exact state, %d of them with flaws in its pages, %d times the copy", len(good), exact, whole, restored)
	if exact == 0 || restored == 0 {
		t.Errorf("%d times the exact state, %d times the copy: this tried nothing", exact, restored)
	}
}
