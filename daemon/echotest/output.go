package echotest

import (
	"fmt"
	"os"
	"strings"
	"sync"
)

// maxOutputBytes is how much of a daemon's output is kept.
const maxOutputBytes = 1 << 20

// output keeps the end of what is written to it, up to maxOutputBytes. It is safe for concurrent use.
type output struct {
	mu       sync.Mutex // guards what follows
	kept     []byte
	lost     int64 // bytes that came before what is kept
	reported bool
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.kept = append(o.kept, p...)
	// Twice the limit may be held, so that not every write moves it all.
	if over := len(o.kept) - maxOutputBytes; over > maxOutputBytes {
		o.kept = append(o.kept[:0], o.kept[over:]...)
		o.lost += int64(over)
	}
	return len(p), nil
}

// String is what was written: all of it, or the last of it and how much is missing.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	kept, lost := o.kept, o.lost
	if over := len(kept) - maxOutputBytes; over > 0 {
		kept, lost = kept[over:], lost+int64(over)
	}
	if lost == 0 {
		return string(kept)
	}
	return fmt.Sprintf("(%d bytes before this are not kept)\n%s", lost, kept)
}

// block is the output as a part of a message, which need not be reported again.
func (o *output) block() string {
	text := strings.TrimRight(o.String(), "\n")
	o.mu.Lock()
	defer o.mu.Unlock()
	o.reported = true
	if text == "" {
		return "It wrote nothing."
	}
	return "It wrote:\n" + text
}

// report logs the output if t has failed and no message has had it.
func (o *output) report(t TB) {
	t.Helper()
	o.mu.Lock()
	reported := o.reported
	o.mu.Unlock()
	if t.Failed() && !reported {
		t.Logf("About the daemon of the test: %s", o.block())
	}
}

// tempDir makes a directory that is removed when t is over. It is not t.TempDir, whose paths have the test's name in them and
// may be too long for a unix socket.
func tempDir(t TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "echotest-")
	if err != nil {
		t.Fatalf("cannot make a temporary directory: %v", err)
	}
	t.Cleanup(func() {
		t.Helper()
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("cannot remove the temporary directory %s: %v", dir, err)
		}
	})
	return dir
}
