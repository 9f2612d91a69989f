//go:build linux

package torture_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

const (
	stateFile = "echod.db"
	copyFile  = "echod.db.good"
)

// flip damages files of the state directory between two lives of the daemon. What comes back is the exact state or, where the
// daemon says so, that of its good copy; never another. Where both files are damaged it serves nothing until it is told to
// accept the loss.
type flip struct {
	changes    int
	state      damage
	copied     damage
	inOrder    bool    // the daemon was stopped, not killed
	whereState float64 // of the length
	whereCopy  float64
	bit        int
}

type damage int

const (
	none damage = iota
	oneBit
	cutOff
	zeroed // a sector of it
)

func (d damage) String() string {
	return [...]string{"nothing", "one bit", "its end cut off", "a sector zeroed"}[d]
}

func drawFlip(rnd *rand.Rand) fault {
	f := flip{
		changes: 1 + rnd.IntN(30), inOrder: rnd.IntN(3) == 0, whereState: rnd.Float64(), whereCopy: rnd.Float64(), bit: rnd.IntN(8),
	}
	f.state, f.copied = damage(1+rnd.IntN(3)), none
	switch rnd.IntN(6) {
	case 0:
		f.state, f.copied = none, f.state
	case 1:
		f.copied = damage(1 + rnd.IntN(3))
	}
	return f
}

func (f flip) String() string {
	how := "a kill"
	if f.inOrder {
		how = "a stop"
	}
	return fmt.Sprintf("flip after %d changes and %s: of the state %v (at %.4f), of the copy %v (at %.4f), bit %d",
		f.changes, how, f.state, f.whereState, f.copied, f.whereCopy, f.bit)
}

func (f flip) inject(w *world) {
	w.awaitChanges(f.changes)
	if f.inOrder {
		w.down(w.terminate)
	} else {
		w.down((*life).kill)
	}
	older := w.readCopy()
	err := errors.Join(f.state.do(filepath.Join(w.stateDir(), stateFile), f.whereState, f.bit),
		f.copied.do(filepath.Join(w.stateDir(), copyFile), f.whereCopy, f.bit))
	if err != nil && (older != nil || !errors.Is(err, fs.ErrNotExist)) {
		w.fail("cannot damage the state: %v", err)
	}
	lost := false
	w.mustUp(launch{check: func() {
		by, err := w.listAll()
		switch says := w.warnings(); {
		case strings.Contains(says, "the state is lost"):
			lost = true
			if err == nil && count(by) > 0 {
				w.fail("the state is lost, and %d endpoints are there", count(by))
			}
			w.takesNothing()
			if f.copied == none && older != nil || f.state == none {
				w.fail("one of the two files was good, and the daemon says: %s", says)
			}
		case err != nil:
			w.fail("cannot list: %v", err)
		case strings.Contains(says, "the state is that of its good copy"):
			if wrong := alike(older, by); wrong != "" {
				w.fail("the state is not that of the good copy: %s", wrong)
			}
			w.resync(by)
		default:
			w.settle()
		}
	}, keepsOut: &lost})
	if !lost {
		return
	}
	// Nothing was touched: a start that accepts no loss may be had again and again. Then one that does.
	w.down((*life).kill)
	w.mustUp(launch{flags: []string{"--accept-data-loss"}, check: func() {
		by, err := w.listAll()
		if err != nil || count(by) > 0 {
			w.fail("a start that accepts the loss has %d endpoints, %v", count(by), err)
		}
		w.resync(by)
	}})
}

// takesNothing holds a daemon whose state is lost to what it says: it lives, and is not ready, and nothing can be changed.
func (w *world) takesNothing() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := w.life().endpoints().CreateEndpoint(ctx, &echov1.CreateEndpointRequest{Endpoint: w.anchor(anchorNames()[0])})
	if err == nil || !strings.Contains(err.Error(), "lost") {
		w.fail("the state is lost, and a create answers %v", err)
	}
	for path, code := range map[string]int{"/healthz": http.StatusOK, "/readyz": http.StatusServiceUnavailable} {
		resp, err := w.life().rest.client.Get(w.life().rest.url + path)
		if err != nil {
			w.fail("%v", err)
			return
		}
		resp.Body.Close()
		if resp.StatusCode != code {
			w.fail("the state is lost, and %s answers %s", path, resp.Status)
		}
	}
}

func count(by map[string]map[string]*echov1.Endpoint) (n int) {
	for _, of := range by {
		n += len(of)
	}
	return n
}

// readCopy is what the good copy holds, as another daemon says that has nothing else; nil when there is none.
func (w *world) readCopy() map[string]map[string]*echov1.Endpoint {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.stateDir(), copyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	dir := filepath.Join(w.dir, "copy")
	err = errors.Join(err, os.RemoveAll(dir), os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, stateFile), text, 0o600))
	if err != nil {
		w.fail("cannot read the good copy: %v", err)
		return nil
	}
	l, err := w.launch(launch{state: dir})
	if err != nil {
		w.fail("the good copy makes no state: %v", err)
		return nil
	}
	w.now.Store(l)
	defer func() {
		l.kill()
		w.now.Store(nil)
	}()
	by, err := w.listAll()
	if err != nil {
		w.fail("cannot list: %v", err)
	}
	if says := w.warnings(); strings.Contains(says, "damaged") {
		w.fail("nobody has touched the good copy, and the daemon says: %s", says)
	}
	return by
}

// alike says in what endpoints differ that should not.
func alike(want, got map[string]map[string]*echov1.Endpoint) string {
	for owner, all := range want {
		state := endpoints{}
		for name, e := range all {
			state[name] = wanted{def: e, serve: e.State != echov1.Endpoint_STOPPED}
		}
		if wrong := state.learn(all).differs(got[owner]); len(wrong) > 0 {
			return owner + ": " + strings.Join(wrong, "; ")
		}
	}
	return ""
}

// do damages a file.
func (d damage) do(path string, where float64, bit int) error {
	if d == none {
		return nil
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	at := int64(where * float64(info.Size()))
	switch d {
	case oneBit:
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, at); err != nil {
			return err
		}
		b[0] ^= 1 << bit
		_, err = f.WriteAt(b, at)
	case cutOff:
		err = f.Truncate(at)
	case zeroed:
		_, err = f.WriteAt(make([]byte, min(512, info.Size()-at)), at)
	}
	return err
}
