//go:build linux

package main

import (
	"bytes"
	endian "encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// traffic is what clients do while a daemon is upgraded: streams whose every byte is compared, datagrams with numbers, and
// connections that come and go. Any error, and any byte or datagram that is missing or wrong, fails the test.
type traffic struct {
	t       testing.TB
	stop    chan struct{}
	clients sync.WaitGroup

	bytes, datagrams, connects atomic.Uint64
	longest                    atomic.Int64 // stall, in nanoseconds
}

// loadSize says how much there is to do.
type loadSize struct {
	streams   int
	writes    time.Duration // between two of a stream
	datagrams time.Duration // between two
	connects  time.Duration // between two
}

// startLoad begins with all of it, and returns when each stream and the datagrams have seen an answer.
func startLoad(t testing.TB, tcp, udp string, size loadSize) *traffic {
	t.Helper()
	l := &traffic{t: t, stop: make(chan struct{})}
	var begun sync.WaitGroup
	for range size.streams {
		conn, err := net.Dial("tcp", tcp)
		if err != nil {
			t.Fatal(err)
		}
		begun.Add(1)
		l.clients.Go(func() { l.stream(conn.(*net.TCPConn), size.writes, begun.Done) })
	}
	if size.datagrams > 0 {
		conn, err := net.Dial("udp", udp)
		if err != nil {
			t.Fatal(err)
		}
		begun.Add(1)
		l.clients.Go(func() { l.numbered(conn, size.datagrams, begun.Done) })
	}
	if size.connects > 0 {
		l.clients.Go(func() { l.connect(tcp, size.connects) })
	}
	t.Cleanup(l.end) // where the test has failed before
	begun.Wait()
	return l
}

// end ends the load, each client when it has got all that it is owed.
func (l *traffic) end() {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.clients.Wait()
}

func (l *traffic) stopping() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

// awaitMore waits until each client has seen more than before.
func (l *traffic) awaitMore() error {
	before := []uint64{l.bytes.Load(), l.datagrams.Load(), l.connects.Load()}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline) && !l.t.Failed(); time.Sleep(time.Millisecond) {
		if l.bytes.Load() > before[0] && l.datagrams.Load() > before[1] && l.connects.Load() > before[2] {
			return nil
		}
	}
	return errors.New("the load does not go on")
}

// heard notes how long a client has waited: for what it has written to a stream to come back, for the next datagram, or for a
// connection and its greeting.
func (l *traffic) heard(since time.Time) {
	gap := int64(time.Since(since))
	for {
		longest := l.longest.Load()
		if gap <= longest || l.longest.CompareAndSwap(longest, gap) {
			return
		}
	}
}

// pattern is what stands at an offset of every stream: its number of eights, so that a byte that is missing, or is there twice,
// is seen.
func pattern(offset uint64, n int) []byte {
	text := make([]byte, 0, n+8)
	for i := offset / 8; len(text) < n+8; i++ {
		text = endian.BigEndian.AppendUint64(text, i)
	}
	return text[offset%8:][:n]
}

// stream writes, up to a window ahead of what it has read, and compares every byte that it reads.
func (l *traffic) stream(conn *net.TCPConn, every time.Duration, begun func()) {
	defer conn.Close()
	begin := sync.OnceFunc(begun)
	defer begin()
	const chunk = 3001               // no power of two
	room := make(chan time.Time, 16) // when each chunk was written that has not come back
	var written atomic.Uint64
	l.clients.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for offset := uint64(0); !l.stopping(); offset += chunk {
			select {
			case room <- time.Now():
			case <-l.stop:
				continue
			}
			if _, err := conn.Write(pattern(offset, chunk)); err != nil {
				l.t.Errorf("a stream cannot be written at %d: %v", offset, err)
				break
			}
			written.Add(chunk)
			<-tick.C
		}
		_ = conn.CloseWrite() // its reader says what is wrong
	})
	got := make([]byte, chunk)
	for offset := uint64(0); ; offset += chunk {
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		n, err := io.ReadFull(conn, got)
		if errors.Is(err, io.EOF) && l.stopping() {
			if offset != written.Load() {
				l.t.Errorf("a stream ended at %d of %d bytes", offset, written.Load())
			}
			return
		}
		if err != nil {
			l.t.Errorf("a stream broke at %d: %v", offset+uint64(n), err)
			return
		}
		l.heard(<-room)
		if !bytes.Equal(got, pattern(offset, chunk)) {
			l.t.Errorf("a stream has wrong bytes from %d", offset)
			return
		}
		l.bytes.Add(chunk)
		begin()
	}
}

// aheadDatagrams are as many as the receive buffer of any system holds: more may be lost by any echo server that does not read
// for a moment.
const aheadDatagrams = 150

// numbered sends datagrams with numbers, and hears each of them again.
func (l *traffic) numbered(conn net.Conn, every time.Duration, begun func()) {
	defer conn.Close()
	begin := sync.OnceFunc(begun)
	defer begin()
	var sent, received atomic.Uint64
	seen := map[uint64]bool{}
	var all atomic.Bool // all are sent that ever will be
	l.clients.Go(func() {
		defer all.Store(true)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for began := time.Now(); !l.stopping(); <-tick.C {
			due := uint64(time.Since(began) / every)
			for sent.Load() < due && sent.Load()-received.Load() < aheadDatagrams {
				if _, err := conn.Write(endian.BigEndian.AppendUint64(nil, sent.Load())); err != nil {
					l.t.Errorf("a datagram cannot be sent: %v", err)
					return
				}
				sent.Add(1)
			}
		}
	})
	got := make([]byte, 64)
	for quiet := time.Now(); !all.Load() || received.Load() < sent.Load(); {
		_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) // to see whether it is to end
		n, err := conn.Read(got)
		var late net.Error
		if errors.As(err, &late) && late.Timeout() {
			if received.Load() < sent.Load() && time.Since(quiet) > patience {
				l.t.Errorf("%d datagrams of %d were lost", sent.Load()-received.Load(), sent.Load())
				return
			}
			continue
		}
		if err != nil || n != 8 {
			l.t.Errorf("datagrams end: %d bytes, %v", n, err)
			return
		}
		number := endian.BigEndian.Uint64(got)
		if seen[number] {
			l.t.Errorf("datagram %d came twice", number)
		}
		seen[number] = true
		l.heard(quiet)
		quiet = time.Now()
		received.Add(1)
		l.datagrams.Add(1)
		begin()
	}
	for number := range sent.Load() {
		if !seen[number] {
			l.t.Errorf("datagram %d never came", number)
		}
	}
}

// maxConnects are as many as come at the same time, where each takes long.
const maxConnects = 50

// connect comes, is answered, and goes, again and again: as often as it is to, however long each takes.
func (l *traffic) connect(address string, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var each sync.WaitGroup
	defer each.Wait()
	room := make(chan struct{}, maxConnects)
	for ; !l.stopping() && !l.t.Failed(); <-tick.C {
		room <- struct{}{}
		each.Go(func() {
			defer func() { <-room }()
			began := time.Now()
			if err := greet(address); err != nil {
				l.t.Errorf("connection %d: %v", l.connects.Load(), err)
				return
			}
			l.heard(began)
			l.connects.Add(1)
		})
	}
}

func greet(address string) error {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write([]byte("greeting")); err != nil {
		return err
	}
	got := make([]byte, 8)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "greeting" {
		return fmt.Errorf("%q, %w", got, err)
	}
	return nil
}
