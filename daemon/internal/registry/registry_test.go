package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/echod/echod/daemon/echo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errDisk = errors.New("no space left on device")

// memory is a store that can be told to fail.
type memory struct {
	mu      sync.Mutex
	records map[string][]byte
	fail    bool
}

func (s *memory) Put(kind, key string, value []byte) error {
	return s.Write(kind, map[string][]byte{key: value}, nil)
}

func (s *memory) Delete(kind, key string) error { return s.Write(kind, nil, []string{key}) }

func (s *memory) Write(kind string, puts map[string][]byte, deletes []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail {
		return errDisk
	}
	for _, key := range deletes {
		delete(s.records, memoryPrefix(kind)+key)
	}
	for key, value := range puts {
		s.records[memoryPrefix(kind)+key] = value
	}
	return nil
}

// memoryPrefix is what stands before the keys of a kind in a memory's records: nothing before those of endpoints.
func memoryPrefix(kind string) string {
	if kind == recordKind {
		return ""
	}
	return kind + "/"
}

func (s *memory) Each(kind string, fn func(string, []byte) error) error {
	for at, value := range s.records {
		prefix, key, other := strings.Cut(at, "/")
		if !other {
			prefix, key = recordKind, at
		}
		if prefix != kind {
			continue
		}
		if err := fn(key, value); err != nil {
			return err
		}
	}
	return nil
}

// get answers a record.
func (s *memory) get(key string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.records[key]
}

// keys are what is in it, in order.
func (s *memory) keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.records))
}

func (s *memory) setFail(fail bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fail
}

func newRegistry(t *testing.T, store Store) *Registry {
	t.Helper()
	r := New(Config{Engine: echo.New(echo.Options{}), Store: store})
	t.Cleanup(func() {
		if err := r.Close(ended()); err != nil {
			t.Error(err)
		}
	})
	return r
}

func mustCreate(t *testing.T, r *Registry, def Definition) Endpoint {
	t.Helper()
	e, err := r.Create(context.Background(), def, false)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func tcp(name string) Definition { return Definition{Name: name, Protocol: echo.TCP} }

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

func noChange(d Definition) (Definition, error) { return d, nil }

func TestPortZeroThatWasGivenStaysGiven(t *testing.T) {
	r := newRegistry(t, nil)
	ctx := context.Background()
	for _, listen := range []string{"127.0.0.1:0", ":0", "0.0.0.0:0", ""} {
		def := tcp("")
		def.Listen = listen
		made := mustCreate(t, r, def)
		if made.Address.Port() == 0 {
			t.Fatalf("%q: bound at %v", listen, made.Address)
		}
		stopped, err := r.Stop(ctx, made.Name, 0)
		if err != nil || stopped.State != Stopped || stopped.Address != made.Address {
			t.Errorf("%q: stopped as %+v, %v", listen, stopped, err)
		}
		started, err := r.Start(ctx, made.Name)
		if err != nil || started.State != Serving || started.Address != made.Address {
			t.Errorf("%q: started as %+v, %v; was at %v", listen, started, err, made.Address)
		}
	}
}

func TestStopFreesThePortAndStartNeedsIt(t *testing.T) {
	r := newRegistry(t, nil)
	ctx := context.Background()
	e := mustCreate(t, r, tcp("a"))
	if _, err := r.Stop(ctx, "a", 0); err != nil {
		t.Fatal(err)
	}
	thief, err := net.Listen("tcp", e.Address.String())
	if err != nil {
		t.Fatalf("the port of a stopped endpoint is not free: %v", err)
	}
	if _, err := r.Start(ctx, "a"); !errors.Is(err, echo.ErrAddressInUse) {
		t.Errorf("start while somebody has the port: %v", err)
	}
	if now, _ := r.Get("a"); now.State != Stopped {
		t.Errorf("after a start that failed: %v", now.State)
	}
	thief.Close()
	if _, err := r.Start(ctx, "a"); err != nil {
		t.Error(err)
	}
}

func TestCountersOutliveAStop(t *testing.T) {
	r := newRegistry(t, nil)
	ctx := context.Background()
	e := mustCreate(t, r, tcp("a"))
	for range 2 {
		conn, err := net.Dial("tcp", e.Address.String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprint(conn, "12345"); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if _, err := r.Stop(ctx, "a", 0); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Start(ctx, "a"); err != nil {
			t.Fatal(err)
		}
	}
	now, err := r.Get("a")
	if err != nil || now.Stats.BytesIn != 10 || now.Stats.BytesOut != 10 || now.Stats.ConnectionsTotal != 2 || now.Stats.LastActivity.IsZero() {
		t.Errorf("%+v, %v", now.Stats, err)
	}
}

func TestANameIsTakenWhileItIsBeingCreated(t *testing.T) {
	r := newRegistry(t, nil)
	var group sync.WaitGroup
	var mu sync.Mutex
	made := 0
	for range 20 {
		group.Go(func() {
			_, err := r.Create(context.Background(), tcp("same"), false)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				made++
			} else if !errors.Is(err, ErrExists) {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if made != 1 || r.Len() != 1 {
		t.Errorf("%d creates of one name went through, %d endpoints are there", made, r.Len())
	}
}

func TestNothingChangesWhenItCannotBeKept(t *testing.T) {
	store := &memory{records: map[string][]byte{}}
	r := newRegistry(t, store)
	ctx := context.Background()
	e := mustCreate(t, r, tcp("a"))
	kept := string(store.records["a"])
	store.setFail(true)

	address := "127.0.0.1:0"
	if _, err := r.Create(ctx, Definition{Name: "b", Protocol: echo.TCP, Listen: address}, false); !errors.Is(err, ErrNotStored) || !errors.Is(err, errDisk) {
		t.Errorf("create: %v", err)
	}
	if _, err := r.Update(ctx, "a", UpdateOptions{}, func(d Definition) (Definition, error) { d.Description = "new"; return d, nil }); !errors.Is(err, ErrNotStored) {
		t.Errorf("update: %v", err)
	}
	if _, err := r.Stop(ctx, "a", 0); !errors.Is(err, ErrNotStored) {
		t.Errorf("stop: %v", err)
	}
	if err := r.Delete(ctx, "a", "", 0); !errors.Is(err, ErrNotStored) {
		t.Errorf("delete: %v", err)
	}
	if now, err := r.Get("a"); err != nil || now.State != Serving || now.Description != "" || r.Len() != 1 {
		t.Errorf("after changes that were refused: %+v, %v, %d endpoints", now, err, r.Len())
	}
	if string(store.records["a"]) != kept {
		t.Errorf("the record was %s and is %s", kept, store.records["a"])
	}
	conn, err := net.Dial("tcp", e.Address.String())
	if err != nil {
		t.Fatalf("it does not serve any more: %v", err)
	}
	conn.Close()

	store.setFail(false)
	if _, err := r.Stop(ctx, "a", 0); err != nil {
		t.Fatal(err)
	}
	store.setFail(true)
	if _, err := r.Start(ctx, "a"); !errors.Is(err, ErrNotStored) {
		t.Errorf("start: %v", err)
	}
	if l, err := net.Listen("tcp", e.Address.String()); err != nil {
		t.Errorf("a start that was refused keeps the port: %v", err)
	} else {
		l.Close()
	}
}

func TestRestore(t *testing.T) {
	store := &memory{records: map[string][]byte{}}
	before := New(Config{Engine: echo.New(echo.Options{}), Store: store})
	ctx := context.Background()
	serving, stopped, lost := mustCreate(t, before, tcp("serving")), mustCreate(t, before, tcp("stopped")), mustCreate(t, before, tcp("lost"))
	if _, err := before.Stop(ctx, "stopped", 0); err != nil {
		t.Fatal(err)
	}
	if err := before.Close(ended()); err != nil {
		t.Fatal(err)
	}
	thief, err := net.Listen("tcp", lost.Address.String())
	if err != nil {
		t.Fatal(err)
	}
	defer thief.Close()

	r := newRegistry(t, store)
	if err := r.Restore(ctx); err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		Endpoint
		state State
	}{{serving, Serving}, {stopped, Stopped}, {lost, Failed}} {
		got, err := r.Get(want.Name)
		if err != nil || got.State != want.state || got.Address != want.Address || got.UID != want.UID || got.ETag != want.ETag || (got.Reason != "") != (want.state == Failed) {
			t.Errorf("%s came back as %+v, %v", want.Name, got, err)
		}
	}
}

func TestARecordThatCannotBeReadIsNotPassedOver(t *testing.T) {
	r := newRegistry(t, &memory{records: map[string][]byte{"a": []byte("{")}})
	if err := r.Restore(context.Background()); err == nil {
		t.Error("Restore took a record that is no JSON")
	}
}

// TestTheRecordsForm holds the names that a later daemon must still understand.
func TestTheRecordsForm(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	got, err := json.Marshal(record{
		Definition: Definition{
			Name: "a", Protocol: echo.TCP, Listen: ":0", Labels: map[string]string{"k": "v"}, Description: "d",
			TCP: TCPOptions{
				OneShot: true, IdleTimeout: time.Second, StallTimeout: 2 * time.Second, MaxConnections: 2, MaxBytes: 3, SocketBufferBytes: 4096,
			},
			UDP:     UDPOptions{NoLoopGuard: true, MaxSourceDatagrams: 4, MaxSourceBytes: 5},
			Sources: Sources{Allow: prefixes("192.0.2.0/24"), Deny: prefixes("2001:db8::/32", "192.0.2.1/32")},
			TTL:     time.Minute, Session: "s",
		},
		UID: "u", Address: netip.MustParseAddrPort("[::]:7"), Running: true, CreateTime: at, UpdateTime: at, ExpireTime: at.Add(time.Minute),
	})
	want := `{"name":"a","protocol":"TCP","listen":":0","labels":{"k":"v"},"description":"d",` +
		`"tcp":{"oneShot":true,"idleTimeoutNanos":1000000000,"stallTimeoutNanos":2000000000,"maxConnections":2,"maxBytes":3,"socketBufferBytes":4096},` +
		`"udp":{"noLoopGuard":true,"maxSourceDatagramsPerSecond":4,"maxSourceBytesPerSecond":5},` +
		`"sources":{"allow":["192.0.2.0/24"],"deny":["2001:db8::/32","192.0.2.1/32"]},"ttlNanos":60000000000,"session":"s","uid":"u","address":"[::]:7","running":true,` +
		`"createTime":"2026-01-02T03:04:05.000000006Z","updateTime":"2026-01-02T03:04:05.000000006Z","expireTime":"2026-01-02T03:05:05.000000006Z"}`
	if err != nil || string(got) != want {
		t.Errorf("a record is\n%s, %v; want\n%s", got, err, want)
	}
}

// TestARecordOfBeforeThereWereLimits has an endpoint come back that was kept when it could have none of them.
func TestARecordOfBeforeThereWereLimits(t *testing.T) {
	old := `{"name":"a","protocol":"TCP","listen":"127.0.0.1:0","tcp":{"idleTimeoutNanos":1000000000,"maxConnections":2},"udp":{},` +
		`"uid":"u","address":"127.0.0.1:0","running":true,"createTime":"2026-01-02T03:04:05Z","updateTime":"2026-01-02T03:04:05Z"}`
	r := newRegistry(t, &memory{records: map[string][]byte{"a": []byte(old)}})
	if err := r.Restore(context.Background()); err != nil {
		t.Fatal(err)
	}
	got, err := r.Get("a")
	if want := (TCPOptions{IdleTimeout: time.Second, MaxConnections: 2}); err != nil || got.State != Serving || got.TCP != want {
		t.Errorf("it came back as %+v, %v", got, err)
	}
}

// limited is an endpoint with every limit that one of the protocol can have.
func limited(protocol echo.Protocol) Definition {
	def := Definition{
		Name: "a", Protocol: protocol, Listen: "127.0.0.1:0",
		Sources: Sources{Allow: prefixes("127.0.0.0/8"), Deny: prefixes("127.1.0.0/16")},
	}
	if protocol == echo.TCP {
		def.TCP = TCPOptions{
			OneShot: true, IdleTimeout: 1, StallTimeout: 2, MaxConnections: 3, MaxBytes: 1 << 40, SocketBufferBytes: 4096,
		}
	} else {
		def.UDP = UDPOptions{NoLoopGuard: true, MaxSourceDatagrams: 4, MaxSourceBytes: 1 << 41}
	}
	return def
}

func TestTheEngineIsToldOfEveryLimit(t *testing.T) {
	for protocol, want := range map[echo.Protocol]echo.Spec{
		echo.TCP: {TCP: echo.TCPOptions{
			OneShot: true, IdleTimeout: 1, StallTimeout: 2, MaxConnections: 3, MaxBytes: 1 << 40, SocketBufferBytes: 4096,
		}},
		echo.UDP: {UDP: echo.UDPOptions{NoLoopGuard: true, MaxSourceDatagrams: 4, MaxSourceBytes: 1 << 41}},
	} {
		want.Protocol, want.Listen = protocol, "127.0.0.1:0"
		want.Allow, want.Deny = prefixes("127.0.0.0/8"), prefixes("127.1.0.0/16")
		want.Tag = tag{name: "a"}
		if got := spec(limited(protocol), netip.AddrPort{}); !reflect.DeepEqual(got, want) {
			t.Errorf("%v: the engine gets %+v, want %+v", protocol, got, want)
		}
	}
}

// TestEveryLimitIsInTheETag changes one limit after the other, and wants an etag of its own for each.
func TestEveryLimitIsInTheETag(t *testing.T) {
	seen := map[string]string{}
	for name, change := range map[string]func(*Definition){
		"none":               func(*Definition) {},
		"StallTimeout":       func(d *Definition) { d.TCP.StallTimeout++ },
		"MaxBytes":           func(d *Definition) { d.TCP.MaxBytes++ },
		"SocketBufferBytes":  func(d *Definition) { d.TCP.SocketBufferBytes++ },
		"MaxSourceDatagrams": func(d *Definition) { d.UDP.MaxSourceDatagrams++ },
		"MaxSourceBytes":     func(d *Definition) { d.UDP.MaxSourceBytes++ },
		"Allow":              func(d *Definition) { d.Sources.Allow = nil },
		"Deny":               func(d *Definition) { d.Sources.Deny = nil },
	} {
		def := limited(echo.TCP)
		change(&def)
		if same, taken := seen[def.etag()]; taken {
			t.Errorf("%s and %s have the same etag", name, same)
		}
		seen[def.etag()] = name
	}
	none, empty := tcp("a"), tcp("a")
	empty.Sources = Sources{Allow: []netip.Prefix{}, Deny: []netip.Prefix{}}
	if none.etag() != empty.etag() {
		t.Error("an empty list and none have different etags")
	}
}

func TestWhatGetAnswersIsACopy(t *testing.T) {
	r := newRegistry(t, nil)
	def := limited(echo.UDP)
	def.Labels = map[string]string{"k": "v"}
	e := mustCreate(t, r, def)
	e.Labels["k"], e.Sources.Allow[0], e.Sources.Deny[0] = "x", netip.Prefix{}, netip.Prefix{}
	now, err := r.Get("a")
	if err != nil || now.Labels["k"] != "v" || !now.Sources.Allow[0].IsValid() || !now.Sources.Deny[0].IsValid() {
		t.Errorf("who changed an answer changed the endpoint: %+v, %v", now.Definition, err)
	}
}

func TestUpdateRefusesWhatItMust(t *testing.T) {
	r := newRegistry(t, nil)
	ctx := context.Background()
	e := mustCreate(t, r, tcp("a"))
	set := func(change func(*Definition)) func(Definition) (Definition, error) {
		return func(d Definition) (Definition, error) { change(&d); return d, nil }
	}
	mine := errors.New("mine")
	for name, tc := range map[string]struct {
		opt    UpdateOptions
		change func(Definition) (Definition, error)
		want   error
	}{
		"listen":     {change: set(func(d *Definition) { d.Listen = ":0" }), want: ErrNeedsStop},
		"protocol":   {change: set(func(d *Definition) { d.Protocol = echo.UDP }), want: ErrNeedsStop},
		"bad listen": {change: set(func(d *Definition) { d.Listen = "nowhere" }), want: echo.ErrBadSpec},
		"stale":      {opt: UpdateOptions{ETag: "old"}, change: noChange, want: ErrStale},
		"its own":    {change: func(d Definition) (Definition, error) { return d, mine }, want: mine},
	} {
		if _, err := r.Update(ctx, "a", tc.opt, tc.change); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	if now, _ := r.Get("a"); now.ETag != e.ETag || !now.UpdateTime.Equal(e.UpdateTime) {
		t.Errorf("after updates that were refused: %+v", now)
	}
	if _, err := r.Update(ctx, "a", UpdateOptions{ETag: e.ETag}, set(func(d *Definition) { d.Description = "x" })); err != nil {
		t.Error(err)
	}
}

func TestConcurrentUpdatesLoseNothing(t *testing.T) {
	r := newRegistry(t, nil)
	mustCreate(t, r, tcp("a"))
	var group sync.WaitGroup
	for i := range 50 {
		group.Go(func() {
			_, err := r.Update(context.Background(), "a", UpdateOptions{}, func(d Definition) (Definition, error) {
				if d.Labels == nil {
					d.Labels = map[string]string{}
				}
				d.Labels[fmt.Sprint(i)] = "x"
				return d, nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if now, _ := r.Get("a"); len(now.Labels) != 50 {
		t.Errorf("%d labels, want 50", len(now.Labels))
	}
}

func TestWhoWaitsForADeletedEndpointIsTold(t *testing.T) {
	r := newRegistry(t, nil)
	ctx := context.Background()
	mustCreate(t, r, tcp("a"))
	inside, leave := make(chan struct{}), make(chan struct{})
	updating := make(chan error, 1)
	go func() {
		_, err := r.Update(ctx, "a", UpdateOptions{}, func(d Definition) (Definition, error) {
			close(inside)
			<-leave
			return d, nil
		})
		updating <- err
	}()
	<-inside
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := r.Stop(gone, "a", 0); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that left while waiting: %v", err)
	}
	both := make(chan error, 2)
	for range 2 {
		go func() { both <- r.Delete(ctx, "a", "", 0) }()
	}
	close(leave)
	if err := <-updating; err != nil {
		t.Error(err)
	}
	first, second := <-both, <-both
	if (first == nil) == (second == nil) || !errors.Is(errors.Join(first, second), ErrNotFound) {
		t.Errorf("two deletes: %v and %v; want one nil, one ErrNotFound", first, second)
	}
}

func TestListPages(t *testing.T) {
	r := newRegistry(t, nil)
	for _, name := range []string{"c", "a", "b"} {
		mustCreate(t, r, tcp(name))
	}
	first, more := r.List("", 2, nil)
	if len(first) != 2 || !more || first[0].Name != "a" || first[1].Name != "b" {
		t.Errorf("first page: %v, %v", first, more)
	}
	rest, more := r.List("b", 2, nil)
	if len(rest) != 1 || more || rest[0].Name != "c" {
		t.Errorf("second page: %v, %v", rest, more)
	}
	none, more := r.List("", 2, func(*Endpoint) bool { return false })
	if len(none) != 0 || more {
		t.Errorf("no match: %v, %v", none, more)
	}
}

// TestARefusedDeleteCutsNothing has an endpoint drain while others ask for what they do not get.
func TestARefusedDeleteCutsNothing(t *testing.T) {
	r := newRegistry(t, nil)
	ctx := context.Background()
	e := mustCreate(t, r, tcp("a"))
	peer, err := net.Dial("tcp", e.Address.String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	echoes := func() error {
		if _, err := peer.Write([]byte("x")); err != nil {
			return err
		}
		_, err := peer.Read(make([]byte, 1))
		return err
	}
	if err := echoes(); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() { _, err := r.Stop(ctx, "a", time.Hour); stopped <- err }()
	for {
		if now, err := r.Get("a"); err != nil || now.State == Draining {
			break
		}
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := r.Delete(gone, "a", "stale", 0); err == nil {
		t.Error("a delete with a stale etag went through")
	}
	if _, err := r.Stop(gone, "a", time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("a stop by a caller that has left: %v", err)
	}
	if err := echoes(); err != nil {
		t.Errorf("the open connection: %v", err)
	}
	if err := r.Delete(ctx, "a", e.ETag, 0); err != nil {
		t.Error(err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestAListenWrittenOtherwiseIsTheSame(t *testing.T) {
	r := newRegistry(t, nil)
	e := mustCreate(t, r, tcp("a"))
	for _, listen := range []string{"127.0.0.1:0", "localhost:0", e.Address.String()} {
		got, err := r.Update(context.Background(), "a", UpdateOptions{}, func(d Definition) (Definition, error) { d.Listen = listen; return d, nil })
		if err != nil || got.Address != e.Address || got.State != Serving {
			t.Errorf("%s: %+v, %v", listen, got, err)
		}
	}
}
