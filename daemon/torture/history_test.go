//go:build linux

package torture_test

import (
	"bufio"
	"encoding/json"
	"os"
	"sync"
	"time"
)

// maxEvents bounds what is remembered: of an hour's run, its last minutes.
const maxEvents = 100_000

// event is one thing that somebody did, or that was seen.
type event struct {
	At      string `json:"at"` // seconds since the run began
	Who     string `json:"who"`
	What    string `json:"what"`
	Life    int    `json:"life"` // of the daemon
	Request any    `json:"request,omitempty"`
	Answer  any    `json:"answer,omitempty"`
	Error   string `json:"error,omitempty"`
	Took    string `json:"took,omitempty"`
}

// history is what happened, in memory. Any goroutine may add to it.
type history struct {
	began time.Time

	mu     sync.Mutex
	events []event
	next   int // where the oldest is, once it is full
}

func (h *history) add(e event) {
	e.At = time.Since(h.began).String()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.events) < maxEvents {
		h.events = append(h.events, e)
		return
	}
	h.events[h.next] = e
	h.next = (h.next + 1) % maxEvents
}

// dump writes it as JSON, a line each, the oldest first.
func (h *history) dump(path string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	lines := json.NewEncoder(w)
	for i := range h.events {
		if err := lines.Encode(h.events[(h.next+i)%len(h.events)]); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Close()
}
