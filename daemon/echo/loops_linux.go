package echo

import (
	"runtime"
	"sync"
)

// loops are the loops of one engine: one for each processor that Go may use but one, which is left to the rest of the
// process and to the peers on the same host. Measured with two processors, a second loop made the rate 5 % lower and the
// 99th percentile three times as long, for it takes turns with those whom it serves. They run from the first endpoint to
// the engine's end.
type loops struct {
	mu      sync.Mutex // guards what follows
	all     []*loop
	running sync.WaitGroup
}

func fastest() sockets { return &loops{} }

// ensure starts the loops, unless they run.
func (g *loops) ensure() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.all != nil {
		return nil
	}
	var all []*loop
	for range max(1, runtime.GOMAXPROCS(0)-1) {
		l, err := newLoop()
		if err != nil {
			for _, made := range all {
				_ = made.epoll.Close()
			}
			return err
		}
		all = append(all, l)
	}
	for _, l := range all {
		g.running.Go(l.run)
	}
	g.all = all
	return nil
}

// assign answers the loop with the fewest sockets (preferred, if it is one of them) for one more, and counts that in. The
// socket's end is told by loop.leave.
func (g *loops) assign(preferred *loop) *loop {
	best := preferred
	for _, l := range g.all { // written once, before anybody asks
		if best == nil || l.load.Load() < best.load.Load() {
			best = l
		}
	}
	best.load.Add(1)
	return best
}

// close ends the loops and waits for them. Nothing is served any more.
func (g *loops) close() {
	g.mu.Lock()
	all := g.all
	g.mu.Unlock()
	for _, l := range all {
		l.end()
	}
	g.running.Wait()
}
