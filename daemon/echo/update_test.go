package echo_test

import (
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/echod/echod/daemon/echo"
)

func update(t *testing.T, e *echo.Endpoint, o echo.TCPOptions) {
	t.Helper()
	if err := e.Update(tcpSpec(o)); err != nil {
		t.Fatal(err)
	}
}

func TestUpdateNeedsRebind(t *testing.T) {
	forEachProtocol(t, func(t *testing.T, newEngine maker, s echo.Spec) {
		other := echo.UDP
		if s.Protocol == echo.UDP {
			other = echo.TCP
		}
		e := open(t, newEngine, s)
		port := strconv.Itoa(int(e.Addr().Port()))
		for _, same := range []string{"127.0.0.1:0", "localhost:0", "[::ffff:127.0.0.1]:0", "localhost:" + port} {
			if err := e.Update(echo.Spec{Protocol: s.Protocol, Listen: same}); err != nil {
				t.Errorf("%s: %v", same, err)
			}
		}
		// The port was asked for by number last: to have any other is a change now.
		for _, different := range []echo.Spec{
			{Protocol: other, Listen: "127.0.0.1:" + port},
			{Protocol: s.Protocol, Listen: "127.0.0.2:" + port},
			{Protocol: s.Protocol, Listen: ":" + port},
			{Protocol: s.Protocol, Listen: "127.0.0.1:1"},
			{Protocol: s.Protocol, Listen: "127.0.0.1:0"},
		} {
			if err := e.Update(different); !errors.Is(err, echo.ErrNeedsRebind) {
				t.Errorf("%+v: got %v, want ErrNeedsRebind", different, err)
			}
		}
		if err := e.Update(echo.Spec{Protocol: s.Protocol, Listen: "nowhere"}); !errors.Is(err, echo.ErrBadSpec) {
			t.Errorf("got %v, want ErrBadSpec", err)
		}
		expectAnswer(t, s.Protocol, e.Addr())
	})
}

func TestUpdateIdleTimeoutOfOpenConnections(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		e := open(t, newEngine, tcpSpec(echo.TCPOptions{}))
		silent, stuck := dial(t, e), dial(t, e)
		roundTrip(t, silent, "hello")
		writing := make(chan error, 1)
		go func() {
			_, err := stuck.Write(make([]byte, 64<<20)) // never read back
			writing <- err
		}()
		eventually(t, "both are open", func() bool { return e.Stats().ConnectionsOpen == 2 })

		update(t, e, echo.TCPOptions{IdleTimeout: time.Hour})
		roundTrip(t, silent, "not dropped")
		update(t, e, echo.TCPOptions{IdleTimeout: 50 * time.Millisecond})
		if rest, err := io.ReadAll(silent); len(rest) != 0 || err != nil {
			t.Errorf("silent connection: got %q, %v; want the end", rest, err)
		}
		if err := <-writing; !isReset(err) {
			t.Errorf("stuck connection: got %v, want a reset", err)
		}
		eventually(t, "both are counted", func() bool { return e.Stats().Drops[echo.DropIdleTimeout] == 2 })
	})
}

func TestUpdateMaxConnectionsDropsNobody(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		e := open(t, newEngine, tcpSpec(echo.TCPOptions{}))
		first, second := dial(t, e), dial(t, e)
		roundTrip(t, first, "one")
		roundTrip(t, second, "two")
		update(t, e, echo.TCPOptions{MaxConnections: 1})
		expectClosed(t, dial(t, e))
		roundTrip(t, first, "still one")
		roundTrip(t, second, "still two")
		update(t, e, echo.TCPOptions{MaxConnections: 3})
		roundTrip(t, dial(t, e), "three")
	})
}

func TestUpdateOneShotIsForConnectionsToCome(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		e := open(t, newEngine, tcpSpec(echo.TCPOptions{}))
		before := dial(t, e)
		roundTrip(t, before, "one")
		update(t, e, echo.TCPOptions{OneShot: true})
		roundTrip(t, before, "two")
		after := dial(t, e)
		roundTrip(t, after, "three")
		if rest, err := io.ReadAll(after); len(rest) != 0 || err != nil {
			t.Errorf("got %q, %v; want the end", rest, err)
		}
		roundTrip(t, before, strings.Repeat("four", 1000))
	})
}
