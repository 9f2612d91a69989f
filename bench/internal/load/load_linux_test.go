package load

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serveTCP answers each read with what answer makes of it, until the test ends.
func serveTCP(t *testing.T, answer func([]byte) []byte) string {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var conns []net.Conn
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conns = append(conns, conn)
			go func() {
				buf := make([]byte, 64<<10)
				for {
					n, err := conn.Read(buf)
					if err != nil {
						return
					}
					if _, err := conn.Write(answer(buf[:n])); err != nil {
						return
					}
				}
			}()
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-done
		for _, conn := range conns {
			conn.Close()
		}
	})
	return listener.Addr().String()
}

// serveUDP answers each datagram with what answer makes of it, with nothing if that is nil, until the test ends.
func serveUDP(t *testing.T, answer func([]byte) []byte) string {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 64<<10)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if reply := answer(buf[:n]); reply != nil {
				conn.WriteTo(reply, from)
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return conn.LocalAddr().String()
}

func plan(kind Kind, target string) Plan {
	return Plan{Kind: kind, Conns: 3, Depth: 4, Size: 100, Target: target, ServerPID: os.Getpid(),
		Warm: 20 * time.Millisecond, For: 200 * time.Millisecond}
}

func same(b []byte) []byte { return b }

func TestRun(t *testing.T) {
	for _, kind := range []Kind{PingPong, Bulk, Connect, Datagrams, Trains} {
		t.Run(string(kind), func(t *testing.T) {
			serve := serveTCP
			if kind == Datagrams || kind == Trains {
				serve = serveUDP
			}
			p := plan(kind, serve(t, same))
			if kind == Trains {
				p.Depth = 2 * maxSegments
			}
			r, err := Run(p)
			if err != nil {
				t.Fatal(err)
			}
			if r.Bytes == 0 || (kind == Bulk) != (r.Echoes == 0) || r.Elapsed < p.For || r.CPU == nil || *r.CPU <= 0 {
				t.Errorf("got %+v", r)
			}
			if timed := kind == Connect; timed != (r.P50 != nil) {
				t.Errorf("p50 is %v", r.P50)
			}
		})
	}
}

// One request at a time is timed.
func TestRoundTrips(t *testing.T) {
	p := plan(PingPong, serveTCP(t, same))
	p.Depth = 1
	r, err := Run(p)
	if err != nil {
		t.Fatal(err)
	}
	if r.P50 == nil || *r.P50 <= 0 || *r.P99 < *r.P50 {
		t.Errorf("got %+v", r)
	}
}

// A server that answers with something else is no echo server, however fast it is.
func TestAnotherAnswerIsAnError(t *testing.T) {
	wrong := func(b []byte) []byte { b[len(b)-1]++; return b }
	for _, p := range []Plan{
		plan(PingPong, serveTCP(t, wrong)), plan(Connect, serveTCP(t, wrong)), plan(Datagrams, serveUDP(t, wrong)),
	} {
		if r, err := Run(p); !errors.Is(err, errNotOurs) {
			t.Errorf("%s: got %+v, %v", p.Kind, r, err)
		}
	}
}

// What does not come back is counted, and the flow goes on.
func TestLoss(t *testing.T) {
	count := 0
	everyTenth := func(b []byte) []byte {
		if count++; count%10 == 0 {
			return nil
		}
		return b
	}
	p := plan(Datagrams, serveUDP(t, everyTenth))
	p.For = time.Second
	r, err := Run(p)
	if err != nil {
		t.Fatal(err)
	}
	if r.Lost == 0 || r.Echoes == 0 {
		t.Errorf("got %+v", r)
	}
}

func TestServerThatIsNotThere(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	target := listener.Addr().String()
	listener.Close()
	if _, err := Run(plan(PingPong, target)); err == nil || !strings.Contains(err.Error(), "cannot connect to "+target) {
		t.Errorf("got %v", err)
	}
}

func TestServerThatEndsConnections(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			io.CopyN(io.Discard, conn, 400)
			conn.Close()
		}
	}()
	defer func() { listener.Close(); <-done }()
	if r, err := Run(plan(PingPong, listener.Addr().String())); err == nil {
		t.Errorf("got %+v", r)
	}
}

func TestBadPlan(t *testing.T) {
	for _, p := range []Plan{
		{Kind: PingPong, Target: "localhost:1", Conns: 1, Depth: 1, Size: 1},
		{Kind: PingPong, Target: "[::1]:1", Conns: 1, Depth: 1, Size: 1},
		{Kind: PingPong, Target: "127.0.0.1:1", Conns: 0, Depth: 1, Size: 1},
		{Kind: "dance", Target: "127.0.0.1:1", Conns: 1, Depth: 1, Size: 1},
	} {
		if _, err := Run(p); err == nil {
			t.Errorf("%+v was taken", p)
		}
	}
}
