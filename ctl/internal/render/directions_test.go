package render

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

func TestDirectionLines(t *testing.T) {
	known := &echov1.Directions{
		LostThere: proto.Uint32(3), LostBack: proto.Uint32(2),
		Ledger: &echov1.Ledger{Received: 17, Duplicated: 1, MinTtl: proto.Uint32(61), MaxTtl: proto.Uint32(62), Dscp: []uint32{0, 46}},
	}
	refusing := &echov1.Directions{LostThere: proto.Uint32(0), LostBack: proto.Uint32(5), Ledger: &echov1.Ledger{Received: 5, Unanswered: 4}}
	unknown := &echov1.Directions{Unknown: "because \x1b[31m"}
	refused := []*echov1.ErrorCount{{Reason: "timeout", Count: 1}, {Reason: "refused", Count: 4}}
	for name, test := range map[string]struct {
		report     *echov1.ProbeReport
		table, add []string
	}{
		"TCP":          {report: &echov1.ProbeReport{Sent: 5, Lost: 5}},
		"nothing lost": {report: &echov1.ProbeReport{Sent: 5, Directions: unknown}},
		"known": {
			report: &echov1.ProbeReport{Sent: 20, Lost: 5, Directions: known}, table: []string{"lost: 3 on the way there, 2 on the way back"},
			add: []string{"the target saw 17 of 20 rounds, 1 datagrams again, 0 reordered, TTL 61 to 62, DSCP 0 46"},
		},
		"not answered": {
			report: &echov1.ProbeReport{Sent: 5, Lost: 5, Directions: refusing},
			table:  []string{"lost: 0 on the way there, 5 on the way back (the target did not answer 4 datagrams)"},
			add:    []string{"the target saw 5 of 5 rounds, 0 datagrams again, 0 reordered"},
		},
		"not known": {report: &echov1.ProbeReport{Sent: 5, Lost: 5, Directions: unknown, Errors: refused}, table: []string{`lost: which way is not known (because \x1b[31m)`}},
		"all refused": {
			report: &echov1.ProbeReport{Sent: 4, Lost: 4, Directions: unknown, Errors: refused},
			add:    []string{`lost: which way is not known (because \x1b[31m)`},
		},
		"nothing came": {report: &echov1.ProbeReport{Sent: 1, Lost: 1, Directions: &echov1.Directions{LostThere: proto.Uint32(1), LostBack: proto.Uint32(0)}}, table: []string{"lost: 1 on the way there, 0 on the way back"}},
	} {
		if diff := cmp.Diff(test.table, directionLines(test.report, false)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if diff := cmp.Diff(append(test.table, test.add...), directionLines(test.report, true)); diff != "" {
			t.Errorf("%s, wide: %s", name, diff)
		}
	}
}
