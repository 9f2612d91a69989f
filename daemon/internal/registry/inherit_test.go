//go:build linux

package registry

import (
	"context"
	"log/slog"
	"net"
	"testing"

	"github.com/echod/echod/daemon/echo"
)

// TestAPassedSocketServesThoughItCannotBeKept has a start with a disk that takes nothing.
func TestAPassedSocketServesThoughItCannotBeKept(t *testing.T) {
	plain := net.ListenConfig{}
	plain.SetMultipathTCP(false)
	l, err := plain.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	store := &memory{records: map[string][]byte{}}
	store.setFail(true)
	r := New(Config{
		Engine: echo.New(echo.Options{}), Store: store, Log: slog.New(slog.DiscardHandler), DefaultHost: "127.0.0.1",
		Inherited: []Inherited{{Name: "web.socket", Protocol: echo.TCP, Listen: l.Addr().String(), Handed: echo.Handed{Socket: socket}}},
	})
	defer func() { _ = r.Close(ended()) }()
	if err := r.Restore(context.Background()); err != nil {
		t.Fatal(err)
	}
	if e, err := r.Get("web"); err != nil || e.State != Serving {
		t.Errorf("%+v, %v", e, err)
	}
}
