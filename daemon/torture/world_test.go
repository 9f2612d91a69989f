//go:build linux

package torture_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

const (
	clientsOverGRPC = 2
	clientsOverREST = 2
	// maxFailures bounds what is told; the first is what counts.
	maxFailures = 10
	// goodWithin bounds how long everything may take to be as it should be once there are no faults. What failed is tried
	// again after a minute at the latest.
	goodWithin = 90 * time.Second
)

// world is a daemon, those who use it, and what is known of it.
type world struct {
	t      *testing.T
	dir    string // logs, socket, ready file
	disk   *disk  // nil: the state is in dir, as noDisk says why
	noDisk string
	// binary is what the daemon is started from, and original the echod to be put there.
	binary, original string
	host             string // where endpoints listen: an address that nothing else uses
	history          *history

	// churn is held for reading by who changes endpoints, traffic by who uses them; whoever has one alone has quiet.
	churn, traffic sync.RWMutex
	now            atomic.Pointer[life] // nil: no daemon runs
	lives          int                  // of the goroutine that injects faults, like up and down
	closed         bool                 // churn and traffic are held until a daemon is up
	clients        []*client
	anchors        *client
	acks, answers  atomic.Uint64
	hits           atomic.Uint64 // of failpoints
	// refusals are reasons for which calls may be refused at present.
	refusals atomic.Pointer[[]string]
	users    sync.WaitGroup
	ending   atomic.Bool
	failures atomic.Int64
	counts   struct{ calls, bytes, datagrams, connections atomic.Uint64 }
}

func (w *world) life() *life { return w.now.Load() }

// over says that the run ends, or has failed.
func (w *world) over() bool { return w.ending.Load() || w.failures.Load() > 0 }

// fail tells what is wrong, from any goroutine, and ends the run.
func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	text := fmt.Sprintf(format, args...)
	w.history.add(event{Who: "judge", What: "failure", Error: text})
	if w.failures.Add(1) <= maxFailures {
		w.t.Error(text)
	}
}

// idle is what a user does when there is nothing to use.
func (w *world) idle() { time.Sleep(time.Millisecond) }

func (w *world) acked() {
	w.acks.Add(1)
	w.counts.calls.Add(1)
}

// await waits for something that takes no longer than a time, and says whether it has come; it ends with the run.
func (w *world) await(within time.Duration, is func() bool) bool {
	for deadline := time.Now().Add(within); !is(); time.Sleep(time.Millisecond) {
		if w.failures.Load() > 0 || time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// awaitChanges waits until clients have had so many answers, or the daemon has ended.
func (w *world) awaitChanges(n int) {
	from, l := w.acks.Load(), w.life()
	if !w.await(patience, func() bool { return w.acks.Load() >= from+uint64(n) || l.hasEnded() }) && !w.over() {
		w.fail("clients had %d answers in %v, not %d", w.acks.Load()-from, patience, n)
	}
}

// populate makes the clients and the anchors.
func (w *world) populate(seed uint64) {
	for i := range clientsOverGRPC + clientsOverREST {
		w.clients = append(w.clients, &client{
			name: fmt.Sprintf("c%d", i), rest: i >= clientsOverGRPC, w: w, rnd: rand.New(rand.NewPCG(seed, uint64(i+1))), m: newModel(),
			port: 10_000 + portsEach*i,
		})
	}
	w.anchors = &client{name: "anchor", w: w, rnd: rand.New(rand.NewPCG(seed, 0)), m: newModel()}
}

// owners are all who own endpoints.
func (w *world) owners() []*client { return append([]*client{w.anchors}, w.clients...) }

// start begins the first life, and has the clients and users begin.
func (w *world) start() {
	w.t.Helper()
	if err := w.up(launch{}); err != nil {
		w.t.Fatal(err)
	}
	for _, c := range w.clients {
		w.users.Go(c.work)
	}
	w.startTraffic()
}

// down ends the daemon by end, which returns when it is gone, and has all others wait until it is up again.
func (w *world) down(end func(*life)) {
	l := w.life()
	if !l.mortal.Swap(true) && l.hasEnded() {
		w.fail("life %d of the daemon ended by itself (%#x):\n%s", l.number, l.p.Load().status, l.lastWords())
	}
	end(l)
	<-l.p.Load().ended
	if text := l.words(); strings.Contains(text, "DATA RACE") {
		w.fail("life %d of the daemon had a race:\n%s", l.number, text)
	}
	if !w.closed {
		w.churn.Lock()
		w.traffic.Lock()
		w.closed = true
	}
	l.end()
	w.now.Store(nil)
}

// up starts a daemon, compares, and lets the others go on. The caller has called down, or it is the first. The error is errDied
// when the process ended before all that was done; then up may be called again.
func (w *world) up(o launch) error {
	w.t.Helper()
	l, err := w.launch(o)
	if err != nil {
		return err
	}
	l.mortal.Store(len(o.env) > 0)
	w.now.Store(l)
	if o.check != nil {
		o.check()
	} else if by, err := w.listAll(); err == nil {
		w.settleBy(by)
	} else if l.mortal.Load() && w.excused(l) {
		return fmt.Errorf("%w, or soon after", errDied)
	} else {
		w.fail("cannot list: %v", err)
	}
	if o.keepsOut != nil && *o.keepsOut {
		return nil
	}
	w.ensureAnchors()
	if w.closed {
		w.closed = false
		w.traffic.Unlock()
		w.churn.Unlock()
	}
	return nil
}

// launch starts a daemon, and does no more.
func (w *world) launch(o launch) (*life, error) {
	w.lives++
	o.number, o.dir = w.lives, w.dir
	if o.binary == "" {
		o.binary = w.binary
	}
	if o.state == "" {
		o.state = w.stateDir()
	}
	l, err := start(o)
	if err != nil {
		if !errors.Is(err, errDied) {
			w.fail("%v", err)
		}
		return nil, err
	}
	l.sent = map[string]*sums{}
	for _, a := range anchorNames() {
		l.sent[a] = &sums{}
	}
	w.history.add(event{Who: "daemon", What: "ready", Life: l.number})
	return l, nil
}

func (w *world) stateDir() string {
	if w.disk != nil {
		return filepath.Join(w.disk.dir, "state")
	}
	return filepath.Join(w.dir, "state")
}

// listAll is all endpoints of the daemon, by owner and name.
func (w *world) listAll() (map[string]map[string]*echov1.Endpoint, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	all, err := list(ctx, w.life().endpoints(), "")
	if err != nil {
		return nil, err
	}
	by := map[string]map[string]*echov1.Endpoint{}
	for _, c := range w.owners() {
		by[c.name] = map[string]*echov1.Endpoint{}
	}
	for name, e := range all {
		owner, _, _ := strings.Cut(name, "-")
		if by[owner] == nil {
			return nil, fmt.Errorf("%s is nobody's endpoint", name)
		}
		by[owner][name] = e
	}
	return by, nil
}

// settle compares all that is there with what was acknowledged. The caller has the churn alone.
func (w *world) settle() {
	w.t.Helper()
	by, err := w.listAll()
	if err != nil {
		w.fail("cannot list: %v", err)
		return
	}
	w.settleBy(by)
}

// settleBy is settle by a list that is there already.
func (w *world) settleBy(by map[string]map[string]*echov1.Endpoint) {
	w.t.Helper()
	for _, c := range w.owners() {
		if wrong := c.m.settle(by[c.name]); wrong != "" {
			w.fail("life %d: %s: what is there is not what was acknowledged: %s", w.life().number, c.name, wrong)
		}
	}
}

// resync takes what is there for what is: after damage for which the daemon has said that changes are missing.
func (w *world) resync(by map[string]map[string]*echov1.Endpoint) {
	for _, c := range w.owners() {
		state := endpoints{}
		for name, e := range by[c.name] {
			def := &echov1.Endpoint{
				Name: name, Protocol: e.Protocol, Listen: e.Listen, Labels: e.Labels, Description: e.Description, Tcp: e.Tcp, Udp: e.Udp, Ttl: e.Ttl,
			}
			def = proto.CloneOf(def)
			state[name] = wanted{def: def, serve: e.State != echov1.Endpoint_STOPPED}
		}
		c.m.may = []endpoints{state.learn(by[c.name])}
	}
}

// quiet calls f while nobody changes or uses anything.
func (w *world) quiet(f func()) {
	w.churn.Lock()
	defer w.churn.Unlock()
	w.traffic.Lock()
	defer w.traffic.Unlock()
	f()
}

// end lets everybody leave, and stops the daemon.
func (w *world) end() {
	w.ending.Store(true)
	if w.closed {
		w.now.Store(nil)
		w.traffic.Unlock()
		w.churn.Unlock()
	}
	w.users.Wait()
	if l := w.life(); l != nil {
		l.kill()
	}
}

// report leaves what a failure can be understood by in a directory that stays.
func (w *world) report(schedule []string) {
	dir, err := os.MkdirTemp("", "echod-torture-failed-")
	if err != nil {
		w.t.Error(err)
		return
	}
	if err := w.history.dump(filepath.Join(dir, "history.jsonl")); err != nil {
		w.t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "faults"), []byte(strings.Join(schedule, "\n")+"\n"), 0o600); err != nil {
		w.t.Error(err)
	}
	for from, to := range map[string]string{w.dir: "echod", w.stateDir(): "state"} {
		if err := os.CopyFS(filepath.Join(dir, to), regular(from)); err != nil {
			w.t.Log("cannot keep all files: ", err)
		}
	}
	w.t.Logf("the history, the daemon's logs and its state are in %s", dir)
}
