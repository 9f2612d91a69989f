//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/echod/echod/bench/internal/load"
)

// loadArgument, as the first one, makes this program the load generator; the plan follows as JSON.
const loadArgument = "load"

// loadGrace is what a load generator may take besides its warm-up and its measurement: to open connections, and to wait
// for a server that does not answer.
const loadGrace = 30 * time.Second

// settings are how a case is run.
type settings struct {
	rounds    int
	within    float64 // percent that a case goes on for; 0 ends it after its rounds
	maxRounds int     // those of going on included
	warm      time.Duration
	trial     time.Duration
	engine    string
	only      []string // servers; empty is all
	noFork    bool
}

// sample is one server's turn in one round.
type sample struct {
	load.Result
	err error
}

// measured is what a case showed of a server, or why it did not run.
type measured struct {
	server Server
	// samples by round: samples[i] is of round i, with every server. Who has no turns in the last rounds has fewer.
	samples []sample
	missing error
}

// contender is a server that runs, and what it showed.
type contender struct {
	*measured
	running *running
}

// runCase starts the servers of c, gives each its turn in every round, and ends them.
func runCase(ctx context.Context, t *tools, c Case, s settings) ([]*measured, error) {
	var all []*measured
	var contenders []contender
	defer func() {
		for _, k := range contenders {
			k.running.stop()
		}
	}()
	for _, name := range c.Servers {
		server, err := findServer(name)
		if err != nil {
			return nil, err
		}
		if !s.wants(server) {
			continue
		}
		m := &measured{server: server}
		all = append(all, m)
		r, err := startServer(t, server, s.engine, c.protocol(), c.listen())
		if err != nil {
			m.missing = err
			continue
		}
		contenders = append(contenders, contender{m, r})
	}
	err := takeTurns(ctx, c, s, contenders, func(k contender) sample {
		result, err := runLoad(ctx, c.plan(k.running, s))
		return sample{Result: result, err: err}
	})
	return all, err
}

// takeTurns runs the rounds of c: first those of everyone; then, if it is to go on, those of ours and the references
// alone, which cost little, as the slow servers are not among them.
func takeTurns(ctx context.Context, c Case, s settings, everyone []contender, turn func(contender) sample) error {
	for round := range s.rounds {
		if err := takeRound(ctx, round, everyone, turn); err != nil {
			return err
		}
	}
	var all []*measured
	for _, k := range everyone {
		all = append(all, k.measured)
	}
	some := slices.DeleteFunc(slices.Clone(everyone), func(k contender) bool {
		return k.server.Name != ours && !slices.Contains(references(c, all), k.measured)
	})
	for round := s.rounds; s.goesOn(c, all, round); round++ {
		if err := takeRound(ctx, round, some, turn); err != nil {
			return err
		}
	}
	return nil
}

// takeRound gives each of the contenders its turn.
func takeRound(ctx context.Context, round int, contenders []contender, turn func(contender) sample) error {
	for _, i := range order(len(contenders), round) {
		if err := ctx.Err(); err != nil {
			return err
		}
		k := contenders[i]
		k.samples = append(k.samples, turn(k))
	}
	return ctx.Err()
}

// goesOn reports whether c needs more than the rounds that it had.
func (s settings) goesOn(c Case, all []*measured, rounds int) bool {
	return s.within > 0 && rounds < s.maxRounds && widestOf(c, all).percent > s.within
}

// order is in which order n servers have their turns: another one begins every other round, and each second round goes
// backwards, so that none always follows the same one.
func order(n, round int) []int {
	turns := make([]int, n)
	for i := range turns {
		turns[i] = (i + round/2) % n
		if round%2 == 1 {
			turns[i] = n - 1 - turns[i]
		}
	}
	return turns
}

func (s settings) wants(server Server) bool {
	if s.noFork && server.Forks {
		return false
	}
	for _, name := range s.only {
		if name == server.Name {
			return true
		}
	}
	return len(s.only) == 0
}

func (c Case) protocol() string {
	if c.udp() {
		return "udp"
	}
	return "tcp"
}

// plan is the load of c for a server that runs.
func (c Case) plan(r *running, s settings) load.Plan {
	p := c.Load
	addr := r.addr
	if c.Dial != "" {
		addr = netip.AddrPortFrom(netip.MustParseAddr(c.Dial), addr.Port())
	}
	p.Target, p.ServerPID, p.Warm, p.For = addr.String(), r.pid(), s.warm, s.trial
	return p
}

// runLoad runs the load generator in a process of its own.
func runLoad(ctx context.Context, p load.Plan) (load.Result, error) {
	plan, err := json.Marshal(p)
	if err != nil {
		return load.Result{}, err
	}
	self, err := os.Executable()
	if err != nil {
		return load.Result{}, err
	}
	process, err := startProcess([]string{self, loadArgument, string(plan)})
	if err != nil {
		return load.Result{}, err
	}
	defer process.stop()
	defer context.AfterFunc(ctx, process.kill)()
	line, err := process.line(p.Warm + p.For + loadGrace)
	if err != nil {
		return load.Result{}, err
	}
	var answer loadAnswer
	if err := json.Unmarshal([]byte(line), &answer); err != nil {
		return load.Result{}, fmt.Errorf("the load generator said %q: %w", line, err)
	}
	if answer.Error != "" {
		return load.Result{}, errors.New(answer.Error)
	}
	return answer.Result, nil
}

// loadAnswer is the line that the load generator prints.
type loadAnswer struct {
	Result load.Result
	Error  string
}

// beLoad is the load generator.
func beLoad(plan string) int {
	var p load.Plan
	var answer loadAnswer
	err := json.Unmarshal([]byte(plan), &p)
	if err == nil {
		answer.Result, err = load.Run(p)
	}
	if err != nil {
		answer.Error = err.Error()
	}
	if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
		return 1
	}
	return 0
}
