//go:build unix

package echo_test

import (
	"fmt"
	"net"
	"runtime"
	"sync"
	"testing"

	"github.com/echod/echod/daemon/echo"
)

// BenchmarkHandOver is what it takes to hand over 1,000 endpoints of TCP with a connection each, and 1,000 of UDP, from one
// engine to another and on; by one goroutine and by one for each processor.
func BenchmarkHandOver(b *testing.B) {
	for name, portable := range map[string]bool{"net": true, "fast": false} {
		for _, workers := range []int{1, runtime.GOMAXPROCS(0)} {
			b.Run(fmt.Sprintf("%s/%d", name, workers), func(b *testing.B) { benchmarkHandOver(b, portable, workers) })
		}
	}
}

func benchmarkHandOver(b *testing.B, portable bool, workers int) {
	const many = 1000
	var engines [2]*echo.Engine
	for i := range engines {
		engines[i] = echo.New(echo.Options{Portable: portable})
		defer engines[i].Close(endedContext())
	}
	specs := []echo.Spec{{Protocol: echo.TCP, Listen: "127.0.0.1:0"}, {Protocol: echo.UDP, Listen: "127.0.0.1:0"}}
	endpoints := make([]*echo.Endpoint, 2*many)
	for i := range endpoints {
		e, err := engines[0].Listen(b.Context(), specs[i%2])
		if err != nil {
			b.Fatal(err)
		}
		endpoints[i] = e
		if i%2 == 1 {
			continue
		}
		conn, err := net.Dial("tcp", e.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		if err := tryRoundTrip(conn, "ping"); err != nil {
			b.Fatal(err)
		}
	}
	handed := make([]echo.Handed, len(endpoints))
	each := func(do func(i int) error) {
		var all sync.WaitGroup
		for w := range workers {
			all.Go(func() {
				for i := w; i < len(endpoints); i += workers {
					if err := do(i); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		all.Wait()
	}
	to := 0
	for b.Loop() {
		to = 1 - to
		each(func(i int) (err error) {
			handed[i], err = endpoints[i].Pause(b.Context())
			return err
		})
		others := make([]*echo.Endpoint, len(endpoints))
		each(func(i int) (err error) {
			others[i], err = engines[to].Adopt(b.Context(), specs[i%2], handed[i])
			return err
		})
		each(func(i int) error {
			endpoints[i].Release()
			return nil
		})
		each(func(i int) error { return others[i].Resume() })
		endpoints = others
	}
}
