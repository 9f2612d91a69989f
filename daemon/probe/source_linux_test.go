package probe

import (
	"net"
	"net/netip"
	"testing"
)

// ownSource is an address that nothing else on this host is likely to use, with the first of so many ports that are free.
func ownSource(t *testing.T, flows int) netip.AddrPort {
	t.Helper()
	address := netip.MustParseAddr("127.91.7.3")
	for range 100 {
		l, err := net.Listen("tcp", netip.AddrPortFrom(address, 0).String())
		if err != nil {
			t.Fatal(err)
		}
		first := l.Addr().(*net.TCPAddr).AddrPort()
		l.Close()
		if int(first.Port())+flows > 65535 {
			continue
		}
		free := 0
		for i := range flows {
			c, err := net.Listen("tcp", netip.AddrPortFrom(address, first.Port()+uint16(i)).String())
			if err != nil {
				break
			}
			c.Close()
			free++
		}
		if free == flows {
			return first
		}
	}
	t.Skip("there are no ports in a row that are free")
	return netip.AddrPort{}
}

// TestPortsAreFreeAgain: what is measured from certain ports can be measured again at once, and a flow whose connection
// broke has its port for the next one.
func TestPortsAreFreeAgain(t *testing.T) {
	for name, serve := range map[string]func(int, *net.TCPConn){
		"the prober closes": echoStream,
		"the peer closes": func(_ int, c *net.TCPConn) {
			if b := readBlock(c); b != nil {
				_, _ = c.Write(b)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			address := tcpPeer(t, serve)
			plan := tcpPlan(address, 12)
			plan.Flows, plan.Source = 3, ownSource(t, 3)
			if name == "the peer closes" {
				plan.Interval = 0
			}
			for range 3 {
				r, _ := runPlan(t, plan)
				if name == "the prober closes" {
					wantCounts(t, r, 12, 12, 0, 0, 0)
				}
				for i, f := range r.Flows {
					if want := netip.AddrPortFrom(plan.Source.Addr(), plan.Source.Port()+uint16(i)); f.Source != want {
						t.Errorf("flow %d came from %v, want %v", i, f.Source, want)
					}
				}
				for _, e := range r.Errors {
					if e.Reason != ReasonClosedEarly && e.Reason != ReasonReset {
						t.Errorf("%+v", e)
					}
				}
			}
		})
	}
}
