package event

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// waitingTraffic is how many events of traffic wait for one watch to take them; more are dropped.
	waitingTraffic = 4096
	// gathering is how long events gather before a watch is woken up. To wake it up for each costs those who serve more than
	// all else here.
	gathering = 20 * time.Millisecond
)

// Connection is a TCP connection of an endpoint. Nobody changes it any more.
type Connection struct {
	Number   uint64 // tells it from all others of the daemon's life that were told of
	Endpoint string
	Labels   map[string]string // of the endpoint, when the connection was opened
	Peer     netip.AddrPort
	Opened   time.Time
}

// Ending is how a connection ended.
type Ending struct {
	BytesIn, BytesOut uint64 // payload
	Reason            string
}

// ConnectionEvent is the subject of events of kind [Traffic].
type ConnectionEvent struct {
	*Connection
	Ending // zero of one that is opened
}

// Connections tell of connections that are opened and that end, to those who watch just then. These events are not in the [Log]
// and have no revision, as there may be many thousands a second. Nothing here waits for who watches: what a watch does not
// take in time is dropped and counted. They are safe for concurrent use, and zero Connections are ready.
type Connections struct {
	last    atomic.Uint64 // number of a connection; they are counted while somebody watches
	watches atomic.Pointer[[]*ConnectionWatch]

	mu sync.Mutex // guards the writing of watches
}

// ConnectionWatch is told of some connections. It is safe for concurrent use.
type ConnectionWatch struct {
	of    *Connections
	oneIn uint64
	match func(*Event) bool
	ready chan struct{}
	timer *time.Timer // wakes up who waits for ready; set by the first event that waits

	mu      sync.Mutex // guards what follows
	closed  bool
	waiting []Event
	dropped uint64
}

// Watch tells of connections that are opened from now on: one in so many, and those events alone for which match is true,
// nil being all. Match is asked of both events of a connection as it is opened, by who serves it: it must be quick and wait
// for nothing. A connection's end is told only if its beginning was, or was not to be. The caller closes the watch.
//
// Which connections they are is drawn from their numbers: watches with the same oneIn see the same ones, and those of one
// in 100 are among those of one in 10. 0 counts as 1.
func (t *Connections) Watch(oneIn uint32, match func(*Event) bool) *ConnectionWatch {
	w := &ConnectionWatch{of: t, oneIn: uint64(max(oneIn, 1)), match: match, ready: make(chan struct{}, 1)}
	w.timer = time.AfterFunc(gathering, w.wake)
	w.timer.Stop()
	t.mu.Lock()
	defer t.mu.Unlock()
	all := append([]*ConnectionWatch{w}, t.all()...)
	t.watches.Store(&all)
	return w
}

// Close ends the watch; it has nothing more to take. It may be called again.
func (w *ConnectionWatch) Close() {
	w.of.leave(w)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed, w.waiting = true, nil
	w.timer.Stop()
}

// Ready receives when there is something to take, 20 milliseconds after the first of it came; more may have gathered by
// then. There may be nothing after all.
func (w *ConnectionWatch) Ready() <-chan struct{} { return w.ready }

func (w *ConnectionWatch) wake() {
	select {
	case w.ready <- struct{}{}:
	default: // it is awake
	}
}

// Take answers what has happened since it was called last, in order, and how many events the watch has lost in its life.
func (w *ConnectionWatch) Take() (events []Event, dropped uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	events, w.waiting = w.waiting, nil
	return events, w.dropped
}

// tell hands an event over, or counts that there is no room for it, and answers which.
func (w *ConnectionWatch) tell(e Event) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.closed:
		return false
	case len(w.waiting) == waitingTraffic:
		w.dropped++
		return false
	}
	if len(w.waiting) == 0 {
		w.timer.Reset(gathering)
	}
	w.waiting = append(w.waiting, e)
	return true
}

// lose counts an event that is not told since another was lost.
func (w *ConnectionWatch) lose() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dropped++
}

func (t *Connections) all() []*ConnectionWatch {
	if all := t.watches.Load(); all != nil {
		return *all
	}
	return nil
}

// leave takes a watch out.
func (t *Connections) leave(w *ConnectionWatch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var left []*ConnectionWatch
	for _, other := range t.all() {
		if other != w {
			left = append(left, other)
		}
	}
	if left == nil {
		t.watches.Store(nil)
		return
	}
	t.watches.Store(&left)
}

// Opened tells of a connection that was opened. What it answers, if not nil, is to be called once, when that has ended.
// Neither waits. As long as nobody watches, it costs one atomic load. Nil Connections tell nobody.
func (t *Connections) Opened(endpoint string, labels map[string]string, peer netip.AddrPort) (ended func(Ending)) {
	if t == nil || t.watches.Load() == nil {
		return nil
	}
	c := &Connection{Number: t.last.Add(1), Endpoint: endpoint, Labels: labels, Peer: peer, Opened: time.Now()}
	opened, closed := c.event(ConnectionOpened, c.Opened, Ending{}), c.event(ConnectionClosed, c.Opened, Ending{})
	draw := scatter(c.Number)
	var asked []drawn
	for _, w := range t.all() {
		if draw%w.oneIn != 0 {
			continue
		}
		if d := w.open(opened, &closed); d.end {
			asked = append(asked, d)
		}
	}
	if asked == nil {
		return nil
	}
	return func(e Ending) {
		closed := c.event(ConnectionClosed, time.Now(), e)
		for _, d := range asked {
			d.close(closed)
		}
	}
}

// drawn is a connection that a watch has drawn.
type drawn struct {
	watch *ConnectionWatch
	end   bool // is to be told
	lost  bool // the beginning was to be told, and was not
}

// open tells a watch of the beginning of a connection, if it wants that; what it says of the end is not known yet.
func (w *ConnectionWatch) open(opened Event, closed *Event) drawn {
	d := drawn{watch: w, end: w.wants(closed)}
	if w.wants(&opened) {
		d.lost = !w.tell(opened)
	}
	return d
}

func (d drawn) close(e Event) {
	if d.lost {
		d.watch.lose()
		return
	}
	d.watch.tell(e)
}

func (w *ConnectionWatch) wants(e *Event) bool { return w.match == nil || w.match(e) }

func (c *Connection) event(what Type, at time.Time, e Ending) Event {
	return Event{Time: at, Type: what, Kind: Traffic, Name: c.Endpoint, Subject: ConnectionEvent{c, e}}
}

// scatter spreads numbers that follow each other, so that one in so many is not always of the same client where several
// take turns. It is the end of SplitMix64 (Steele, Lea and Flood, 2014).
func scatter(n uint64) uint64 {
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}
