package registry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/event"
)

// want makes endpoints of definitions without etags.
func want(defs ...Definition) (all []Wanted) {
	for _, def := range defs {
		all = append(all, Wanted{Definition: def})
	}
	return all
}

func everything(*Endpoint) bool { return true }

// done writes changes as "+a ~b =c !d -e".
func done(changes []Change) string {
	sign := map[Action]string{ActionNone: "=", ActionCreate: "+", ActionUpdate: "~", ActionReplace: "!", ActionDelete: "-"}
	var all []string
	for _, c := range changes {
		all = append(all, sign[c.Action]+c.Name)
	}
	return strings.Join(all, " ")
}

func mustApply(t *testing.T, r *Registry, wanted []Wanted, opt ApplyOptions, does string) {
	t.Helper()
	changes, err := r.Apply(context.Background(), wanted, opt)
	if err != nil || done(changes) != does {
		t.Fatalf("apply does %q, want %q: %v", done(changes), does, err)
	}
}

func mustGet(t *testing.T, r *Registry, name string) Endpoint {
	t.Helper()
	e, err := r.Get(name)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// peer is a connection to an endpoint that has echoed a byte.
type peer struct{ net.Conn }

func connect(t *testing.T, e Endpoint) peer {
	t.Helper()
	conn, err := net.Dial("tcp", e.Address.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	p := peer{conn}
	if err := p.echo(); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p peer) echo() error {
	if _, err := p.Write([]byte("x")); err != nil {
		return err
	}
	_, err := p.Read(make([]byte, 1))
	return err
}

func TestASecondApplyTouchesNothing(t *testing.T) {
	store := &memory{records: map[string][]byte{}}
	log := event.New(event.Limits{Events: 64})
	r := New(Config{Engine: echo.New(echo.Options{}), Store: store, Events: log})
	defer r.Close(ended())
	lab := want(tcp("a"), at("b", ":0"), Definition{Name: "c", Protocol: echo.UDP, Labels: map[string]string{"k": "v"}})
	mustApply(t, r, lab, ApplyOptions{}, "+a +b +c")
	before := mustGet(t, r, "a")
	open := connect(t, before)
	counted := mustGet(t, r, "a").Stats.BytesIn
	revision := log.Append(event.Event{})
	store.setFail(true) // nothing is written

	mustApply(t, r, lab, ApplyOptions{Prune: everything, Replace: true}, "=a =b =c")
	lab[0].Listen, lab[1].Listen = before.Address.String(), fmt.Sprintf(":%d", mustGet(t, r, "b").Address.Port())
	lab[0].ETag = before.ETag
	mustApply(t, r, lab, ApplyOptions{}, "=a =b =c")
	lab[0].Listen = "localhost:0"
	mustApply(t, r, lab, ApplyOptions{}, "=a =b =c")

	after := mustGet(t, r, "a")
	if after.UID != before.UID || !after.UpdateTime.Equal(before.UpdateTime) || after.ETag != before.ETag || after.Listen != before.Listen || after.Stats.BytesIn != counted {
		t.Errorf("it was %+v and is %+v", before, after)
	}
	if err := open.echo(); err != nil {
		t.Errorf("the open connection: %v", err)
	}
	if next := log.Append(event.Event{}); next != revision+1 {
		t.Errorf("%d events", next-revision-1)
	}
}

func TestAnUpdateKeepsConnections(t *testing.T) {
	r := newRegistry(t, nil)
	mustApply(t, r, want(tcp("a"), tcp("b")), ApplyOptions{}, "+a +b")
	before := mustGet(t, r, "a")
	open := connect(t, before)
	changed := tcp("a")
	changed.TCP.MaxConnections, changed.Description = 1, "new"
	mustApply(t, r, want(changed, tcp("b")), ApplyOptions{}, "~a =b")
	after := mustGet(t, r, "a")
	if after.UID != before.UID || after.Address != before.Address || after.Description != "new" || !after.UpdateTime.After(before.UpdateTime) {
		t.Errorf("it was %+v and is %+v", before, after)
	}
	if err := open.echo(); err != nil {
		t.Errorf("the open connection: %v", err)
	}
	second, err := net.Dial("tcp", after.Address.String())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if (peer{second}).echo() == nil {
		t.Error("a connection over the new limit is served")
	}
}

// TestPortsChangeHands has two endpoints swap their ports, and a third take the port of one that is deleted.
func TestPortsChangeHands(t *testing.T) {
	store := &memory{records: map[string][]byte{}}
	r := newRegistry(t, store)
	mustApply(t, r, want(tcp("a"), tcp("b"), tcp("c")), ApplyOptions{}, "+a +b +c")
	a, b, c := mustGet(t, r, "a"), mustGet(t, r, "b"), mustGet(t, r, "c")
	cut := connect(t, a)
	lab := want(at("a", b.Address.String()), at("b", a.Address.String()), at("d", c.Address.String()))
	if _, err := r.Apply(context.Background(), lab, ApplyOptions{Prune: everything}); !slices.Equal(where(err), []string{"0.listen", "1.listen"}) {
		t.Errorf("without Replace: %v", err)
	}
	if err := cut.echo(); err != nil {
		t.Errorf("a refused apply cut a connection: %v", err)
	}
	mustApply(t, r, lab, ApplyOptions{Prune: everything, Replace: true}, "!a !b +d -c")
	for name, was := range map[string]Endpoint{"a": b, "b": a, "d": c} {
		now := mustGet(t, r, name)
		if now.Address != was.Address || now.State != Serving {
			t.Errorf("%s is %s at %v, want %v", name, now.Reason, now.Address, was.Address)
		}
		connect(t, now)
	}
	if now := mustGet(t, r, "a"); now.UID != a.UID || !now.CreateTime.Equal(a.CreateTime) || now.Stats.BytesIn != 3 {
		t.Errorf("a is %+v, want uid %s and what it had counted", now, a.UID)
	}
	if cut.echo() == nil {
		t.Error("a connection outlived its endpoint's socket")
	}
	if _, kept := store.records["c"]; kept || len(store.records) != 3 {
		t.Errorf("records: %v", store.records)
	}
}

// TestThePortIsKeptElsewhere has endpoints with a port that was given move to another host and to every address.
func TestThePortIsKeptElsewhere(t *testing.T) {
	r := newRegistry(t, nil)
	mustApply(t, r, want(tcp("a")), ApplyOptions{}, "+a")
	port := mustGet(t, r, "a").Address.Port()
	for _, listen := range []string{"0.0.0.0:0", ":0", "127.0.0.1:0"} {
		mustApply(t, r, want(at("a", listen)), ApplyOptions{Replace: true}, "!a")
		if now := mustGet(t, r, "a"); now.Address.Port() != port || now.Listen != listen {
			t.Errorf("%s: it listens on %s, %v; the port was %d", listen, now.Listen, now.Address, port)
		}
		mustApply(t, r, want(at("a", listen)), ApplyOptions{Replace: true}, "=a")
	}
	if _, err := r.Stop(context.Background(), "a", 0); err != nil {
		t.Fatal(err)
	}
	mustApply(t, r, want(at("a", "127.0.0.2:0")), ApplyOptions{}, "~a")
	if now, err := r.Start(context.Background(), "a"); err != nil || now.Address.String() != fmt.Sprintf("127.0.0.2:%d", port) {
		t.Errorf("started at %v, %v", now.Address, err)
	}
}

// TestAPortElsewhereIsInNobodysWay: an endpoint that goes keeps its connections where the apply fails, if it has the port that is
// taken, but on another address.
func TestAPortElsewhereIsInNobodysWay(t *testing.T) {
	r := newRegistry(t, nil)
	busy := occupy(t)
	_, port, err := net.SplitHostPort(busy)
	if err != nil {
		t.Fatal(err)
	}
	mustApply(t, r, want(at("elsewhere", "127.0.0.2:"+port)), ApplyOptions{}, "+elsewhere")
	open := connect(t, mustGet(t, r, "elsewhere"))
	if _, err := r.Apply(t.Context(), want(at("new", busy)), ApplyOptions{Prune: everything}); err == nil {
		t.Fatal("a port that is taken was bound")
	}
	if err := open.echo(); err != nil {
		t.Errorf("cut for nothing: %v", err)
	}
}

// TestAFailedApplyLeavesAllAsItWas has one fail at each of its points, and looks at everything that it had changed by then.
func TestAFailedApplyLeavesAllAsItWas(t *testing.T) {
	busy := occupy(t)
	for name, tc := range map[string]struct {
		extra   []Wanted
		fail    bool
		left    bool
		is      error
		survive bool // connections of what had to make room
	}{
		"a port of somebody else's": {extra: want(at("z", busy)), is: echo.ErrAddressInUse, survive: true},
		"it cannot be kept":         {fail: true, is: ErrNotStored},
		"its caller has left":       {left: true, is: context.Canceled, survive: true},
	} {
		t.Run(name, func(t *testing.T) {
			store := &memory{records: map[string][]byte{}}
			log := event.New(event.Limits{Events: 64})
			r := New(Config{Engine: echo.New(echo.Options{}), Store: store, Events: log})
			defer r.Close(ended())
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			mustApply(t, r, want(tcp("stays"), tcp("moves"), tcp("goes")), ApplyOptions{}, "+stays +moves +goes")
			before, _ := r.List("", 10, nil)
			goes, moves := mustGet(t, r, "goes"), mustGet(t, r, "moves")
			steady, shaken := connect(t, mustGet(t, r, "stays")), connect(t, goes)
			records := fmt.Sprint(store.records)
			free := freeAddress(t)
			revision := log.Append(event.Event{})

			changed := tcp("stays")
			changed.TCP.MaxConnections = 1
			store.setFail(tc.fail)
			if tc.left {
				cancel()
			}
			lab := append(want(changed, at("moves", goes.Address.String()), at("new", moves.Address.String()), at("other", free)), tc.extra...)
			_, err := r.Apply(ctx, lab, ApplyOptions{Prune: everything, Replace: true})
			var problems *Problems
			if errors.As(err, &problems) {
				err = problems.List[0].Err
			}
			if !errors.Is(err, tc.is) {
				t.Fatal(err)
			}
			after, _ := r.List("", 10, nil)
			for i, e := range after {
				was := before[i]
				if e.Name != was.Name || e.UID != was.UID || e.Address != was.Address || e.ETag != was.ETag || e.State != Serving || !e.UpdateTime.Equal(was.UpdateTime) {
					t.Errorf("it was %+v and is %+v", was, e)
				}
				connect(t, e)
				connect(t, e) // the old limit holds
			}
			if len(after) != 3 || fmt.Sprint(store.records) != records || !isFree(free) {
				t.Errorf("%d endpoints, port free: %v, records: %v", len(after), isFree(free), store.records)
			}
			if next := log.Append(event.Event{}); next != revision+1 {
				t.Errorf("%d events", next-revision-1)
			}
			if err := steady.echo(); err != nil {
				t.Errorf("the connection of what was updated: %v", err)
			}
			if err := shaken.echo(); (err == nil) != tc.survive {
				t.Errorf("the connection of what was in the way: %v", err)
			}
			if got := mustGet(t, r, "goes").Stats.ConnectionsTotal; got != 3 {
				t.Errorf("%d connections counted, want 3", got)
			}
		})
	}
}

// thief is a store that has somebody take an address while it is asked to write, and fails.
type thief struct {
	*memory
	address string
	took    net.Listener
}

func (s *thief) Write(kind string, puts map[string][]byte, deletes []string) error {
	if s.address == "" {
		return s.memory.Write(kind, puts, deletes)
	}
	var err error
	if s.took, err = net.Listen("tcp", s.address); err != nil {
		return err
	}
	return errDisk
}

// TestWhatCannotComeBackIsFailed has an endpoint of every address move to one, somebody take another of its port, and the
// store fail then: there is no way back.
func TestWhatCannotComeBackIsFailed(t *testing.T) {
	store := &thief{memory: &memory{records: map[string][]byte{}}}
	log := event.New(event.Limits{Events: 64})
	r := New(Config{Engine: echo.New(echo.Options{}), Store: store, Events: log})
	defer r.Close(ended())
	withoutRetries(r)
	ctx := context.Background()
	mustApply(t, r, want(at("a", ":0"), tcp("b")), ApplyOptions{}, "+a +b")
	a, b := mustGet(t, r, "a"), mustGet(t, r, "b")
	connect(t, b)
	revision := log.Append(event.Event{})
	store.address = fmt.Sprintf("127.0.0.2:%d", a.Address.Port())
	lab := want(at("a", fmt.Sprintf("127.0.0.1:%d", a.Address.Port())), at("c", b.Address.String()))
	_, err := r.Apply(ctx, lab, ApplyOptions{Replace: true, Prune: everything})
	if !errors.Is(err, ErrNotStored) || !errors.Is(err, echo.ErrAddressInUse) || !strings.Contains(err.Error(), `"a" could not come back where it was and is FAILED`) {
		t.Fatal(err)
	}
	if now := mustGet(t, r, "a"); now.State != Failed || !strings.Contains(now.Reason, "in use") || now.ETag != a.ETag || now.Address != a.Address {
		t.Errorf("a is %+v", now)
	}
	if now := mustGet(t, r, "b"); now.State != Serving || now.Address != b.Address || now.Stats.BytesIn != 1 {
		t.Errorf("b is %+v", now)
	}
	if next := log.Append(event.Event{}); next != revision+2 {
		t.Errorf("%d events, want the one of a's state", next-revision-1)
	}
	// Once the way is free, what has failed is bound again.
	store.took.Close()
	store.address = ""
	changes, err := r.Apply(ctx, want(at("a", ":0"), tcp("b")), ApplyOptions{})
	if err != nil || done(changes) != "~a =b" || !changes[0].Revive || changes[1].Revive {
		t.Errorf("%+v, %v", changes, err)
	}
	if now := mustGet(t, r, "a"); now.State != Serving || now.Reason != "" || now.Address != a.Address || !now.UpdateTime.Equal(a.UpdateTime) {
		t.Errorf("a is %+v", now)
	}
	if next := log.Append(event.Event{}); next != revision+4 {
		t.Errorf("%d events, want the one of a's state", next-revision-3)
	}
}

func TestStoppedStaysStopped(t *testing.T) {
	store := &memory{records: map[string][]byte{}}
	r := newRegistry(t, store)
	ctx := context.Background()
	mustApply(t, r, want(tcp("a")), ApplyOptions{}, "+a")
	a, err := r.Stop(ctx, "a", 0)
	if err != nil {
		t.Fatal(err)
	}
	mustApply(t, r, want(tcp("a")), ApplyOptions{}, "=a")
	mustApply(t, r, want(at("a", ":0")), ApplyOptions{}, "~a")
	now := mustGet(t, r, "a")
	if now.State != Stopped || now.Listen != ":0" || now.Address.Port() != a.Address.Port() || !strings.Contains(string(store.records["a"]), `"running":false`) {
		t.Errorf("%+v, %s", now, store.records["a"])
	}
	// The port that TCP gave it may be somebody else's over UDP.
	changed := at("a", ":0")
	changed.Protocol = echo.UDP
	mustApply(t, r, want(changed), ApplyOptions{}, "~a")
	if now := mustGet(t, r, "a"); now.State != Stopped || now.Protocol != echo.UDP || now.Address.IsValid() {
		t.Errorf("%+v", now)
	}
	mustApply(t, r, nil, ApplyOptions{Prune: everything}, "-a")
}

// TestApplyWaitsForItsTurn has an endpoint change after an apply has chosen to delete it, and before it has its turn.
func TestApplyWaitsForItsTurn(t *testing.T) {
	r := newRegistry(t, nil)
	ctx := context.Background()
	mustCreate(t, r, tcp("a"))
	mustCreate(t, r, tcp("b"))
	updated := changeLater(t, r, "b")
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := r.Apply(gone, want(tcp("a"), tcp("b"), tcp("c")), ApplyOptions{}); !errors.Is(err, context.Canceled) || r.Len() != 2 {
		t.Errorf("a caller that has left: %v, %d endpoints", err, r.Len())
	}
	if _, err := r.Apply(ctx, want(tcp("a"), tcp("b"), tcp("c")), ApplyOptions{ValidateOnly: true}); err != nil {
		t.Errorf("a plan waits for nobody: %v", err)
	}
	mustApply(t, r, want(tcp("a")), ApplyOptions{Prune: updated}, "=a")
	if now := mustGet(t, r, "b"); now.Description != "changed" {
		t.Errorf("b is %+v", now)
	}
}

// changeLater has an update of an endpoint under way, which goes through once the filter that is answered has found it. The
// filter takes what has no description, and the update gives it one.
func changeLater(t *testing.T, r *Registry, name string) (undescribed func(*Endpoint) bool) {
	t.Helper()
	inside, leave := make(chan struct{}), make(chan struct{})
	updating := make(chan error, 1)
	go func() {
		_, err := r.Update(context.Background(), name, UpdateOptions{}, func(d Definition) (Definition, error) {
			close(inside)
			<-leave
			d.Description = "changed"
			return d, nil
		})
		updating <- err
	}()
	t.Cleanup(func() {
		if err := <-updating; err != nil {
			t.Error(err)
		}
	})
	<-inside
	var once sync.Once
	return func(e *Endpoint) bool {
		if e.Name == name {
			defer once.Do(func() { close(leave) })
		}
		return e.Description == ""
	}
}

func TestAPurgeLeavesWhatMatchesNoMore(t *testing.T) {
	r := newRegistry(t, nil)
	mustCreate(t, r, tcp("a"))
	mustCreate(t, r, tcp("b"))
	names, err := r.Purge(context.Background(), changeLater(t, r, "b"), 0)
	if err != nil || !slices.Equal(names, []string{"a"}) || mustGet(t, r, "b").Description != "changed" {
		t.Errorf("%v, %v", names, err)
	}
}

// TestTwinsAreToldBeforeAnythingIsCut has two endpoints want the port of one that goes.
func TestTwinsAreToldBeforeAnythingIsCut(t *testing.T) {
	r := newRegistry(t, nil)
	mustCreate(t, r, tcp("a"))
	a := mustGet(t, r, "a")
	open := connect(t, a)
	_, err := r.Apply(context.Background(), want(at("b", a.Address.String()), at("c", "localhost:"+portOf(a.Address.String()))), ApplyOptions{Prune: everything})
	if !slices.Equal(where(err), []string{"1.listen"}) {
		t.Error(err)
	}
	if err := open.echo(); err != nil {
		t.Errorf("the open connection: %v", err)
	}
	if _, err := r.CreateAll(context.Background(), []Definition{at("b", ":7"), at("c", ":7")}, true); !slices.Equal(where(err), []string{"1.listen"}) {
		t.Errorf("a batch that is only checked: %v", err)
	}
}

func TestAReplacementNeedsNoMoreSocketsThanThereAre(t *testing.T) {
	r := New(Config{Engine: echo.New(echo.Options{MaxSockets: 2})})
	defer r.Close(ended())
	mustApply(t, r, want(tcp("a"), tcp("b")), ApplyOptions{}, "+a +b")
	mustApply(t, r, want(at("a", "127.0.0.2:0"), at("b", "127.0.0.2:0")), ApplyOptions{Replace: true}, "!a !b")
	_, err := r.Apply(context.Background(), want(tcp("c")), ApplyOptions{})
	var problems *Problems
	if !errors.As(err, &problems) || !errors.Is(problems.List[0].Err, echo.ErrTooManyFiles) || r.Len() != 2 {
		t.Errorf("%v, %d endpoints", err, r.Len())
	}
}

// leaver is a store whose caller leaves while it is asked to write, which fails.
type leaver struct {
	*memory
	leave func()
}

func (s *leaver) Write(kind string, puts map[string][]byte, deletes []string) error {
	if s.leave == nil {
		return s.memory.Write(kind, puts, deletes)
	}
	s.leave()
	return errDisk
}

func TestWhoLeavesKeepsNothingFromComingBack(t *testing.T) {
	store := &leaver{memory: &memory{records: map[string][]byte{}}}
	r := newRegistry(t, store)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	mustApply(t, r, want(tcp("a")), ApplyOptions{}, "+a")
	a := mustGet(t, r, "a")
	store.leave = cancel
	if _, err := r.Apply(ctx, want(at("b", a.Address.String())), ApplyOptions{Prune: everything}); !errors.Is(err, ErrNotStored) {
		t.Error(err)
	}
	connect(t, mustGet(t, r, "a"))
}

func TestAppliesOfTheSameLabTakeTurns(t *testing.T) {
	r := newRegistry(t, nil)
	results := make(chan string, 8)
	for i := range cap(results) {
		go func() {
			lab := want(tcp("a"), tcp("b"), tcp("c"))
			if i%2 == 1 {
				slices.Reverse(lab)
			}
			changes, err := r.Apply(context.Background(), lab, ApplyOptions{Prune: everything})
			slices.SortFunc(changes, func(a, b Change) int { return strings.Compare(a.Name, b.Name) })
			results <- fmt.Sprint(done(changes), err)
		}()
	}
	seen := map[string]int{}
	for range cap(results) {
		seen[<-results]++
	}
	if seen["+a +b +c<nil>"] != 1 || seen["=a =b =c<nil>"] != cap(results)-1 {
		t.Errorf("%v", seen)
	}
}

// TestWhatIsDeletedWhileAnApplyBegins: it is pruned already, and nothing is left where it was.
func TestWhatIsDeletedWhileAnApplyBegins(t *testing.T) {
	r := newRegistry(t, nil)
	mustApply(t, r, want(tcp("a"), tcp("b"), tcp("c")), ApplyOptions{}, "+a +b +c")
	opt := ApplyOptions{Prune: func(e *Endpoint) bool {
		if err := r.Delete(t.Context(), "b", "", 0); err != nil && !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
		return e.Name != "c"
	}}
	mustApply(t, r, want(tcp("a")), opt, "=a")
	if names := r.Matching(everything); !slices.Equal(names, []string{"a", "c"}) || r.Len() != 2 {
		t.Errorf("there are %v", names)
	}
}

// TestAListSeesAnApplyWhole: never a part of what is done as one change.
func TestAListSeesAnApplyWhole(t *testing.T) {
	r := newRegistry(t, nil)
	lab := func(version int) (wanted []Wanted) {
		for i := range 200 {
			def := tcp(fmt.Sprintf("e-%03d", i))
			def.Labels = map[string]string{"version": fmt.Sprint(version)}
			wanted = append(wanted, Wanted{Definition: def})
		}
		return wanted
	}
	apply := func(version int) {
		if _, err := r.Apply(t.Context(), lab(version), ApplyOptions{}); err != nil {
			t.Error(err)
		}
	}
	apply(0)
	var applies sync.WaitGroup
	defer applies.Wait()
	end := make(chan struct{})
	applies.Go(func() {
		defer close(end)
		for i := range 50 {
			apply(i)
		}
	})
	for {
		select {
		case <-end:
			return
		default:
		}
		found, _ := r.List("", 1000, nil)
		for _, e := range found {
			if got, first := e.Labels["version"], found[0].Labels["version"]; got != first {
				t.Fatalf("a list of %d has %s of version %s, and %s of version %s", len(found), found[0].Name, first, e.Name, got)
			}
		}
	}
}

func TestApplyRefusesATwin(t *testing.T) {
	r := newRegistry(t, nil)
	_, err := r.Apply(context.Background(), want(tcp("a"), tcp("b"), tcp("a")), ApplyOptions{})
	if !slices.Equal(where(err), []string{"2.name"}) || r.Len() != 0 {
		t.Errorf("%v, %d endpoints", err, r.Len())
	}
}

func TestApplyTellsEachChange(t *testing.T) {
	log := event.New(event.Limits{Events: 64})
	r := New(Config{Engine: echo.New(echo.Options{}), Events: log})
	defer r.Close(ended())
	mustApply(t, r, want(tcp("a"), tcp("b"), tcp("c"), tcp("d")), ApplyOptions{}, "+a +b +c +d")
	changed := tcp("b")
	changed.Description = "new"
	mustApply(t, r, want(tcp("a"), changed, at("c", "127.0.0.2:0"), tcp("e")), ApplyOptions{Replace: true, Prune: everything}, "=a ~b !c +e -d")
	if next := log.Append(event.Event{}); next != 4+4+1 {
		t.Errorf("%d events, want 8", next-1)
	}
}
