package echo

import (
	"context"
	"testing"
	"time"
)

// TestABeatWaitsForEachLoop holds one loop up.
func TestABeatWaitsForEachLoop(t *testing.T) {
	g := New(Options{})
	g.Beat() // there is no loop yet
	if _, err := g.Listen(context.Background(), Spec{Protocol: UDP, Listen: "127.0.0.1:0"}); err != nil {
		t.Fatal(err)
	}
	g.Beat()
	held, release := make(chan struct{}), make(chan struct{})
	all := g.sockets.(*loops).all
	all[len(all)-1].do(func() { close(held); <-release })
	<-held
	beat := make(chan struct{})
	go func() { g.Beat(); close(beat) }()
	select {
	case <-beat:
		t.Error("a beat passed a loop that stands still")
	case <-time.After(10 * time.Millisecond): // only a loop that is passed by makes this fail, however slow the machine
	}
	close(release)
	<-beat
	if err := g.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	g.Beat()
}
