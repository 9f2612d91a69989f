// Package probe makes round trips over TCP and UDP against any echo server (RFC 862), and reports what it measured:
// a plan in, samples out, a report last.
//
// It owns the sockets and goroutines of a run, from its start to its end, and nothing that outlives it. It knows no
// names of endpoints, no gRPC and no configuration, and never decides whether a target may be probed: that is its
// callers' part, which it asks (Options.Permit) once it knows the address. The daemon and the command line tool both call it.
//
// What a target does (refuses, keeps silent, cannot be reached, has no such name) is a result in the report, never an
// error. Times are taken from the monotonic clock, in this process.
package probe

import (
	"context"
	"net"
	"net/netip"
)

// MaxOutstanding is how many rounds of a run over TCP may be on their way at once; over UDP it is 65,535. When there are
// so many, the next one waits until one has ended. Rounds on connections of their own are besides bounded to 64 MiB of
// payloads at once.
const MaxOutstanding = 1024

// Options say how a Prober reaches the network. The zero value uses the host's resolver and sockets.
type Options struct {
	// LookupNetIP turns a host name into addresses, best first; network is "ip". Nil: net.DefaultResolver.
	LookupNetIP func(ctx context.Context, network, host string) ([]netip.Addr, error)
	// DialContext opens connections; network is "tcp" or "udp", address an IP address and a port. Nil: the host's sockets,
	// with all that the plan says of their source and IP options, and the kernel's timestamps where there are any. What it answers
	// must keep to net.Conn: closing and deadlines end a Read and a Write that wait, and a UDP connection reads and writes
	// one datagram a call.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
	// Permit is asked with the address that a run is to go to, after its name was looked up and before anything is sent.
	// What it answers ends the run. That address is the one dialled: no name is looked up a second time. Nil: all may be
	// probed.
	Permit func(netip.AddrPort, Protocol) error
}

// Prober runs probes. It keeps no state between runs; any number of goroutines may use one at the same time.
type Prober struct {
	options Options
}

// New answers a prober.
func New(o Options) *Prober {
	if o.LookupNetIP == nil {
		o.LookupNetIP = net.DefaultResolver.LookupNetIP
	}
	return &Prober{options: o}
}

// newAlarm wakes runs that have sockets of the host's as exactly as can be; others may have a time of their own.
func (p *Prober) newAlarm() alarm {
	if p.options.DialContext != nil {
		return newTimer()
	}
	return newAlarm()
}

// Run makes the rounds of plan and answers its report once all of its goroutines have ended.
//
// It ends when the plan's count or duration is reached and the last reply has come or is overdue, when ctx ends (the
// report is what was measured so far, the error nil, and a round on its way counts as neither sent nor lost), or when
// emit fails (the same, with emit's error). The only other errors are ErrBadPlan, ErrSource, and those of Options.Permit
// and Plan.Admit; then nothing was sent, and the report's errors say why. When the host's name cannot be looked up, one
// round is sent and lost with ReasonNameNotFound.
//
// Last it asks for the target's ledger, where the plan says how, also when ctx has ended.
//
// emit may be nil. It is called from Run's own goroutine, in the order of events, and holds up the run while it works:
// it must not block.
//
// Rounds keep to a schedule by the plan's Pacing. One that cannot leave in time (the machine was busy, MaxOutstanding was
// reached) leaves as soon as it can; when that is more than 100 ms late, the rounds after it keep their distance from it
// instead of making up for the time. Report.Schedule tells of both.
func (p *Prober) Run(ctx context.Context, plan Plan, emit func(Sample) error) (Report, error) {
	if err := plan.Validate(); err != nil {
		return Report{}, err
	}
	r := newRun(p, plan, emit)
	err := r.do(ctx)
	r.tally.stop()
	report, err := refusalIn(r.tally.Report(), err)
	report.Directions = r.directions(ctx, report)
	return report, err
}
