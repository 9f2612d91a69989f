package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/netwatch"
)

// bulkWorkers bounds how many sockets one call, or a start, binds or closes at once.
const bulkWorkers = 16

// Problem is what is wrong with one of several definitions.
type Problem struct {
	Index int    // of the definition among those that were given
	Field string // of the definition, as the contract has it: name, protocol, listen, network_namespace, interface, session, etag
	Err   error
}

// Problems is why several endpoints cannot be had as one change: nothing was changed. All that is known is in it, in the
// order of the definitions.
type Problems struct {
	List []Problem
	// Lost says of each endpoint that had to give its socket up and could not get it back that it is Failed now, and why.
	Lost []error
}

func (p *Problems) Error() string {
	texts := make([]string, 0, len(p.List)+len(p.Lost))
	for _, one := range p.List {
		texts = append(texts, fmt.Sprintf("%s of definition %d: %v", one.Field, one.Index, one.Err))
	}
	for _, err := range p.Lost {
		texts = append(texts, err.Error())
	}
	return strings.Join(texts, "; ")
}

func (p *Problems) add(index int, field string, err error) {
	p.List = append(p.List, Problem{index, field, err})
}

// orNil answers the problems in order, or nil if there are none.
func (p *Problems) orNil() error {
	if len(p.List) == 0 {
		return nil
	}
	slices.SortStableFunc(p.List, func(a, b Problem) int { return a.Index - b.Index })
	return p
}

// addTwins tells of sockets of which only one can be bound.
func (p *Problems) addTwins(sockets []*binding) {
	seen := make(map[string]bool, len(sockets))
	for _, b := range sockets {
		place, one := b.place()
		if one && seen[place] {
			p.add(b.index, "listen", fmt.Errorf("cannot bind %s: %w by another endpoint of this request", b.spec.Listen, echo.ErrAddressInUse))
		}
		seen[place] = true
	}
}

// binding is a socket that a change of several endpoints needs.
type binding struct {
	index int // of the definition
	spec  echo.Spec
	live  *echo.Endpoint // nil until it is bound
	seen  netwatch.Sight // what it stands on
	err   error          // why it is not
	// optional says that the change is done without it, too: what is to have it has Failed, and is to be no other than it was.
	optional bool
}

// place says where the socket is to be, and whether there can be only one.
func (b *binding) place() (place string, one bool) {
	address, err := echo.ParseListen(b.spec.Listen)
	where := b.spec
	where.Listen = address.String()
	where.TCP, where.UDP, where.Allow, where.Deny, where.Tag = echo.TCPOptions{}, echo.UDPOptions{}, nil, nil, nil // what is left is where
	return fmt.Sprintf("%+v", where), err == nil && address.Port != 0
}

// bindAll binds what is not bound yet, and notes in each why it cannot be. Those that want a port of their own come first:
// one that takes any would take theirs. The error is one of the whole: the caller has left, or the daemon stops.
func (r *Registry) bindAll(ctx context.Context, all []*binding) error {
	own, free := byPort(all)
	for _, some := range [][]*binding{own, free} {
		each(len(some), func(i int) {
			if b := some[i]; b.live == nil && ctx.Err() == nil {
				b.live, b.seen, b.err = r.bind(ctx, b.spec)
			}
		})
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for _, b := range all {
		if errors.Is(b.err, ErrClosing) {
			return b.err
		}
	}
	return nil
}

// byPort tells those that want a port of their own from those that take any.
func byPort(all []*binding) (own, free []*binding) {
	for _, b := range all {
		if address, err := echo.ParseListen(b.spec.Listen); err == nil && address.Port == 0 {
			free = append(free, b)
		} else {
			own = append(own, b)
		}
	}
	return own, free
}

// unbind closes what bindAll has bound.
func (r *Registry) unbind(all []*binding) {
	each(len(all), func(i int) {
		if live := all[i].live; live != nil {
			r.end(ended(), live)
		}
	})
}

// each calls fn with 0 to n-1, some at a time, and waits for all.
func each(n int, fn func(i int)) { eachBy(bulkWorkers, n, fn) }

// eachBy is each with so many at a time.
func eachBy(workers, n int, fn func(i int)) {
	var next atomic.Int64
	var group sync.WaitGroup
	for range min(n, workers) {
		group.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				fn(int(i))
			}
		})
	}
	group.Wait()
}

// turnPatience is how long takeAll waits for one turn while it has others.
const turnPatience = 100 * time.Millisecond

// takeAll waits for the turns on endpoints, in the order of their names, so that no two calls wait for each other. A name
// that is not there is passed over, or, if missing is there and makes an entry for it, reserved. The caller owes a giveAll.
//
// A turn may be long in coming: a drain has it for up to an hour. Who has to wait for long gives the others back meanwhile,
// which may have to be renewed or to expire, and takes all anew.
func (r *Registry) takeAll(ctx context.Context, names []string, missing func(name string) *entry) (map[string]*entry, error) {
	sorted := slices.Sorted(slices.Values(names))
	for {
		taken := make(map[string]*entry, len(sorted))
		slow, err := r.takeEach(ctx, sorted, missing, taken)
		if err == nil {
			return taken, nil
		}
		r.giveAll(taken)
		if !errors.Is(err, errSlow) {
			return nil, err
		}
		switch e, err := r.take(ctx, slow); {
		case err == nil:
			e.release()
		case !errors.Is(err, ErrNotFound):
			return nil, err
		}
	}
}

// errSlow says that a turn has not come within turnPatience.
var errSlow = errors.New("the turn does not come soon")

// takeEach takes turns one after the other, until it cannot take one: then it answers whose, and why.
func (r *Registry) takeEach(ctx context.Context, names []string, missing func(string) *entry, taken map[string]*entry) (string, error) {
	for _, name := range names {
		soon, cancel := context.WithTimeoutCause(ctx, turnPatience, errSlow)
		e, err := r.takeOrReserve(soon, name, missing)
		cancel()
		if err != nil {
			return name, err
		}
		if e != nil {
			taken[name] = e
		}
	}
	return "", nil
}

func (r *Registry) takeOrReserve(ctx context.Context, name string, missing func(name string) *entry) (*entry, error) {
	for {
		e, err := r.take(ctx, name)
		if !errors.Is(err, ErrNotFound) {
			return e, err
		}
		if missing == nil {
			return nil, nil
		}
		if e = missing(name); e == nil {
			return nil, nil
		}
		if r.reserve(name, e) {
			return e, nil
		}
	}
}

// reserve gives an entry a name, unless another has it.
func (r *Registry) reserve(name string, e *entry) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.entries[name] != nil {
		return false
	}
	r.entries[name] = e
	return true
}

// giveAll gives the turns back, and with them the names that came to nothing.
func (r *Registry) giveAll(taken map[string]*entry) {
	for _, e := range taken {
		if !e.announced { // the turn is ours
			r.forget(e)
		}
		e.release()
	}
}
