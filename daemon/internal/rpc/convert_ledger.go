package rpc

import (
	"errors"
	"fmt"
	"math"
	"strconv"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/probe"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// maxDSCP is the highest DiffServ code point (RFC 2474).
const maxDSCP = 63

func runToText(run uint64) string { return fmt.Sprintf("%016x", run) }

func runFromText(text string) (uint64, error) {
	run, err := strconv.ParseUint(text, 16, 64)
	if err != nil || len(text) != 16 {
		return 0, fmt.Errorf("must be 16 hexadecimal digits, not %.20q", text)
	}
	return run, nil
}

func ledgerToProto(run uint64, l echo.Ledger) *echov1.Ledger {
	out := &echov1.Ledger{
		Run: runToText(run), Received: atMost32(l.Received), Duplicated: atMost32(l.Duplicated), Reordered: atMost32(l.Reordered),
		Unanswered: atMost32(l.Unanswered), Highest: l.Highest, FirstSeen: timestamp(l.FirstSeen), LastSeen: timestamp(l.LastSeen),
		Dscp: widen(l.DSCP), Rounds: l.Rounds, FirstRound: l.FirstRound, CompleteFor: durationpb.New(l.CompleteFor),
	}
	if l.Hops != nil {
		out.MinTtl, out.MaxTtl = wide(&l.Hops.Min), wide(&l.Hops.Max)
	}
	return out
}

// ledgerFromProto reads the ledger of a run as another daemon answered it. Whether its rounds make sense is for package
// probe to say.
func ledgerFromProto(run uint64, l *echov1.Ledger) (out probe.Ledger, err error) {
	if got, err := runFromText(l.GetRun()); err != nil || got != run {
		return out, errors.New("it is that of another run")
	}
	if l.MinTtl != nil && l.MaxTtl != nil {
		if l.GetMinTtl() > l.GetMaxTtl() || l.GetMaxTtl() > math.MaxUint8 {
			return out, fmt.Errorf("its TTLs are %d to %d", l.GetMinTtl(), l.GetMaxTtl())
		}
		least, most := uint8(l.GetMinTtl()), uint8(l.GetMaxTtl())
		out.MinTTL, out.MaxTTL = &least, &most
	}
	for i, d := range l.GetDscp() {
		if d > maxDSCP || i > maxDSCP {
			return out, errors.New("its DSCPs are none")
		}
		out.DSCP = append(out.DSCP, uint8(d))
	}
	if l.GetFirstSeen().CheckValid() != nil || l.GetLastSeen().CheckValid() != nil || l.GetCompleteFor().CheckValid() != nil {
		return out, errors.New("its times are none")
	}
	out.Received, out.Duplicated, out.Reordered, out.Unanswered = l.GetReceived(), l.GetDuplicated(), l.GetReordered(), l.GetUnanswered()
	out.Highest, out.FirstRound, out.Rounds = l.GetHighest(), l.GetFirstRound(), l.GetRounds()
	out.FirstSeen, out.LastSeen = l.GetFirstSeen().AsTime(), l.GetLastSeen().AsTime()
	out.CompleteFor = l.GetCompleteFor().AsDuration()
	return out, nil
}

// directionsToProto leaves the ledger's list of rounds out: it is long, and whoever wants it can ask for it.
func directionsToProto(run uint64, d *probe.Directions) *echov1.Directions {
	if d == nil {
		return nil
	}
	out := &echov1.Directions{Unknown: d.Unknown, LostThere: d.LostThere, LostBack: d.LostBack}
	if l := d.Ledger; l != nil {
		out.Ledger = &echov1.Ledger{
			Run: runToText(run), Received: l.Received, Duplicated: l.Duplicated, Reordered: l.Reordered, Unanswered: l.Unanswered,
			Highest: l.Highest, FirstSeen: timestamp(l.FirstSeen), LastSeen: timestamp(l.LastSeen),
			MinTtl: wide(l.MinTTL), MaxTtl: wide(l.MaxTTL), Dscp: widen(l.DSCP),
			CompleteFor: durationpb.New(l.CompleteFor),
		}
	}
	return out
}

// atMost32 is for running totals that only somebody who makes up datagrams can bring so far.
func atMost32(n uint64) uint32 { return uint32(min(n, math.MaxUint32)) }

func wide(n *uint8) *uint32 {
	if n == nil {
		return nil
	}
	out := uint32(*n)
	return &out
}

func widen(all []uint8) []uint32 {
	var out []uint32
	for _, n := range all {
		out = append(out, uint32(n))
	}
	return out
}
