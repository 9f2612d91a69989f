//go:build linux

package torture_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// liveness is the phase without faults: within goodWithin, all that is meant to serve serves and echoes, all that is stopped
// does not, what the daemon has counted is what was sent, and it says of itself that it is well.
func (w *world) liveness() {
	w.t.Helper()
	w.churn.Lock()
	defer w.churn.Unlock()
	began := time.Now()
	why := ""
	if !w.await(goodWithin, func() bool { why = w.notGood(); return why == "" }) && !w.over() {
		w.fail("life %d: not all is well %v after the last fault: %s", w.life().number, goodWithin, why)
	}
	if w.over() {
		return
	}
	w.history.add(event{Who: "judge", What: "all is well", Life: w.life().number, Took: time.Since(began).String()})
	w.settle()
	w.everyoneAnswers()
	w.traffic.Lock()
	defer w.traffic.Unlock()
	w.conserves()
}

// notGood says what is not as it is meant to be.
func (w *world) notGood() string {
	by, err := w.listAll()
	if err != nil {
		return err.Error()
	}
	for _, c := range w.owners() {
		for _, name := range c.m.is().names() {
			e := by[c.name][name]
			if c.m.is()[name].serve && e.GetState() != echov1.Endpoint_SERVING {
				return fmt.Sprintf("%s is %v: %s", name, e.GetState(), e.GetStateReason())
			}
		}
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		resp, err := w.life().rest.client.Get(w.life().rest.url + path)
		if err != nil {
			return err.Error()
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Sprintf("%s: %s: %s", path, resp.Status, text)
		}
	}
	return ""
}

// everyoneAnswers uses each endpoint.
func (w *world) everyoneAnswers() {
	w.t.Helper()
	flow, taken := uint64(w.life().number)<<48, map[string]bool{}
	for _, c := range w.owners() {
		for name, it := range c.m.is() {
			if it.serve {
				flow++
				taken[it.seen.Address] = true
				if err := w.use(it.seen, w.life().sent[name], flow, 1000, patience); err != nil {
					w.fail("life %d: %s at %s should serve: %v", w.life().number, name, it.seen.Address, err)
				}
			}
		}
	}
	for _, c := range w.owners() {
		for name, it := range c.m.is() {
			if it.serve || it.seen.Address == "" || taken[it.seen.Address] || it.def.Protocol != echov1.Protocol_TCP {
				continue
			}
			conn, err := net.DialTimeout("tcp", it.seen.Address, patience)
			if err == nil {
				conn.Close()
			}
			if !errors.Is(err, syscall.ECONNREFUSED) {
				w.fail("life %d: %s at %s is stopped, and answers: %v", w.life().number, name, it.seen.Address, err)
			}
		}
	}
}

// conserves compares what the daemon has counted with what was sent. The caller has quiet.
func (w *world) conserves() {
	w.t.Helper()
	why := ""
	if !w.await(patience, func() bool { why = w.unbalanced(); return why == "" }) && !w.over() {
		w.fail("life %d: the counters: %s", w.life().number, why)
	}
}

// dropsOfDatagrams are the reasons for which a datagram that was read is not answered. What the kernel threw away was not read.
var dropsOfDatagrams = []string{
	"source_denied", "source_rate", "source_port_zero", "source_not_unicast", "source_is_service", "source_is_endpoint", "hops_spent",
	"destination_not_unicast",
}

// unbalanced says which counters do not add up: what came in has gone out, or has been dropped for a reason.
func (w *world) unbalanced() string {
	by, err := w.listAll()
	if err != nil {
		return err.Error()
	}
	for _, c := range w.owners() {
		for name, e := range by[c.name] {
			n := e.Counters
			switch e.Protocol {
			case echov1.Protocol_UDP:
				dropped := n.Errors["write"]
				for _, reason := range dropsOfDatagrams {
					dropped += n.Drops[reason]
				}
				if n.DatagramsIn != n.DatagramsOut+dropped {
					return fmt.Sprintf("%s: %d datagrams in, %d out, and %d dropped: %v", name, n.DatagramsIn, n.DatagramsOut, dropped, n)
				}
			case echov1.Protocol_TCP:
				if n.BytesIn != n.BytesOut+n.Drops["not_taken"]+n.Drops["rest"] {
					return fmt.Sprintf("%s: %d bytes in, %d out, dropped %v, errors %v", name, n.BytesIn, n.BytesOut, n.Drops, n.Errors)
				}
			}
			if sent := w.life().sent[name]; sent != nil {
				if bytes := sent.bytes.Load(); n.BytesIn != bytes || n.BytesOut != bytes {
					return fmt.Sprintf("%s: %d bytes were sent, and %d came in and %d went out", name, bytes, n.BytesIn, n.BytesOut)
				}
				if datagrams := sent.datagrams.Load(); n.DatagramsIn != datagrams || n.DatagramsOut != datagrams {
					return fmt.Sprintf("%s: %d datagrams were sent, and %d came in and %d went out", name, datagrams, n.DatagramsIn, n.DatagramsOut)
				}
			}
		}
	}
	return ""
}

// warnings is what the daemon says that an operator should know.
func (w *world) warnings() string {
	info, err := w.info()
	if err != nil {
		w.fail("no info: %v", err)
		return ""
	}
	return strings.Join(info.Warnings, "\n")
}

func (w *world) info() (*echov1.Info, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return w.life().info(ctx)
}
