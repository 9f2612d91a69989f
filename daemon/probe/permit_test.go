package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"
)

// TestPermit asks once a run, with the address that is dialled then.
func TestPermit(t *testing.T) {
	no := errors.New("not there")
	for name, tc := range map[string]struct {
		permit, admit error
		reason        Reason
	}{
		"allowed":    {},
		"refused":    {permit: no, reason: ReasonTargetRefused},
		"over limit": {admit: no, reason: ReasonOverLimit},
	} {
		t.Run(name, func(t *testing.T) {
			want := netip.MustParseAddrPort("192.0.2.7:9")
			var permitted, admitted []netip.AddrPort
			dialled := 0
			p := New(Options{
				LookupNetIP: func(context.Context, string, string) ([]netip.Addr, error) {
					return []netip.Addr{netip.MustParseAddr("::ffff:192.0.2.7")}, nil
				},
				DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
					dialled++
					if address != want.String() {
						t.Errorf("dialled %s", address)
					}
					return nil, errors.New("not in this test")
				},
				Permit: func(a netip.AddrPort, protocol Protocol) error {
					if protocol != TCP {
						t.Errorf("asked of %s", protocol)
					}
					permitted = append(permitted, a)
					return tc.permit
				},
			})
			plan := Plan{Protocol: TCP, Address: "echo.example:9", Count: 2, Timeout: time.Second, PayloadBytes: 1}
			plan.Admit = func(a netip.AddrPort) (float64, error) { admitted = append(admitted, a); return 0, tc.admit }
			report, err := p.Run(t.Context(), plan, nil)
			if len(permitted) != 1 || permitted[0] != want || len(admitted) > 1 || len(admitted) == 0 && tc.permit == nil {
				t.Errorf("asked of %v and %v", permitted, admitted)
			}
			if tc.reason == NoReason {
				if err != nil || report.Sent != 2 || dialled == 0 {
					t.Errorf("%+v, %v", report, err)
				}
				return
			}
			if !errors.Is(err, no) || err.Error() != no.Error() || report.Sent != 0 || dialled != 0 || report.Address.IsValid() {
				t.Errorf("%+v, %v, %d dials", report, err, dialled)
			}
			if len(report.Errors) != 1 || report.Errors[0] != (ErrorCount{Reason: tc.reason, Count: 1, Message: "not there"}) {
				t.Errorf("errors: %+v", report.Errors)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	no := errors.New("not there")
	p := New(Options{Permit: func(netip.AddrPort, Protocol) error { return no }})
	plan := Plan{Protocol: UDP, Address: "[::ffff:192.0.2.7]:9", Count: 1, Timeout: time.Second}
	if err := p.Check(plan); !errors.Is(err, no) {
		t.Errorf("an address: %v", err)
	}
	if a, ok := plan.Literal(); !ok || a.String() != "192.0.2.7:9" {
		t.Errorf("Literal: %v, %v", a, ok)
	}
	plan.Address = "echo.example:9"
	if err := p.Check(plan); err != nil {
		t.Errorf("a name: %v", err)
	}
	if err := New(Options{}).Check(Plan{}); !errors.Is(err, ErrBadPlan) {
		t.Errorf("a bad plan: %v", err)
	}
}
