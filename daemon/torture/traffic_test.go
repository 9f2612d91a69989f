//go:build linux

package torture_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// Anchors are endpoints that nobody changes. Their streams must not break and their datagrams not be lost for as long as the
// daemon lives, whatever happens to its disk, to other endpoints, or to its binary.
const (
	anchorsEach      = 2 // of either protocol
	streamsPerAnchor = 2
	rovers           = 2
	anchorPort       = 9000
	maxTurn          = 16 << 10 // bytes of a stream in one turn: what all buffers on the way hold
	maxDatagrams     = 8        // in one turn, likewise
	datagramSize     = 1000
)

func anchorNames() (all []string) {
	for i := range anchorsEach {
		all = append(all, fmt.Sprintf("anchor-tcp-%d", i), fmt.Sprintf("anchor-udp-%d", i))
	}
	return all
}

// anchor is what an anchor is.
func (w *world) anchor(name string) *echov1.Endpoint {
	e := &echov1.Endpoint{Name: name, Protocol: echov1.Protocol_TCP, Labels: map[string]string{"owner": "anchor"}}
	if strings.Contains(name, "udp") {
		e.Protocol = echov1.Protocol_UDP
	}
	var i int
	_, _ = fmt.Sscanf(name[len("anchor-tcp-"):], "%d", &i)
	e.Listen = fmt.Sprintf("%s:%d", w.host, anchorPort+i)
	return e
}

// ensureAnchors makes the anchors that are not there: all at first, and what damage has taken. The caller has quiet.
func (w *world) ensureAnchors() {
	w.t.Helper()
	a := w.anchors
	for _, name := range anchorNames() {
		if a.m.uncertain() { // this daemon is about to die: the next one will tell
			return
		}
		if _, ok := a.m.is()[name]; ok || w.over() {
			continue
		}
		def := w.anchor(name)
		after := a.m.is().clone()
		after[name] = wanted{def: def, serve: true}
		in := &echov1.CreateEndpointRequest{Endpoint: def}
		a.turn(w.life(), call{"create", in, after, func(ctx context.Context, api echov1.EndpointServiceClient) (proto.Message, error) {
			return api.CreateEndpoint(ctx, in)
		}, learnOne(name)})
	}
}

func (w *world) startTraffic() {
	for i, name := range anchorNames() {
		address, id := w.anchor(name).Listen, uint64(i)<<32
		if w.anchor(name).Protocol == echov1.Protocol_UDP {
			w.users.Go(func() { w.datagrams(name, address, id) })
			continue
		}
		for s := range streamsPerAnchor {
			w.users.Go(func() { w.stream(name, address, id+uint64(s)<<16) })
		}
	}
	for i := range rovers {
		w.users.Go(func() { w.rove(uint64(100+i) << 32) })
	}
}

// text is what stands at a place of a flow: each flow's is its own, and so is each eight bytes of it.
func text(flow, offset uint64, n int) []byte {
	b := make([]byte, 0, n+16)
	for at := offset / 8; len(b) < n+8; at++ {
		b = binary.BigEndian.AppendUint64(b, (flow*0x9e3779b97f4a7c15+at)*0xbf58476d1ce4e5b9)
	}
	return b[offset%8:][:n]
}

// excused says whether a daemon's end is why something broke.
func (w *world) excused(l *life) bool {
	// The end of a process is seen by its sockets before we hear of it.
	return l.mortal.Load() || w.await(time.Second, func() bool { return l.hasEnded() || l.mortal.Load() })
}

// stream holds a connection to an anchor as long as its daemon lives, and compares each byte that comes with what was sent.
func (w *world) stream(name, address string, flow uint64) {
	rnd := rand.New(rand.NewPCG(flow, 1))
	var conn net.Conn
	var of *life
	defer func() {
		if conn != nil {
			conn.Close()
		}
	}()
	offset := uint64(0)
	for !w.over() {
		w.traffic.RLock()
		l := w.life()
		if l == nil || of == l && conn == nil {
			w.traffic.RUnlock()
			w.idle()
			continue
		}
		if of != l { // another daemon
			if conn != nil {
				conn.Close()
			}
			var err error
			conn, of, offset, flow = nil, l, 0, flow+1
			if conn, err = net.DialTimeout("tcp", address, patience); err != nil && !w.excused(l) {
				w.fail("%s: cannot connect: %v", name, err)
			}
		}
		if conn != nil {
			n := 1 + rnd.IntN(maxTurn)
			if err := w.exchange(conn, l.sent[name], flow, offset, n); err != nil {
				if errors.Is(err, errWrongBytes) || !w.excused(l) {
					w.fail("%s: a stream of %d bytes breaks in life %d: %v", name, offset, l.number, err)
				}
				conn.Close()
				conn = nil
			}
			offset += uint64(n)
		}
		w.traffic.RUnlock()
		time.Sleep(time.Duration(1+rnd.IntN(3)) * time.Millisecond) // others are to have the processor, too
	}
}

var errWrongBytes = errors.New("what comes is not what was sent")

// exchange sends the next bytes of a flow, and reads and compares as many.
func (w *world) exchange(conn net.Conn, sent *sums, flow, offset uint64, n int) error {
	_ = conn.SetDeadline(time.Now().Add(patience))
	want := text(flow, offset, n)
	m, err := conn.Write(want)
	if sent != nil {
		sent.bytes.Add(uint64(m))
	}
	if err != nil {
		return err
	}
	got := make([]byte, n)
	m, err = io.ReadFull(conn, got)
	w.counts.bytes.Add(uint64(m))
	if !bytes.Equal(got[:m], want[:m]) {
		return errWrongBytes
	}
	return err
}

// datagrams sends datagrams to an anchor, and hears each of them once.
func (w *world) datagrams(name, address string, flow uint64) {
	rnd := rand.New(rand.NewPCG(flow, 1))
	var conn net.Conn
	var of *life
	defer func() {
		if conn != nil {
			conn.Close()
		}
	}()
	for number := uint64(0); !w.over(); {
		w.traffic.RLock()
		l := w.life()
		if l == nil || of == l && conn == nil {
			w.traffic.RUnlock()
			w.idle()
			continue
		}
		if of != l {
			if conn != nil {
				conn.Close()
			}
			var err error
			of = l
			if conn, err = net.Dial("udp", address); err != nil {
				w.fail("%s: %v", name, err)
			}
		}
		if conn != nil {
			n := 1 + rnd.IntN(maxDatagrams)
			err := w.volley(conn, l.sent[name], flow, number, n, patience, func() bool { return l.mortal.Load() })
			if err != nil {
				if errors.Is(err, errWrongBytes) || !w.excused(l) {
					w.fail("%s: datagrams from %d on in life %d: %v", name, number, l.number, err)
				}
				conn.Close()
				conn = nil
			}
			number += uint64(n)
		}
		w.traffic.RUnlock()
		time.Sleep(time.Duration(1+rnd.IntN(3)) * time.Millisecond)
	}
}

// datagram is the number-th of a flow: no two are alike, and their sizes differ.
func datagram(flow, number uint64) []byte {
	return text(flow, number*8192, 16+int(number%datagramSize))
}

// volley sends some datagrams, and waits for each of them to come back: once, and nothing else.
func (w *world) volley(conn net.Conn, sent *sums, flow, first uint64, n int, wait time.Duration, leave func() bool) error {
	open := map[string]bool{}
	for i := range uint64(n) {
		d := datagram(flow, first+i)
		if _, err := conn.Write(d); err != nil {
			return err
		}
		if sent != nil {
			sent.datagrams.Add(1)
			sent.bytes.Add(uint64(len(d)))
		}
		open[string(d)] = true
	}
	got := make([]byte, 1<<16)
	for deadline := time.Now().Add(wait); len(open) > 0; {
		_ = conn.SetReadDeadline(time.Now().Add(min(wait, 100*time.Millisecond))) // to see whether it is in vain
		m, err := conn.Read(got)
		if errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(deadline) && !leave() {
			continue
		}
		if err != nil {
			return fmt.Errorf("%d of %d have no answer: %w", len(open), n, err)
		}
		if !open[string(got[:m])] {
			return fmt.Errorf("%w: %d bytes that are no answer, or a second one", errWrongBytes, m)
		}
		delete(open, string(got[:m]))
		w.counts.datagrams.Add(1)
	}
	return nil
}

// rove uses endpoints that come and go. Whatever may become of a connection, a wrong byte never comes.
func (w *world) rove(flow uint64) {
	rnd := rand.New(rand.NewPCG(flow, 1))
	for !w.over() {
		w.traffic.RLock()
		if l := w.life(); l != nil {
			w.visit(l, rnd, &flow)
		}
		w.traffic.RUnlock()
		time.Sleep(time.Duration(1+rnd.IntN(3)) * time.Millisecond)
	}
}

func (w *world) visit(l *life, rnd *rand.Rand, flow *uint64) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	owner := w.clients[rnd.IntN(len(w.clients))]
	all, err := list(ctx, l.endpoints(), owner.filter()+" AND state = SERVING")
	if came, wrong := w.judge(l, err); came != done {
		if wrong != nil {
			w.fail("a reader: %v", wrong)
		}
		return
	}
	for _, e := range all { // in any order
		*flow++
		if rnd.IntN(3) > 0 {
			continue
		}
		if err := w.use(e, nil, *flow, 1+rnd.IntN(maxTurn), 100*time.Millisecond); errors.Is(err, errWrongBytes) {
			w.fail("%s at %s: %v", e.Name, e.Address, err)
		}
	}
}

// use has an endpoint echo something, and notes in sent what it was, if that is not nil. Datagrams are waited for so long.
func (w *world) use(e *echov1.Endpoint, sent *sums, flow uint64, n int, wait time.Duration) error {
	if e.Protocol == echov1.Protocol_UDP {
		conn, err := net.Dial("udp", e.Address)
		if err != nil {
			return err
		}
		defer conn.Close()
		return w.volley(conn, sent, flow, uint64(n), 1, wait, func() bool { return false })
	}
	conn, err := net.DialTimeout("tcp", e.Address, patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	w.counts.connections.Add(1)
	return w.exchange(conn, sent, flow, 0, n)
}
