package echo_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/echod/echod/daemon/echo"
)

// What broke designs that looked right: the FIN in the same packet as the last bytes.
func TestTCPFiveBytesAndTheEndAtOnce(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		e := open(t, newEngine, tcpSpec(echo.TCPOptions{}))
		for i := range 300 {
			conn := dial(t, e)
			if _, err := io.WriteString(conn, "hello"); err != nil {
				t.Fatal(err)
			}
			if err := conn.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(conn); string(got) != "hello" || err != nil {
				t.Fatalf("connection %d: got %q, %v", i, got, err)
			}
			conn.Close()
		}
	})
}

// A listener that goes while its queue is full turns away those that wait, and its port is free.
func TestTCPStopWithAFullQueue(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		engine := newEngine()
		defer closeEngine(t, engine)
		e := listen(t, engine, tcpSpec(echo.TCPOptions{}))
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for {
					conn, err := net.Dial("tcp", e.Addr().String())
					if err != nil {
						return // the listener is gone
					}
					conn.Close()
				}
			})
		}
		eventually(t, "connections come", func() bool { return e.Stats().ConnectionsTotal > 100 })
		if err := e.Close(endedContext()); err != nil {
			t.Fatal(err)
		}
		all.Wait()
		again := listen(t, engine, echo.Spec{Protocol: echo.TCP, Listen: e.Addr().String()})
		expectAnswer(t, echo.TCP, again.Addr())
		if s := e.Stats(); s.ConnectionsOpen != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// Connections of all manners at once: sizes at random, ends of every kind, each byte compared.
func TestTCPSoak(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		e := open(t, newEngine, tcpSpec(echo.TCPOptions{}))
		var all sync.WaitGroup
		for client := range 24 {
			all.Go(func() {
				random := rand.New(rand.NewPCG(1, uint64(client)))
				for range 15 {
					if err := soakOne(e, random); err != nil {
						t.Errorf("client %d: %v", client, err)
						return
					}
				}
			})
		}
		all.Wait()
		eventually(t, "all are gone", func() bool { return e.Stats().ConnectionsOpen == 0 })
		s := e.Stats()
		if s.BytesIn != s.BytesOut+s.Drops[echo.DropNotTaken] || s.ConnectionsTotal != 24*15 {
			t.Errorf("%+v", s)
		}
	})
}

// A connection that dies while its event is pending leaves nothing to the one that has its descriptor and its place next.
func TestTCPDyingConnectionsLeaveNothingToOthers(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		e := open(t, newEngine, tcpSpec(echo.TCPOptions{}))
		const rounds = 300
		for round := range rounds {
			dying := dial(t, e)
			if _, err := dying.Write(randomBytes(1000 + round)); err != nil {
				t.Fatal(err)
			}
			reset(t, dying)
			roundTrip(t, dial(t, e), strings.Repeat("mine alone ", 1+round))
		}
		eventually(t, "the dead are gone", func() bool { return e.Stats().ConnectionsOpen <= rounds })
		if s := e.Stats(); s.ConnectionsTotal != 2*rounds {
			t.Errorf("%+v", s)
		}
	})
}

// soakOne makes one connection, sends it something while reading, and ends it in one of three ways.
func soakOne(e *echo.Endpoint, random *rand.Rand) error {
	raw, err := net.Dial("tcp", e.Addr().String())
	if err != nil {
		return err
	}
	conn := raw.(*net.TCPConn)
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	sent := randomBytes(random.IntN(300_000))
	if random.IntN(8) == 0 {
		sent = randomBytes(random.IntN(5_000_000)) // enough for deep buffers
	}
	ending := random.IntN(3)
	written := make(chan error, 1)
	chunk := 1 + random.IntN(70_000)
	go func() {
		for rest := sent; len(rest) > 0; {
			n, err := conn.Write(rest[:min(chunk, len(rest))])
			if err != nil {
				written <- err
				return
			}
			rest = rest[n:]
		}
		if ending == 0 {
			written <- conn.CloseWrite()
			return
		}
		written <- nil
	}()
	switch ending {
	case 0: // half-close: everything comes back, then the end
		got, err := io.ReadAll(conn)
		if err = errors.Join(err, <-written); err != nil || !bytes.Equal(got, sent) {
			return fmt.Errorf("half-closed: %d of %d bytes, %w", len(got), len(sent), errors.Join(err, errors.New("want all")))
		}
	case 1: // everything is read, then it is closed
		got := make([]byte, len(sent))
		_, err := io.ReadFull(conn, got)
		if err = errors.Join(err, <-written); err != nil || !bytes.Equal(got, sent) {
			return fmt.Errorf("closed: %w", errors.Join(err, errors.New("want all bytes back")))
		}
	default: // reset in the middle
		part := make([]byte, len(sent)/2)
		if _, err := io.ReadFull(conn, part); err != nil || !bytes.HasPrefix(sent, part) {
			return fmt.Errorf("reset: %w", errors.Join(err, errors.New("want a prefix back")))
		}
		_ = conn.SetLinger(0)
		conn.Close()
		<-written
	}
	return nil
}

// Datagrams of all sizes from several sockets at once; each socket gets its own back and nothing else.
func TestUDPSoak(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		for _, where := range []string{"127.0.0.1:0", ":0"} {
			e := open(t, newEngine, udpSpec(where))
			address := strings.Replace(e.Addr().String(), "[::]", "127.0.0.3", 1)
			address = strings.Replace(address, "0.0.0.0", "127.0.0.3", 1)
			var all sync.WaitGroup
			for client := range 16 {
				all.Go(func() {
					if err := soakUDP(address, rand.New(rand.NewPCG(2, uint64(client)))); err != nil {
						t.Errorf("client %d: %v", client, err)
					}
				})
			}
			all.Wait()
			eventually(t, "all are counted", func() bool { return e.Stats().DatagramsOut >= 16*50 })
			if s := e.Stats(); len(s.Errors) > 0 {
				t.Errorf("%+v", s)
			}
		}
	})
}

func soakUDP(address string, random *rand.Rand) error {
	conn, err := net.Dial("udp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	got := make([]byte, 1<<16)
	for round := range 50 {
		size := random.IntN(3000)
		if round%10 == 0 {
			size = random.IntN(65508)
		}
		sent := randomBytes(size)
		// A datagram may be lost, on loopback too, when a buffer is full; it is sent again.
		for attempt := 0; ; attempt++ {
			if _, err := conn.Write(sent); err != nil {
				return err
			}
			if err := conn.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
				return err
			}
			n, err := conn.Read(got)
			if errors.Is(err, os.ErrDeadlineExceeded) && attempt < 10 {
				continue
			}
			if err != nil {
				return fmt.Errorf("round %d of %d bytes: %w", round, size, err)
			}
			if bytes.Equal(got[:n], sent) {
				break
			}
			if attempt == 0 {
				return fmt.Errorf("round %d: %d bytes came back for %d", round, n, size)
			}
		}
	}
	return nil
}
