//go:build linux

package torture_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// fault is one thing that is done to the daemon. Its parameters are in it, and its name and they are what it is printed as.
type fault interface {
	fmt.Stringer
	// inject does it while clients work, and returns when a daemon runs again that has been compared with the model.
	inject(*world)
}

// kind is a kind of fault.
type kind struct {
	name   string
	weight int
	draw   func(*rand.Rand) fault
	// cannot says why there is none of its kind here; nil: there is.
	cannot func(*world) string
}

var kinds = []kind{
	{"kill", 6, drawKill, nil},
	{"stop", 2, drawStop, nil},
	{"pause", 2, drawPause, nil},
	{"failpoint", 6, drawFailpoint, nil},
	{"flip", 3, drawFlip, nil},
	{"full", 2, drawFull, needsDisk},
	{"power", 3, drawPower, needsDisk},
	{"ports", 2, drawPorts, nil},
	{"upgrade", 4, drawUpgrade, nil},
}

func kindNames() (all []string) {
	for _, k := range kinds {
		all = append(all, k.name)
	}
	return all
}

// choose answers the kinds of that names, or all, that can be had here, and says which cannot.
func choose(w *world, only string) (can []kind, cannot []string, err error) {
	names := kindNames()
	if only != "" {
		names = strings.Split(only, ",")
	}
	for _, name := range names {
		i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == name })
		if i < 0 {
			return nil, nil, fmt.Errorf("there is no fault %q: there are %s", name, strings.Join(kindNames(), ", "))
		}
		if kinds[i].cannot != nil {
			if why := kinds[i].cannot(w); why != "" {
				cannot = append(cannot, fmt.Sprintf("%s: %s", name, why))
				continue
			}
		}
		can = append(can, kinds[i])
	}
	return can, cannot, nil
}

// schedule makes up faults, without end. It depends on nothing but its seed and the kinds.
type schedule struct {
	rnd   *rand.Rand
	kinds []kind
	total int
	fresh []kind // each kind comes once before any comes twice: a short run has seen all
}

func newSchedule(seed uint64, kinds []kind) *schedule {
	s := &schedule{rnd: rand.New(rand.NewPCG(seed, 1<<40)), kinds: kinds, fresh: slices.Clone(kinds)}
	for _, k := range kinds {
		s.total += k.weight
	}
	return s
}

// next is the next fault.
func (s *schedule) next() fault {
	if n := len(s.fresh); n > 0 {
		i := s.rnd.IntN(n)
		k := s.fresh[i]
		s.fresh = slices.Delete(s.fresh, i, i+1)
		return k.draw(s.rnd)
	}
	n := s.rnd.IntN(s.total)
	for _, k := range s.kinds {
		if n -= k.weight; n < 0 {
			return k.draw(s.rnd)
		}
	}
	panic("the weights do not add up")
}

// phase is how many faults come before all has to come good.
func (s *schedule) phase() int { return 1 + s.rnd.IntN(4) }
