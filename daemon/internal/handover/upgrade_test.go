//go:build unix

package handover

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// pair makes both ends of a link.
func pair(t *testing.T) (a, b *Link) {
	t.Helper()
	a, theirs, err := newLinks()
	if err != nil {
		t.Fatal(err)
	}
	if b, err = newLink(theirs); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	for _, l := range []*Link{a, b} {
		if err := l.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	return a, b
}

// openFiles is how many descriptors this process has.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("this system does not tell which descriptors are open")
	}
	return len(entries)
}

// numbered makes files whose contents are their numbers.
func numbered(t *testing.T, n int) []*os.File {
	t.Helper()
	all, dir := make([]*os.File, n), t.TempDir()
	for i := range all {
		f, err := os.CreateTemp(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		if _, err := fmt.Fprint(f, i); err != nil {
			t.Fatal(err)
		}
		all[i] = f
	}
	return all
}

func TestMessagesAndFilesComeInOrder(t *testing.T) {
	for _, n := range []int{0, 1, maxFiles, maxFiles + 1, 3*maxFiles + 7} {
		a, b := pair(t)
		files := numbered(t, n)
		sent := make(chan error, 1)
		go func() {
			// Bytes before, between and behind the files, more than either side buffers.
			long := strings.Repeat("x", 300<<10)
			sent <- errors.Join(a.Put(1, "one"), a.Put(2, long), a.SendFiles(files), a.Send(3, long), a.SendFiles(files), a.Send(4, "four"))
		}()
		var text string
		for kind := MessageKind(1); kind <= 2; kind++ {
			if err := b.Receive(kind, &text); err != nil {
				t.Fatal(err)
			}
		}
		first, err := b.ReceiveFiles(n)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Receive(3, &text); err != nil || len(text) != 300<<10 {
			t.Fatal(len(text), err)
		}
		second, err := b.ReceiveFiles(n)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Receive(4, &text); err != nil || text != "four" {
			t.Fatal(text, err)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		for i, f := range append(first, second...) {
			if _, err := f.Seek(0, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(f); err != nil || string(got) != fmt.Sprint(i%n) {
				t.Errorf("file %d is %q, %v", i, got, err)
			}
			f.Close()
		}
	}
}

func TestALinkSaysWhatIsWrong(t *testing.T) {
	raw := func(kind MessageKind, length uint32, text string) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{byte(kind)}, length), text...)
	}
	for name, c := range map[string]struct {
		do   func(a *Link) error
		want error
	}{
		"it has ended":         {func(a *Link) error { return a.Close() }, ErrEnded},
		"in a message":         {func(a *Link) error { _, err := a.conn.Write(raw(7, 100, "short")); return errors.Join(err, a.Close()) }, ErrEnded},
		"in a header":          {func(a *Link) error { _, err := a.conn.Write([]byte{7}); return errors.Join(err, a.Close()) }, ErrEnded},
		"another kind":         {func(a *Link) error { return a.Send(8, "x") }, ErrGarbled},
		"another type":         {func(a *Link) error { return a.Send(7, 1) }, ErrGarbled},
		"no JSON":              {func(a *Link) error { _, err := a.conn.Write(raw(7, 1, "{")); return err }, ErrGarbled},
		"too long":             {func(a *Link) error { _, err := a.conn.Write(raw(7, MaxMessage+1, "")); return err }, ErrGarbled},
		"files":                {func(a *Link) error { return a.SendFiles([]*os.File{os.Stdin}) }, ErrGarbled},
		"a refusal of garbage": {func(a *Link) error { _, err := a.conn.Write(raw(refusal, 1, "{")); return err }, ErrGarbled},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t)
			if err := c.do(a); err != nil {
				t.Fatal(err)
			}
			var text string
			if err := b.Receive(7, &text); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}

	a, b := pair(t)
	if err := a.Refuse(errors.New("because")); err != nil {
		t.Fatal(err)
	}
	var refused *Refused
	if err := b.Receive(7, new(string)); !errors.As(err, &refused) || refused.Reason != "because" {
		t.Errorf("%v, want a refusal", err)
	}
	if err := b.SetDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := b.Receive(7, new(string)); !errors.Is(err, ErrTooLate) {
		t.Errorf("%v, want %v", err, ErrTooLate)
	}
	if err := a.Send(7, strings.Repeat("x", MaxMessage)); err == nil || !strings.Contains(err.Error(), "are the most") {
		t.Errorf("too long a message: %v", err)
	}
	b.Close()
	if err := a.Send(7, "x"); !errors.Is(err, ErrEnded) {
		t.Errorf("%v, want %v", err, ErrEnded)
	}
}

// TestNoFileIsLeftOpen sends files that nobody asks for, or that are other than was said.
func TestNoFileIsLeftOpen(t *testing.T) {
	files := numbered(t, 3)
	before := openFiles(t)
	for name, do := range map[string]func(a, b *Link) error{
		"nobody asks": func(a, b *Link) error {
			return errors.Join(a.SendFiles(files), a.Send(1, "x"), b.Receive(1, new(string)))
		},
		"fewer asked for": func(a, b *Link) error {
			_, err := b.ReceiveFiles(2)
			return err
		},
		"more asked for": func(a, b *Link) error {
			_ = a.Close()
			_, err := b.ReceiveFiles(4)
			return err
		},
		"a message between": func(a, b *Link) error {
			_ = a.Send(1, "x")
			_, err := b.ReceiveFiles(4)
			return err
		},
		"fewer than said": func(a, b *Link) error {
			_, _ = a.conn.Write([]byte{byte(filesKind), 0, 0, 0, 1, 2})
			_, err := b.ReceiveFiles(5)
			return err
		},
	} {
		a, b := pair(t)
		if name != "nobody asks" {
			if err := a.SendFiles(files); err != nil {
				t.Fatal(err)
			}
		}
		if err := do(a, b); err == nil {
			t.Errorf("%s: no error", name)
		}
		a.Close()
		b.Close()
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d descriptors are open, %d were", after, before)
	}
}
