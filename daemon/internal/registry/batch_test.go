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
	"time"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/event"
)

// at is a TCP endpoint at an address.
func at(name, listen string) Definition {
	return Definition{Name: name, Protocol: echo.TCP, Listen: listen}
}

// occupy listens somewhere until the test ends.
func occupy(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// freeAddress answers a loopback address that nobody has now.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func portOf(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

// isFree says whether a TCP address can be had.
func isFree(address string) bool {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// where says what is wrong with which definition.
func where(err error) (all []string) {
	var problems *Problems
	if !errors.As(err, &problems) {
		return []string{fmt.Sprint("no problems, but: ", err)}
	}
	for _, p := range problems.List {
		all = append(all, fmt.Sprintf("%d.%s", p.Index, p.Field))
	}
	return all
}

func TestABatchIsAllOrNothing(t *testing.T) {
	store := &memory{records: map[string][]byte{}}
	r := newRegistry(t, store)
	ctx := context.Background()
	mustCreate(t, r, tcp("taken"))
	free, busy := freeAddress(t), occupy(t)
	for name, tc := range map[string]struct {
		defs []Definition
		want []string
		is   error
	}{
		"names":                   {[]Definition{at("new", free), tcp("taken"), tcp("twice"), tcp("twice")}, []string{"1.name", "3.name"}, ErrExists},
		"ports":                   {[]Definition{at("", busy), at("new", free), at("", "192.0.2.1:0")}, []string{"0.listen", "2.listen"}, echo.ErrAddressInUse},
		"a port twice":            {[]Definition{at("a", "localhost:"+portOf(free)), at("b", free), {Name: "c", Protocol: echo.UDP, Listen: free}}, []string{"1.listen"}, echo.ErrAddressInUse},
		"a listen that cannot be": {[]Definition{at("a", free), at("a-0", "127.0.0.1:0"), at("b", "224.0.0.1:0")}, []string{"2.listen"}, echo.ErrBadSpec},
		"nothing":                 {[]Definition{at("a", "nowhere"), at("b", "127.0.0.1:70000")}, []string{"0.listen", "1.listen"}, echo.ErrBadSpec},
	} {
		_, err := r.CreateAll(ctx, tc.defs, false)
		var problems *Problems
		if got := where(err); !slices.Equal(got, tc.want) || !errors.As(err, &problems) || !errors.Is(problems.List[0].Err, tc.is) {
			t.Errorf("%s: problems with %v, want %v: %v", name, got, tc.want, err)
		}
		if r.Len() != 1 || len(store.records) != 1 || !isFree(free) {
			t.Errorf("%s: it left something behind: %d endpoints, %d records, port free: %v", name, r.Len(), len(store.records), isFree(free))
		}
	}
	store.setFail(true)
	if _, err := r.CreateAll(ctx, []Definition{at("new", free), tcp("")}, false); !errors.Is(err, ErrNotStored) || r.Len() != 1 || !isFree(free) {
		t.Errorf("a batch that cannot be kept: %v, %d endpoints", err, r.Len())
	}
	store.setFail(false)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := r.CreateAll(gone, []Definition{at("new", free), tcp("")}, false); !errors.Is(err, context.Canceled) || r.Len() != 1 || !isFree(free) {
		t.Errorf("a batch whose caller has left: %v, %d endpoints", err, r.Len())
	}
	made, err := r.CreateAll(ctx, []Definition{at("new", free), tcp("")}, false)
	if err != nil || made[0].Address.String() != free || made[1].Name == "" || made[1].State != Serving || len(store.records) != 3 {
		t.Errorf("%+v, %v, %d records", made, err, len(store.records))
	}
}

func TestABatchThatIsOnlyCheckedTakesNothing(t *testing.T) {
	r := newRegistry(t, nil)
	mustCreate(t, r, tcp("taken"))
	ctx := context.Background()
	made, err := r.CreateAll(ctx, []Definition{tcp(""), tcp(""), tcp("a")}, true)
	if err != nil || r.Len() != 1 || made[0].Name == made[1].Name || made[2].State != Stopped || made[2].Address.IsValid() {
		t.Errorf("%+v, %v, %d endpoints", made, err, r.Len())
	}
	if _, err := r.CreateAll(ctx, []Definition{tcp("taken")}, true); !slices.Equal(where(err), []string{"0.name"}) {
		t.Error(err)
	}
}

func TestWhoTakesAnyPortComesLast(t *testing.T) {
	var all []*binding
	for i, listen := range []string{":0", "127.0.0.1:7", "127.0.0.1:0", "[::1]:70"} {
		all = append(all, &binding{index: i, spec: echo.Spec{Protocol: echo.TCP, Listen: listen}})
	}
	own, free := byPort(all)
	if !slices.Equal(own, []*binding{all[1], all[3]}) || !slices.Equal(free, []*binding{all[0], all[2]}) {
		t.Errorf("%v, %v", own, free)
	}
}

func TestADaemonThatStopsTakesNoBatch(t *testing.T) {
	r := New(Config{Engine: echo.New(echo.Options{})})
	if err := r.Close(ended()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.CreateAll(context.Background(), []Definition{tcp("a"), tcp("b")}, false); !errors.Is(err, ErrClosing) || r.Len() != 0 {
		t.Errorf("%v, %d endpoints", err, r.Len())
	}
}

func TestABatchIsToldWhenAllOfItIsThere(t *testing.T) {
	log := event.New(event.Limits{Events: 64})
	store := &memory{records: map[string][]byte{}}
	r := New(Config{Engine: echo.New(echo.Options{}), Store: store, Events: log})
	defer r.Close(ended())
	ctx := context.Background()
	if _, err := r.CreateAll(ctx, []Definition{tcp("a"), at("b", occupy(t))}, false); err == nil {
		t.Fatal("it went through")
	}
	if next := log.Append(event.Event{}); next != 1 {
		t.Errorf("a batch that failed wrote %d events", next-1)
	}
	if _, err := r.CreateAll(ctx, []Definition{tcp("a"), tcp("b")}, false); err != nil {
		t.Fatal(err)
	}
	if next := log.Append(event.Event{}); next != 4 {
		t.Errorf("a batch of two wrote %d events", next-2)
	}
}

func TestBatchesOfTheSameNamesDoNotMix(t *testing.T) {
	r := newRegistry(t, nil)
	var group sync.WaitGroup
	var mu sync.Mutex
	var won []int
	for i := range 8 {
		group.Go(func() {
			defs := []Definition{tcp("a"), tcp("b"), tcp("c")}
			if i%2 == 1 {
				slices.Reverse(defs)
			}
			for j := range defs {
				defs[j].Description = fmt.Sprint(i)
			}
			if _, err := r.CreateAll(context.Background(), defs, false); err == nil {
				mu.Lock()
				defer mu.Unlock()
				won = append(won, i)
			}
		})
	}
	group.Wait()
	found, _ := r.List("", 10, nil)
	if len(won) != 1 || len(found) != 3 {
		t.Fatalf("%d of the batches went through, %d endpoints are there", len(won), len(found))
	}
	for _, e := range found {
		if e.Description != fmt.Sprint(won[0]) {
			t.Errorf("%s is of batch %s, not %d", e.Name, e.Description, won[0])
		}
	}
}

func TestPurge(t *testing.T) {
	store := &memory{records: map[string][]byte{}}
	r := newRegistry(t, store)
	ctx := context.Background()
	made, err := r.CreateAll(ctx, []Definition{tcp("a-2"), tcp("a-1"), tcp("b-1"), tcp("a-3")}, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Stop(ctx, "a-3", 0); err != nil {
		t.Fatal(err)
	}
	ofA := func(e *Endpoint) bool { return strings.HasPrefix(e.Name, "a-") }
	store.setFail(true)
	if got, err := r.Purge(ctx, ofA, 0); !errors.Is(err, ErrNotStored) || got != nil || r.Len() != 4 || isFree(made[0].Address.String()) {
		t.Errorf("a purge that cannot be kept: %v, %v, %d endpoints", got, err, r.Len())
	}
	store.setFail(false)
	got, err := r.Purge(ctx, ofA, 0)
	if err != nil || !slices.Equal(got, []string{"a-1", "a-2", "a-3"}) || r.Len() != 1 || len(store.records) != 1 || !isFree(made[0].Address.String()) {
		t.Errorf("%v, %v, %d endpoints, %d records", got, err, r.Len(), len(store.records))
	}
	if got, err := r.Purge(ctx, ofA, 0); err != nil || len(got) != 0 {
		t.Errorf("again: %v, %v", got, err)
	}
}

// TestPurgesAndDeletesDoNotWaitForEachOther runs them against each other: each endpoint is deleted once.
func TestPurgesAndDeletesDoNotWaitForEachOther(t *testing.T) {
	r := newRegistry(t, nil)
	ctx := context.Background()
	for range 5 {
		var defs []Definition
		for i := range 40 {
			defs = append(defs, tcp(fmt.Sprintf("e-%d", i)))
		}
		if _, err := r.CreateAll(ctx, defs, false); err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		var mu sync.Mutex
		deleted := 0
		count := func(n int) { mu.Lock(); deleted += n; mu.Unlock() }
		for range 2 {
			group.Go(func() {
				names, err := r.Purge(ctx, func(*Endpoint) bool { return true }, 0)
				if err != nil {
					t.Error(err)
				}
				count(len(names))
			})
		}
		group.Go(func() {
			for i := range 40 {
				err := r.Delete(ctx, fmt.Sprintf("e-%d", i), "", 0)
				if err == nil {
					count(1)
				} else if !errors.Is(err, ErrNotFound) {
					t.Error(err)
				}
			}
		})
		group.Wait()
		if deleted != 40 || r.Len() != 0 {
			t.Fatalf("%d of 40 deleted, %d endpoints left", deleted, r.Len())
		}
	}
}

// TestAPurgeDrainsAllAtTheSameTime has more endpoints drain than one call closes at once, and ends the connections in turn:
// it goes on only if none of them waits for another.
func TestAPurgeDrainsAllAtTheSameTime(t *testing.T) {
	r := newRegistry(t, nil)
	ctx := context.Background()
	made, err := r.CreateAll(ctx, make40(), false)
	if err != nil {
		t.Fatal(err)
	}
	var peers []net.Conn
	for _, e := range made {
		conn, err := net.Dial("tcp", e.Address.String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		peers = append(peers, conn)
	}
	purged := make(chan error, 1)
	go func() {
		_, err := r.Purge(ctx, func(*Endpoint) bool { return true }, time.Hour)
		purged <- err
	}()
	for _, e := range made { // all of them, while every connection is open
		for {
			now, err := r.Get(e.Name)
			if err != nil {
				t.Fatal(err)
			}
			if now.State == Draining {
				break
			}
		}
	}
	for _, conn := range peers {
		conn.Close()
	}
	if err := <-purged; err != nil || r.Len() != 0 {
		t.Errorf("%v, %d endpoints left", err, r.Len())
	}
}

func make40() (defs []Definition) {
	for i := range 40 {
		defs = append(defs, tcp(fmt.Sprintf("e-%02d", i)))
	}
	return defs
}
