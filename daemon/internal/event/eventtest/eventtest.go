// Package eventtest reads watches for the tests of the rooms that write events.
package eventtest

import (
	"testing"

	"github.com/echod/echod/daemon/internal/event"
)

// Told answers what a watch has to tell now, without the marker between what is there and what happens.
func Told(t testing.TB, w *event.Watch) (told []event.Event) {
	t.Helper()
	for {
		e, ok, err := w.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return told
		}
		if e.Type != event.Synced {
			told = append(told, e)
		}
	}
}

// Word is a type of events in a word.
func Word(t event.Type) string {
	return map[event.Type]string{
		event.Created: "created", event.Updated: "updated", event.StateChanged: "state", event.Deleted: "deleted",
		event.Expired: "expired", event.RunEnded: "run", event.Existing: "existing",
	}[t]
}
