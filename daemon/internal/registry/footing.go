package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/netwatch"
)

const (
	// lookPatience is how long one waits for a network namespace to be opened. The file of one may be on a file system that does
	// not answer, and then for ever.
	lookPatience = 2 * time.Second
	// maxLooks is how many such may be waited for at the same time; each takes a thread.
	maxLooks = 128
)

// footing is what sockets stand on, by its names: what may go away under them and come back as something else.
type footing struct {
	namespace  namespace // empty: our own
	interfaces [2]string // that the sockets are bound to; empty: none
}

// footingOf answers what the sockets of a definition stand on, or would.
func footingOf(s echo.Spec) footing {
	f := footing{}
	f.namespace, _ = s.Place.(namespace)
	f.interfaces[0] = s.Interface
	if address, err := echo.ParseListen(s.Listen); err == nil {
		if zone := address.IP.Zone(); !isNumber(zone) {
			f.interfaces[1] = zone
		}
	}
	return f
}

// isNumber says whether a zone is the number of an interface: whichever has it is meant.
func isNumber(zone string) bool {
	_, err := strconv.ParseUint(zone, 10, 32)
	return err == nil
}

// isBound says whether sockets are bound to an interface.
func (f footing) isBound() bool { return f.interfaces != [2]string{} }

// isPlain says whether there is nothing that might go away.
func (f footing) isPlain() bool { return f == footing{} }

// lost says why what was made at one sight does not serve at another, and what a retry will find as long as that is so; nil: it
// does.
func (f footing) lost(then, now netwatch.Sight) (why, until error) {
	if then.Namespace != now.Namespace {
		return fmt.Errorf("network namespace %q was made anew, and what it was is gone", string(f.namespace)), nil
	}
	for i, name := range f.interfaces {
		switch {
		case then.Indexes[i] == now.Indexes[i]:
		case now.Indexes[i] != 0:
			return fmt.Errorf("interface %s was made anew, and what it was is gone", name), nil
		case i == 0:
			return fmt.Errorf("interface %s is gone", name), echo.ErrInterfaceNotAvailable
		default:
			return fmt.Errorf("interface %s is gone", name), echo.ErrAddressNotAvailable
		}
	}
	return nil, nil
}

// looks are the looks at footings that are under way. It is safe for concurrent use.
type looks struct {
	look func(footing) (netwatch.Sight, error)

	mu      sync.Mutex // guards what follows
	pending map[footing]*looking
}

// looking is a look that is under way; done is closed when it is over.
type looking struct {
	begun time.Time
	done  chan struct{}
	seen  netwatch.Sight
	err   error
}

func newLooks() *looks {
	return &looks{
		look:    func(f footing) (netwatch.Sight, error) { return netwatch.Look(string(f.namespace), f.interfaces) },
		pending: map[footing]*looking{},
	}
}

// errNoAnswer says that a namespace cannot be opened for now.
type errNoAnswer string

func (e errNoAnswer) Error() string        { return string(e) }
func (e errNoAnswer) Is(target error) bool { return target == ErrNamespaceNotAvailable }

// at looks at a footing. Who looks at one that others wait for already, waits with them, and no longer than they. The error is
// an errNoAnswer, the context's, or says why there is no such namespace.
func (l *looks) at(ctx context.Context, f footing) (netwatch.Sight, error) {
	switch {
	case f.isPlain():
		return netwatch.Sight{}, nil
	case f.namespace == "":
		return l.look(f)
	}
	under := l.join(f)
	if under == nil {
		return netwatch.Sight{}, errNoAnswer(fmt.Sprintf("%d others do not answer; still trying", maxLooks))
	}
	patience := time.NewTimer(time.Until(under.begun.Add(lookPatience)))
	defer patience.Stop()
	select {
	case <-under.done:
		return under.seen, under.err
	case <-ctx.Done():
		return netwatch.Sight{}, context.Cause(ctx)
	case <-patience.C:
		return netwatch.Sight{}, errNoAnswer(fmt.Sprintf("it does not answer within %v; still trying", lookPatience))
	}
}

// join answers the look at a footing, which begins unless it is under way; nil: there are too many.
func (l *looks) join(f footing) *looking {
	l.mu.Lock()
	defer l.mu.Unlock()
	if under := l.pending[f]; under != nil {
		return under
	}
	if len(l.pending) >= maxLooks {
		return nil
	}
	under := &looking{begun: time.Now(), done: make(chan struct{})}
	l.pending[f] = under
	// Nobody can end it, should it take for ever: so it has nothing, and nobody needs its end.
	go func() {
		under.seen, under.err = l.look(f)
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.pending, f)
		close(under.done)
	}()
	return under
}

// hangs says whether a namespace has not answered.
func (l *looks) hangs(n namespace) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for f, under := range l.pending {
		if f.namespace == n && time.Since(under.begun) > healPause {
			return true
		}
	}
	return false
}

// wait waits for the looks that are under way, but for no one longer than anybody would.
func (l *looks) wait() {
	all := l.underWay()
	patience := time.NewTimer(lookPatience)
	defer patience.Stop()
	for _, under := range all {
		select {
		case <-under.done:
		case <-patience.C:
			return
		}
	}
}

func (l *looks) underWay() []*looking {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Values(l.pending))
}

// lookAhead opens the network namespaces of all that a start is to bind, and answers those that are not open within lookPatience,
// and why: they are not to be waited for one after the other.
func (r *Registry) lookAhead(ctx context.Context, entries []*entry) map[footing]error {
	distinct := map[footing]bool{}
	for _, e := range entries {
		if f := footingOf(spec(e.def, e.address)); f.namespace != "" {
			distinct[f] = true
		}
	}
	all := slices.Collect(maps.Keys(distinct))
	ctx, cancel := context.WithTimeoutCause(ctx, lookPatience, errNoAnswer(fmt.Sprintf("it was not open within %v; still trying", lookPatience)))
	defer cancel()
	var mu sync.Mutex
	slow := map[footing]error{}
	eachBy(maxLooks, len(all), func(i int) {
		_, err := r.looks.at(ctx, all[i])
		if none, ok := errors.AsType[errNoAnswer](err); ok {
			mu.Lock()
			defer mu.Unlock()
			slow[all[i]] = none
		}
	})
	return slow
}

// lookBeforeBinding answers what an endpoint will stand on. Why there is no such namespace is left for the engine to say; the
// error is that one does not answer, or the context's.
func (r *Registry) lookBeforeBinding(ctx context.Context, s echo.Spec) (netwatch.Sight, error) {
	seen, err := r.looks.at(ctx, footingOf(s))
	if none, ok := errors.AsType[errNoAnswer](err); ok {
		return seen, cannotBind(s, none)
	}
	return seen, context.Cause(ctx)
}

// cannotBind says why a socket in a namespace cannot be had.
func cannotBind(s echo.Spec, why error) error {
	return fmt.Errorf("cannot bind %s %v: %w", s.Listen, s.Place, why)
}
