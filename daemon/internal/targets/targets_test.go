package targets

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/echod/echod/daemon/probe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// aHost is what the policies of these tests take for the addresses of this host.
func aHost() ([]netip.Prefix, error) {
	return []netip.Prefix{
		netip.MustParsePrefix("127.0.0.1/8"), netip.MustParsePrefix("192.0.2.5/24"), netip.MustParsePrefix("198.51.100.4/31"),
		netip.MustParsePrefix("203.0.113.9/32"), netip.MustParsePrefix("2001:db8::5/64"), netip.MustParsePrefix("fe80::5/64"),
	}, nil
}

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

func addresses(texts ...string) (out []netip.AddrPort) {
	for _, text := range texts {
		out = append(out, netip.MustParseAddrPort(text))
	}
	return out
}

// TestSpellings probes every way to write what must not be probed, and counts what is dialled: nothing. Names are what
// systems make of them: an in-process resolver reads numbers as inet_aton does.
func TestSpellings(t *testing.T) {
	policy := New(Config{
		Control: addresses("127.0.0.1:7007", "[::]:7070", "192.0.2.5:7077"), HostPrefixes: aHost,
		Allow: prefixes("0.0.0.0/0", "::/0"), Deny: prefixes("10.66.0.0/16", "2001:db8:66::/48"),
	})
	names := map[string][]string{
		"127.1": {"127.0.0.1"}, "2130706433": {"127.0.0.1"}, "0x7f000001": {"127.0.0.1"}, "0177.0.0.1": {"127.0.0.1"}, "017700000001": {"127.0.0.1"},
		"0": {"0.0.0.0"}, "localhost": {"::1", "127.0.0.1"}, "localhost.": {"127.0.0.1"}, "LOCALHOST": {"127.0.0.1"}, "2852039166": {"169.254.169.254"},
		"0xa9fea9fe": {"169.254.169.254"}, "0251.0376.0251.0376": {"169.254.169.254"}, "metadata.google.internal": {"169.254.169.254"},
		"mapped.example": {"::ffff:169.254.169.254"}, "all-hosts.mcast.net": {"224.0.0.1"}, "router.example": {"192.0.2.255"}, "me.example": {"2001:db8::5"},
		"169.254.169.254.nip.example": {"169.254.169.254"},
	}
	for address, says := range map[string]string{
		"0.0.0.0:7":                       "no address of a host",
		"[::]:7":                          "no address of a host",
		"0.1.2.3:7":                       "no address of a host",
		"[::ffff:0.0.0.0]:7":              "no address of a host",
		"0:7":                             "no address of a host",
		"224.0.0.1:7":                     "multicast",
		"239.255.255.250:1900":            "multicast",
		"[ff02::1]:7":                     "multicast",
		"[ff02::1%eth0]:7":                "multicast",
		"[::ffff:224.0.0.1]:7":            "multicast",
		"all-hosts.mcast.net:7":           "multicast",
		"255.255.255.255:7":               "the broadcast address",
		"[::ffff:255.255.255.255]:7":      "the broadcast address",
		"192.0.2.255:7":                   "broadcast address of 192.0.2.0/24",
		"127.255.255.255:7":               "broadcast address of 127.0.0.0/8",
		"router.example:7":                "broadcast address of 192.0.2.0/24",
		"169.254.169.254:80":              "metadata",
		"169.254.169.254:53":              "metadata",
		"169.254.170.2:80":                "AWS ECS",
		"169.254.170.23:80":               "AWS EKS",
		"100.100.100.200:80":              "Alibaba",
		"168.63.129.16:80":                "Azure",
		"192.0.0.192:80":                  "Oracle",
		"[fd00:ec2::254]:80":              "AWS",
		"[fd20:ce::254]:80":               "Google",
		"[FD00:0EC2:0::0254]:80":          "AWS",
		"[fd00:ec2::254%eth0]:80":         "AWS",
		"2852039166:80":                   "metadata",
		"0xa9fea9fe:80":                   "metadata",
		"0251.0376.0251.0376:80":          "metadata",
		"metadata.google.internal:80":     "metadata",
		"mapped.example:80":               "metadata",
		"169.254.169.254.nip.example:80":  "metadata",
		"[::ffff:169.254.169.254]:80":     "metadata",
		"[::ffff:a9fe:a9fe]:80":           "metadata",
		"[::169.254.169.254]:80":          "stands for 169.254.169.254, which is the metadata",
		"[::ffff:0:169.254.169.254]:80":   "stands for 169.254.169.254",
		"[64:ff9b::169.254.169.254]:80":   "stands for 169.254.169.254",
		"[64:ff9b:1::169.254.169.254]:80": "stands for 169.254.169.254",
		"[64:ff9b:1:a9fe:a9:fe00::]:80":   "stands for 169.254.169.254",
		"[64:ff9b::]:80":                  "stands for 0.0.0.0",
		"[64:ff9b::224.0.0.1]:7":          "stands for 224.0.0.1, which is a multicast",
		"[2002:a9fe:a9fe::1]:80":          "stands for 169.254.169.254",
		"[2001:0:1:2:3:4:5601:5601]:80":   "stands for 169.254.169.254",
		"127.0.0.1:7007":                  "control",
		"[::ffff:127.0.0.1]:7007":         "control",
		"127.1:7007":                      "control",
		"2130706433:7007":                 "control",
		"0x7f000001:7007":                 "control",
		"0177.0.0.1:7007":                 "control",
		"017700000001:7007":               "control",
		"localhost:7007":                  "control",
		"localhost.:7007":                 "control",
		"LOCALHOST:7007":                  "control",
		"127.0.0.2:7070":                  "control",
		"[::1]:7070":                      "control",
		"192.0.2.5:7070":                  "control",
		"203.0.113.9:7070":                "control",
		"[2001:db8::5]:7070":              "control",
		"[fe80::5%eth0]:7070":             "control",
		"me.example:7070":                 "control",
		"192.0.2.5:7077":                  "control",
		"[64:ff9b::192.0.2.5]:7077":       "stands for 192.0.2.5, which is this daemon's own control",
		"10.66.1.1:7":                     "10.66.0.0/16 of --probe-deny",
		"[::ffff:10.66.1.1]:7":            "10.66.0.0/16 of --probe-deny",
		"[2002:a42:101::]:7":              "10.66.0.0/16 of --probe-deny",
		"[2001:db8:66::1]:7":              "2001:db8:66::/48 of --probe-deny",
	} {
		t.Run(address, func(t *testing.T) {
			var dialled atomic.Int32
			prober := probe.New(probe.Options{
				Permit: policy.Permit,
				LookupNetIP: func(_ context.Context, _, host string) ([]netip.Addr, error) {
					var found []netip.Addr
					for _, text := range names[host] {
						found = append(found, netip.MustParseAddr(text))
					}
					return found, nil
				},
				DialContext: func(context.Context, string, string) (net.Conn, error) {
					dialled.Add(1)
					return nil, errors.New("not in this test")
				},
			})
			plan := probe.Plan{Protocol: probe.TCP, Address: address, Count: 2, Timeout: time.Second, PayloadBytes: 1}
			report, err := prober.Run(t.Context(), plan, nil)
			if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), says) {
				t.Errorf("Run: %v; want a refusal that says %q", err, says)
			}
			if dialled.Load() != 0 || report.Sent != 0 {
				t.Errorf("%d dials, report %+v", dialled.Load(), report)
			}
			if len(report.Errors) != 1 || report.Errors[0].Reason != probe.ReasonTargetRefused || report.Errors[0].Message != err.Error() {
				t.Errorf("errors of the report: %+v", report.Errors)
			}
			host, _, _ := net.SplitHostPort(address)
			if err := prober.Check(plan); (err == nil) != (names[host] != nil) {
				t.Errorf("Check: %v; what is no name is refused at once, and what is one is not", err)
			}
		})
	}
}

func TestWhatLabsProbe(t *testing.T) {
	policy := New(Config{Control: addresses("127.0.0.1:7007"), HostPrefixes: aHost})
	for _, a := range addresses(
		"127.0.0.1:7", "127.0.0.2:7007", "[::1]:7007", "[::1]:7", "10.0.0.1:7", "172.16.0.1:7", "192.168.0.1:7", "192.0.2.5:7007", "192.0.2.0:7",
		"198.51.100.5:7", "203.0.113.9:7", "169.254.1.1:7", "[fe80::1%eth0]:7", "[fd00::1]:7", "100.64.0.1:7", "8.8.8.8:53", "[2001:4860:4860::8888]:53",
		"[64:ff9b::8.8.8.8]:53", "[64:ff9b:1::10.0.0.1]:7", "[2002:808:808::1]:7", "240.0.0.1:7",
	) {
		if err := policy.Permit(a, probe.TCP); err != nil {
			t.Errorf("TCP to %s: %v", a, err)
		}
	}
	if err := policy.Permit(netip.MustParseAddrPort("127.0.0.1:7007"), probe.UDP); err != nil {
		t.Errorf("UDP, of which the daemon has no control listener: %v", err)
	}
}

func TestOnlyWhatIsAllowed(t *testing.T) {
	policy := New(Config{Allow: prefixes("10.0.0.0/8", "127.0.0.0/8", "fe80::/10"), Deny: prefixes("10.66.0.0/16"), HostPrefixes: aHost})
	for address, ok := range map[string]bool{
		"10.1.2.3:7": true, "127.0.0.1:7": true, "[::ffff:10.1.2.3]:7": true, "[fe80::1%eth0]:7": true,
		"10.66.0.1:7": false, "11.0.0.1:7": false, "[::1]:7": false, "[64:ff9b::10.1.2.3]:7": false, "127.255.255.255:7": false,
	} {
		err := policy.Permit(netip.MustParseAddrPort(address), probe.UDP)
		if (err == nil) != ok {
			t.Errorf("%s: %v", address, err)
		}
	}
	err := policy.Permit(netip.MustParseAddrPort("11.0.0.1:7"), probe.UDP)
	if err == nil || !strings.Contains(err.Error(), "11.0.0.1:7 is not in --probe-allow, which is 10.0.0.0/8, 127.0.0.0/8, fe80::/10") {
		t.Errorf("%v", err)
	}
	many := New(Config{Allow: prefixes("1.0.0.0/8", "2.0.0.0/8", "3.0.0.0/8", "4.0.0.0/8", "5.0.0.0/8", "6.0.0.0/8", "7.0.0.0/8"), HostPrefixes: aHost})
	if err := many.Permit(netip.MustParseAddrPort("11.0.0.1:7"), probe.UDP); err == nil || !strings.HasSuffix(err.Error(), "5.0.0.0/8, and 2 more") {
		t.Errorf("%v", err)
	}
}

// TestANameThatFlips answers another address each time that a name is looked up, as DNS rebinding does.
func TestANameThatFlips(t *testing.T) {
	policy := New(Config{Control: addresses("127.0.0.1:7007"), HostPrefixes: aHost})
	answers := []string{"192.0.2.77", "127.0.0.1", "169.254.169.254"}
	lookups := 0
	var dialled []string
	prober := probe.New(probe.Options{
		Permit: policy.Permit,
		LookupNetIP: func(context.Context, string, string) ([]netip.Addr, error) {
			lookups++
			return []netip.Addr{netip.MustParseAddr(answers[(lookups-1)%len(answers)])}, nil
		},
		DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
			dialled = append(dialled, address)
			return nil, errors.New("not in this test")
		},
	})
	plan := probe.Plan{Protocol: probe.UDP, Address: "flips.example:7007", Count: 1, Timeout: time.Second, PayloadBytes: 64}
	if report, err := prober.Run(t.Context(), plan, nil); err != nil || report.Lost != 1 {
		t.Errorf("to the first answer: %+v, %v", report, err)
	}
	plan.Protocol = probe.TCP
	for range 2 {
		if _, err := prober.Run(t.Context(), plan, nil); !errors.Is(err, ErrRefused) {
			t.Errorf("to the other answers: %v", err)
		}
	}
	if lookups != 3 || len(dialled) == 0 {
		t.Errorf("%d lookups of 3 runs, dialled %q", lookups, dialled)
	}
	for _, address := range dialled {
		if address != "192.0.2.77:7007" {
			t.Errorf("dialled %s", address)
		}
	}
}

func TestCallsOfAnotherDaemon(t *testing.T) {
	policy := New(Config{Control: addresses("127.0.0.1:7007"), Deny: prefixes("10.66.0.0/16"), HostPrefixes: aHost})
	for address, ok := range map[string]bool{
		"127.0.0.1:7007": true, "10.0.0.1:7007": true,
		"169.254.169.254:80": false, "0.0.0.0:7007": false, "224.0.0.1:7007": false, "192.0.2.255:7007": false, "10.66.0.1:7007": false,
	} {
		if err := policy.PermitControl(netip.MustParseAddrPort(address)); (err == nil) != ok || err != nil && !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestAHostThatDoesNotTellItsAddresses(t *testing.T) {
	policy := New(Config{HostPrefixes: func() ([]netip.Prefix, error) { return nil, errors.New("no netlink") }})
	if err := policy.Permit(netip.MustParseAddrPort("10.0.0.1:7"), probe.UDP); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "no netlink") {
		t.Errorf("%v", err)
	}
}

func TestThisHost(t *testing.T) {
	found, err := hostPrefixes()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range found {
		if !p.IsValid() || p.Addr().Is4In6() || p.Addr().Is4() && p.Bits() > 32 {
			t.Errorf("an address of this host: %v", p)
		}
	}
	// The policy as a daemon has it.
	if err := New(Config{}).Permit(netip.MustParseAddrPort("127.0.0.1:7"), probe.TCP); err != nil {
		t.Error(err)
	}
}
