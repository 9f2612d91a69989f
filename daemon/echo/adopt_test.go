//go:build unix

package echo_test

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/echod/echod/daemon/echo"
)

// fileOf answers a duplicate of a socket's descriptor, and closes the socket: what is left is as it is inherited.
func fileOf(t *testing.T, socket interface {
	File() (*os.File, error)
	Close() error
}) *os.File {
	t.Helper()
	f, err := socket.File()
	if err := errors.Join(err, socket.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func listenTCP(t *testing.T, network, address string) *net.TCPListener {
	t.Helper()
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	l, err := config.Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	return l.(*net.TCPListener)
}

func listenUDP(t *testing.T, network, address string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return c.(*net.UDPConn)
}

// adopt makes an endpoint of an engine of its own; both are cut when the test ends.
func adopt(t *testing.T, newEngine maker, s echo.Spec, h echo.Handed) *echo.Endpoint {
	t.Helper()
	engine := newEngine()
	t.Cleanup(func() { closeEngine(t, engine) })
	return adoptIn(t, engine, s, h)
}

func adoptIn(t *testing.T, engine *echo.Engine, s echo.Spec, h echo.Handed) *echo.Endpoint {
	t.Helper()
	e, err := engine.Adopt(patient(t), s, h)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func resume(t *testing.T, e *echo.Endpoint) {
	t.Helper()
	if err := e.Resume(); err != nil {
		t.Fatal(err)
	}
}

// What comes before an inherited socket is served waits for it.
func TestAdoptListener(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		e := adopt(t, newEngine, tcpSpec(echo.TCPOptions{}), echo.Handed{Socket: fileOf(t, listenTCP(t, "tcp", "127.0.0.1:0"))})
		conn := dial(t, e)
		if _, err := io.WriteString(conn, "early"); err != nil {
			t.Fatal(err)
		}
		resume(t, e)
		if got, err := io.ReadAll(io.LimitReader(conn, 5)); string(got) != "early" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		expectAnswer(t, echo.TCP, e.Addr())
		eventually(t, "one is open", func() bool { return e.Stats().ConnectionsOpen == 1 })
		if s := e.Stats(); s.ConnectionsTotal != 2 {
			t.Errorf("counted %+v", s)
		}
	})
}

func TestAdoptUDP(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		for address, network := range map[string]string{"127.0.0.1:0": "udp", ":0": "udp", "0.0.0.0:0": "udp4"} {
			e := adopt(t, newEngine, echo.Spec{Protocol: echo.UDP, Listen: address}, echo.Handed{Socket: fileOf(t, listenUDP(t, network, address))})
			conn, err := net.Dial("udp", "127.0.0.1:"+port(e))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			setDeadline(t, conn)
			if _, err := io.WriteString(conn, "early"); err != nil {
				t.Fatal(err)
			}
			resume(t, e)
			b := make([]byte, 10)
			if n, err := conn.Read(b); string(b[:n]) != "early" || err != nil {
				t.Errorf("%s: got %q, %v", address, b[:n], err)
			}
			if err := exchange(conn.(*net.UDPConn), []byte("ping")); err != nil {
				t.Errorf("%s: %v", address, err)
			}
		}
	})
}

// A first datagram that came before the socket asked for its control messages is answered, too.
func TestAdoptUDPWithADatagramThatWaits(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		for _, network := range []string{"udp4", "udp"} {
			inherited := listenUDP(t, network, ":0")
			_, number, _ := net.SplitHostPort(inherited.LocalAddr().String())
			conn, err := net.Dial("udp", "127.0.0.1:"+number)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			setDeadline(t, conn)
			if _, err := io.WriteString(conn, "first"); err != nil {
				t.Fatal(err)
			}
			listen := ":0"
			if network == "udp4" {
				listen = "0.0.0.0:0"
			}
			e := adopt(t, newEngine, echo.Spec{Protocol: echo.UDP, Listen: listen}, echo.Handed{Socket: fileOf(t, inherited)})
			resume(t, e)
			b := make([]byte, 10)
			if n, err := conn.Read(b); string(b[:n]) != "first" || err != nil {
				t.Errorf("%s: got %q, %v; %+v", network, b[:n], err, e.Stats())
			}
		}
	})
}

// connected answers two ends of a connection.
func connected(t *testing.T) (peer, ours *net.TCPConn) {
	t.Helper()
	l := listenTCP(t, "tcp", "127.0.0.1:0")
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	setDeadline(t, conn)
	other, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn), other
}

// A connection alone is an endpoint until it ends.
func TestAdoptConnection(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		peer, ours := connected(t)
		local := ours.LocalAddr().String()
		e := adopt(t, newEngine, echo.Spec{Protocol: echo.TCP, Listen: ":0"}, echo.Handed{Connections: []echo.HandedConnection{{Socket: fileOf(t, ours)}}})
		if e.Addr().String() != local {
			t.Errorf("is at %v, want %s", e.Addr(), local)
		}
		if _, err := io.WriteString(peer, "early"); err != nil {
			t.Fatal(err)
		}
		resume(t, e)
		if got, err := io.ReadAll(io.LimitReader(peer, 5)); string(got) != "early" || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
		roundTrip(t, peer, "hello")
		eventually(t, "all is counted", func() bool {
			s := e.Stats()
			return s.ConnectionsOpen == 1 && s.ConnectionsTotal == 1 && s.BytesOut == 10
		})
		if err := peer.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(peer); len(rest) > 0 || err != nil {
			t.Errorf("got %q, %v; want the end", rest, err)
		}
		<-e.Done()
		if err := e.Err(); err != nil {
			t.Error(err)
		}
		if err := e.Close(patient(t)); err != nil {
			t.Error(err)
		}
	})
}

// A Unix stream socket is echoed on, too.
func TestAdoptUnixConnection(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
		peer, err := net.FileConn(theirs)
		if err := errors.Join(err, theirs.Close()); err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		setDeadline(t, peer)
		e := adopt(t, newEngine, echo.Spec{Protocol: echo.TCP, Listen: ":0"}, echo.Handed{Connections: []echo.HandedConnection{{Socket: ours}}})
		resume(t, e)
		payload := randomBytes(1 << 20)
		go func() {
			_, _ = peer.Write(payload)
			_ = peer.(*net.UnixConn).CloseWrite()
		}()
		if got, err := io.ReadAll(peer); string(got) != string(payload) || err != nil {
			t.Errorf("got %d bytes, %v; want the %d that were sent", len(got), err, len(payload))
		}
		<-e.Done()
		if s := e.Stats(); s.BytesIn != uint64(len(payload)) || s.BytesOut != s.BytesIn || e.Err() != nil {
			t.Errorf("%+v, %v", s, e.Err())
		}
	})
}

// What is not the socket that the endpoint needs is refused, by its difference, and stays as it is.
func TestAdoptRefuses(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		_, ours := connected(t)
		connection := fileOf(t, ours)
		listener := fileOf(t, listenTCP(t, "tcp", "127.0.0.1:0"))
		udp := fileOf(t, listenUDP(t, "udp", "127.0.0.1:0"))
		dialled, err := net.Dial("udp", "127.0.0.1:9")
		if err != nil {
			t.Fatal(err)
		}
		connectedUDP := fileOf(t, dialled.(*net.UDPConn))
		all := fileOf(t, listenTCP(t, "tcp", ":0"))
		notASocket, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer notASocket.Close()
		six, e6 := net.Listen("tcp6", "[::1]:0")
		if e6 == nil {
			six.Close()
		}
		engine := newEngine()
		defer closeEngine(t, engine)
		tcp := func(listen string) echo.Spec { return echo.Spec{Protocol: echo.TCP, Listen: listen} }
		one := func(c echo.HandedConnection) echo.Handed { return echo.Handed{Connections: []echo.HandedConnection{c}} }
		for want, try := range map[string]struct {
			spec echo.Spec
			h    echo.Handed
		}{
			"neither a socket nor a connection":    {tcp(":0"), echo.Handed{}},
			"there is no socket":                   {echo.Spec{Protocol: echo.UDP, Listen: ":0"}, echo.Handed{}},
			"no TCP socket":                        {tcp("127.0.0.1:0"), echo.Handed{Socket: udp}},
			"no UDP socket":                        {echo.Spec{Protocol: echo.UDP, Listen: "127.0.0.1:0"}, echo.Handed{Socket: listener}},
			"is connected":                         {echo.Spec{Protocol: echo.UDP, Listen: "127.0.0.1:0"}, echo.Handed{Socket: connectedUDP}},
			"does not listen":                      {tcp("127.0.0.1:0"), echo.Handed{Socket: connection}},
			"is a listening socket":                {tcp(":0"), one(echo.HandedConnection{Socket: listener})},
			"no stream socket":                     {tcp(":0"), one(echo.HandedConnection{Socket: udp})},
			"no socket":                            {tcp(":0"), echo.Handed{Socket: notASocket}},
			"bound to 127.0.0.1, not to 127.0.0.2": {tcp("127.0.0.2:0"), echo.Handed{Socket: listener}},
			"bound to 127.0.0.1, not to all":       {tcp(":0"), echo.Handed{Socket: listener}},
			", not 1":                              {tcp("127.0.0.1:1"), echo.Handed{Socket: listener}},
			"IPV6_V6ONLY":                          {tcp("[::]:0"), echo.Handed{Socket: all}},
			"is to port":                           {tcp(":1"), one(echo.HandedConnection{Socket: connection})},
			"to 127.0.0.1, not to 127.0.0.2":       {tcp("127.0.0.2:0"), one(echo.HandedConnection{Socket: connection})},
			"pending, which are more than 32768":   {tcp(":0"), one(echo.HandedConnection{Socket: connection, Served: true, Pending: make([]byte, echo.MaxPending+1)})},
			"out of range":                         {tcp(":0"), one(echo.HandedConnection{Socket: connection, Served: true, Grace: -1})},
		} {
			if want == "IPV6_V6ONLY" && e6 != nil {
				continue
			}
			e, err := engine.Adopt(t.Context(), try.spec, try.h)
			if err == nil {
				t.Fatalf("%s: adopted %v", want, e.Addr())
			}
			if !errors.Is(err, echo.ErrWrongSocket) || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "cannot adopt "+try.spec.Listen+": ") {
				t.Errorf("got %v, want %s", err, want)
			}
		}
		// They are as good as before.
		for spec, f := range map[echo.Protocol]*os.File{echo.TCP: listener, echo.UDP: udp} {
			e := adoptIn(t, engine, echo.Spec{Protocol: spec, Listen: "127.0.0.1:0"}, echo.Handed{Socket: f})
			resume(t, e)
			expectAnswer(t, spec, e.Addr())
			if err := f.Close(); !errors.Is(err, os.ErrClosed) {
				t.Errorf("closing what was taken over: %v", err)
			}
		}
	})
}

// The sockets of endpoints and connections that are taken over count as others do.
func TestAdoptCountsSockets(t *testing.T) {
	forEachLimitedEngine(t, 2, func(t *testing.T, newEngine maker) {
		engine := newEngine()
		defer closeEngine(t, engine)
		handed := func() (h echo.Handed) {
			_, ours := connected(t)
			return echo.Handed{Connections: []echo.HandedConnection{{Socket: fileOf(t, ours), Served: true}}}
		}
		two := handed()
		two.Socket = fileOf(t, listenTCP(t, "tcp", "127.0.0.1:0"))
		e := adoptIn(t, engine, tcpSpec(echo.TCPOptions{}), two)
		if _, err := engine.Adopt(t.Context(), echo.Spec{Protocol: echo.TCP, Listen: ":0"}, handed()); !errors.Is(err, echo.ErrTooManyFiles) {
			t.Errorf("one more: %v", err)
		}
		e.Release()
		<-e.Done()
		alone := adoptIn(t, engine, echo.Spec{Protocol: echo.TCP, Listen: ":0"}, handed())
		adoptIn(t, engine, echo.Spec{Protocol: echo.TCP, Listen: ":0"}, handed())
		if _, err := engine.Listen(t.Context(), tcpSpec(echo.TCPOptions{})); !errors.Is(err, echo.ErrTooManyFiles) {
			t.Errorf("one more: %v", err)
		}
		alone.Release()
		listen(t, engine, tcpSpec(echo.TCPOptions{}))
	})
}
