package echo

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"time"
)

// What handing over answers, besides the errors of [Engine.Listen].
var (
	// ErrWrongSocket: a handed socket is not what the Spec says, or not in a state to be served. The error says what differs.
	ErrWrongSocket = errors.New("not the socket that the endpoint needs")
	// ErrPaused: the endpoint is paused, and neither changes nor is paused again before it is resumed.
	ErrPaused = errors.New("paused to be handed over")
	// ErrCannotHandOver: sockets of this system cannot be handed over to another process.
	ErrCannotHandOver = errors.New("this system cannot hand over sockets")
)

// Handed is what serves an endpoint, on its way to another engine, in this process or in another. All but the files is data
// that may be sent in any encoding; zero values are what an engine makes of sockets that none has served before, such as those
// inherited from systemd or inetd. What sources have used of their allowance (UDPOptions) is not in it; ledgers are the engine's
// ([Engine.SaveLedgers]).
type Handed struct {
	// Socket is the listening TCP socket or the UDP socket. Nil: nothing new comes; the endpoint serves its Connections and is
	// over, with no error, when the last of them has ended.
	Socket *os.File `json:"-"`
	// Settled says that an engine has served Socket for an endpoint of this Spec.Place. The place is not compared then, and need
	// not be there any more: the socket stays where it was made.
	Settled bool
	// Connections are those of a TCP endpoint.
	Connections []HandedConnection
	// Stats is what was counted so far. The adopting endpoint counts on from there.
	Stats Stats
}

// HandedConnection is a TCP connection on its way to another engine. A zero one but for its Socket is one that no engine has
// served: it is taken as one that is accepted, and may be a Unix stream socket, too.
type HandedConnection struct {
	Socket *os.File `json:"-"`
	// Served says that an engine has served it, and that what follows tells how far it came. It is neither counted in
	// Stats.ConnectionsTotal anew nor told to Options.Observe; nor is its end told, here or where it came from.
	Served bool
	// Pending was read, and not yet taken by the peer: it is sent before anything else. At most [MaxPending] bytes.
	Pending []byte
	// OneShot says that the connection came under TCPOptions.OneShot.
	OneShot bool
	// Left is how many bytes of those that come are still to be echoed, without Pending.
	Left uint64
	// Answered says that our side has ended; what comes is thrown away for the time of Grace, and then the connection is closed.
	Answered bool
	Grace    time.Duration
	// Still is how long no byte had moved.
	Still time.Duration
	// Receive is the receive buffer, in bytes, that it is to be given once it moves more; 0: none. Deep says that its buffers
	// are deep now, MayDeepen that they may become so.
	Receive         int
	Deep, MayDeepen bool
}

// MaxPending is how many bytes of a connection wait for its peer outside of the kernel, at most.
const MaxPending = tcpReadBytes

// unlimited is HandedConnection.Left of a connection of which all is echoed.
const unlimited = math.MaxUint64

// Adopt makes an endpoint of sockets that exist already. It is paused: nothing is read, written or accepted, and no peer notices
// anything, before [Endpoint.Resume]. The context bounds the adoption alone.
//
// The Spec says what the sockets are to be, as for [Engine.Listen]; Listen may have port 0 for whichever it is, and for a
// connection alone it is an address that the connection's own one matches. What cannot be changed any more is compared: the
// kind of socket, its address, whether IPv4 comes by an IPv6 one, interface and, if the Spec has one and h is not settled, place.
// All else is set as Listen would have set it. The options for connections hold for those that no engine has served, and for
// those to come.
//
// Adopt takes the files of h over and closes them when it succeeds. When it does not, they stay the caller's, and nothing that
// their peers could notice has happened.
//
// A descriptor of the same socket elsewhere, such as a sender's before its [Endpoint.Release], must be closed before Resume:
// else the end of a connection reaches its peer only when that is.
//
// Errors satisfy errors.Is with [ErrWrongSocket], [ErrBadSpec], [ErrClosed], [ErrTooManyFiles] when that would be more than
// Options.MaxSockets, the context's error, or [ErrCannotHandOver].
func (g *Engine) Adopt(ctx context.Context, s Spec, h Handed) (*Endpoint, error) {
	address, err := s.parse()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(canHandOver(), h.check(s.Protocol)); err != nil {
		return nil, adoptError(s, err)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !g.begin() {
		return nil, adoptError(s, ErrClosed)
	}
	defer g.binding.Done()

	e := &Endpoint{engine: g, protocol: s.Protocol, asked: address, device: s.Interface, place: s.Place, paused: true, lone: h.Socket == nil}
	s.settled = h.Settled
	e.counters.restore(h.Stats)
	if !e.lone && !g.budget.take() {
		return nil, adoptError(s, ErrTooManyFiles)
	}
	if err := e.adopt(s, h); err != nil {
		if !e.lone {
			g.budget.give()
		}
		return nil, adoptError(s, err)
	}
	if !g.start(e) {
		e.server.abandon()
		if !e.lone {
			g.budget.give()
		}
		return nil, adoptError(s, ErrClosed)
	}
	h.close()
	return e, nil
}

// adopt is bind for sockets that exist.
func (e *Endpoint) adopt(s Spec, h Handed) (err error) {
	if e.protocol == UDP {
		e.guard = newGuard(e.engine, s)
		e.server, e.addr, err = e.engine.sockets.adoptUDP(e.asked, s, h, e.guard, e.engine.ledgers, &e.counters)
	} else {
		e.server, e.addr, err = e.engine.sockets.adoptTCP(e.asked, s, h, &e.engine.budget, e.engine.observe, &e.counters)
	}
	return err
}

// check says what of h no endpoint can have, whatever its sockets are.
func (h Handed) check(p Protocol) error {
	switch {
	case p == UDP && h.Socket == nil:
		return wrongSocket("there is no socket")
	case p == UDP && len(h.Connections) > 0:
		return wrongSocket("a UDP endpoint has no connections")
	case h.Socket == nil && len(h.Connections) == 0:
		return wrongSocket("there is neither a socket nor a connection")
	}
	for i, c := range h.Connections {
		switch {
		case c.Socket == nil:
			return wrongSocket("connection %d has no socket", i)
		case len(c.Pending) > MaxPending:
			return wrongSocket("connection %d has %d bytes pending, which are more than %d", i, len(c.Pending), MaxPending)
		case c.Grace < 0 || c.Still < 0 || c.Receive < 0 || c.Receive > math.MaxInt32:
			return wrongSocket("connection %d has a number that is out of range (grace %v, still for %v, receive buffer %d)", i, c.Grace, c.Still, c.Receive)
		}
	}
	return nil
}

// close closes the files.
func (h Handed) close() {
	if h.Socket != nil {
		_ = h.Socket.Close()
	}
	for _, c := range h.Connections {
		if c.Socket != nil {
			_ = c.Socket.Close()
		}
	}
}

// begun is a connection as it is when it has been accepted.
func begun(o TCPOptions) HandedConnection {
	h := HandedConnection{OneShot: o.OneShot, Left: unlimited}
	if o.MaxBytes > 0 {
		h.Left = o.MaxBytes
	}
	return h
}

// Pause stops accepting, reading and writing, without closing anything, and answers what serves the endpoint: duplicates of its
// sockets, which the caller passes on and closes, and how far each connection came. When it returns, nothing of the endpoint
// touches a socket. What comes meanwhile waits in the kernel, as far as its buffers hold it, and so do connections to come.
//
// It is to be followed by Resume, Release or Close. If ctx ends before, or something fails, the endpoint goes on as if nothing
// had been, and the error is the context's or the system's. It is [ErrClosed] when the endpoint is closing or over, [ErrPaused]
// when it is paused already, and [ErrCannotHandOver] where sockets cannot be duplicated.
func (e *Endpoint) Pause(ctx context.Context) (Handed, error) {
	if err := canHandOver(); err != nil {
		return Handed{}, err
	}
	e.updating.Lock()
	defer e.updating.Unlock()
	switch {
	case e.stopped.Load() || e.isOver():
		return Handed{}, ErrClosed
	case e.paused:
		return Handed{}, ErrPaused
	}
	if err := ctx.Err(); err != nil {
		return Handed{}, err
	}
	e.server.pause()
	if e.isOver() { // its last connection has ended meanwhile, and there is no more
		return Handed{}, ErrClosed
	}
	h, err := e.hand(ctx)
	if err != nil {
		h.close()
		return Handed{}, errors.Join(err, e.server.resume())
	}
	e.paused = true
	return h, nil
}

// hand answers what serves a paused endpoint. With an error, what it answers is to be closed.
func (e *Endpoint) hand(ctx context.Context) (Handed, error) {
	h, err := e.server.hand(ctx)
	if err != nil {
		return h, err
	}
	e.server.observe()
	h.Settled = true
	h.Stats = e.counters.snapshot()
	return h, nil
}

// Resume has an endpoint go on that was adopted, or paused for a hand-over that came to nothing. What came meanwhile is served
// first. Timeouts go on by the time that was left of them. One that is not paused goes on anyhow. The error is [ErrClosed] when
// the endpoint is over, or what the system has against serving it; then the endpoint has ended.
func (e *Endpoint) Resume() error {
	e.updating.Lock()
	defer e.updating.Unlock()
	switch {
	case e.stopped.Load() || e.isOver():
		return ErrClosed
	case !e.paused:
		return nil
	}
	e.paused = false
	return e.server.resume()
}

// Release gives the descriptors of a paused endpoint back, after which it is over, with no error: another process has them, and
// no peer notices anything. No connection is counted, or told to Options.Observe, as ended. If nobody else has a descriptor of a
// connection, its peer sees the end of it, or a reset. Of an endpoint that is not paused, nothing is done.
func (e *Endpoint) Release() {
	e.updating.Lock()
	defer e.updating.Unlock()
	e.releasePaused()
}

// releasePaused answers whether the endpoint was paused. The caller orders updates.
func (e *Endpoint) releasePaused() bool {
	if !e.paused {
		return false
	}
	e.paused = false
	e.stopped.Store(true)
	e.server.abandon()
	e.finish(nil)
	return true
}

// wrongSocketError is an ErrWrongSocket whose text is the problem alone.
type wrongSocketError string

func (e wrongSocketError) Error() string        { return string(e) }
func (e wrongSocketError) Is(target error) bool { return target == ErrWrongSocket }

func wrongSocket(format string, args ...any) error {
	return wrongSocketError(fmt.Sprintf(format, args...))
}

func adoptError(s Spec, err error) error { return fmt.Errorf("cannot adopt %s: %w", s.where(), err) }
