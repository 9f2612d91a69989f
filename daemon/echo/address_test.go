package echo_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/echod/echod/daemon/echo"
)

func TestParseListen(t *testing.T) {
	for listen, want := range map[string]struct{ canonical, ip string }{
		":7":                        {":7", ""},
		":0":                        {":0", ""},
		"0.0.0.0:7":                 {"0.0.0.0:7", "0.0.0.0"},
		"[::]:65535":                {"[::]:65535", "::"},
		"[0:0::0]:1":                {"[::]:1", "::"},
		"127.0.0.1:7":               {"127.0.0.1:7", "127.0.0.1"},
		"localhost:7":               {"127.0.0.1:7", "127.0.0.1"},
		"LocalHost:7":               {"127.0.0.1:7", "127.0.0.1"},
		"[::1]:7":                   {"[::1]:7", "::1"},
		"[FE80::1%eth0]:7":          {"[fe80::1%eth0]:7", "fe80::1%eth0"},
		"[::ffff:10.0.0.1]:7":       {"10.0.0.1:7", "10.0.0.1"},
		"[::ffff:169.254.1.1]:7":    {"169.254.1.1:7", "169.254.1.1"},
		"[2001:db8:0:0:0:0:0:1]:80": {"[2001:db8::1]:80", "2001:db8::1"},
	} {
		address, err := echo.ParseListen(listen)
		if err != nil {
			t.Errorf("%q: %v", listen, err)
			continue
		}
		var ip netip.Addr
		if want.ip != "" {
			ip = netip.MustParseAddr(want.ip)
		}
		if address.String() != want.canonical || address.IP != ip {
			t.Errorf("%q: got %v with IP %v, want %v with IP %v", listen, address, address.IP, want.canonical, ip)
		}
	}
}

func TestParseListenRefuses(t *testing.T) {
	for listen, hint := range map[string]string{
		"":                     "no port",
		"7":                    "no port",
		"127.0.0.1":            "no port",
		"127.0.0.1:":           "decimal number",
		":65536":               "decimal number",
		":-1":                  "decimal number",
		":+7":                  "decimal number",
		":07":                  "leading zeros",
		":0x7":                 "decimal number",
		":7 ":                  "decimal number",
		":echo":                "decimal number",
		":٧":                   "decimal number",
		"example.com:7":        "host names other than localhost",
		"256.0.0.1:7":          "not an IP address",
		"127.1:7":              "not an IP address",
		" 127.0.0.1:7":         "not an IP address",
		"*:7":                  "not an IP address",
		"::1:7":                "brackets",
		"::":                   "decimal number",
		"[::1]":                "decimal number",
		"[::1:7":               `as in "[::1]:7"`,
		"[]:7":                 "not an IPv6 address",
		"[localhost]:7":        "not an IPv6 address",
		"[127.0.0.1]:7":        "without brackets",
		"127.0.0.1%lo:7":       "not an IP address",
		"[::1%lo]:7":           "link-local",
		"[fe80::1]:7":          "needs its zone",
		"224.0.0.1:7":          "multicast",
		"[ff02::1]:7":          "multicast",
		"[::ffff:224.0.0.1]:7": "multicast",
		"255.255.255.255:7":    "broadcast",
	} {
		address, err := echo.ParseListen(listen)
		if !errors.Is(err, echo.ErrBadSpec) || !strings.Contains(err.Error(), hint) {
			t.Errorf("%q: got %v and error %v; want an ErrBadSpec that says %q", listen, address, err, hint)
		}
	}
}

func FuzzParseListen(f *testing.F) {
	for _, seed := range []string{
		":7", "0.0.0.0:7", "[::]:0", "localhost:65535", "[fe80::1%eth0]:7", "::1:7", "[::ffff:1.2.3.4]:7",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, listen string) {
		address, err := echo.ParseListen(listen)
		if err != nil {
			if !errors.Is(err, echo.ErrBadSpec) || address != (echo.Address{}) {
				t.Fatalf("%q: got %v and error %v", listen, address, err)
			}
			return
		}
		again, err := echo.ParseListen(address.String())
		if err != nil || again != address {
			t.Fatalf("%q means %v, which means %v (%v)", listen, address, again, err)
		}
		if address.IP.Is4In6() || address.IP.IsMulticast() {
			t.Fatalf("%q means %v", listen, address)
		}
	})
}

func TestValidate(t *testing.T) {
	good := echo.Spec{Protocol: echo.TCP, Listen: ":7", TCP: echo.TCPOptions{
		OneShot: true, IdleTimeout: time.Second, MaxConnections: 1}}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for hint, s := range map[string]echo.Spec{
		"protocol":                     {Listen: ":7"},
		"protocol must":                {Protocol: 3, Listen: ":7"},
		"listen":                       {Protocol: echo.UDP},
		"idle timeout -1s":             {Protocol: echo.TCP, Listen: ":7", TCP: echo.TCPOptions{IdleTimeout: -time.Second}},
		"connections -1":               {Protocol: echo.TCP, Listen: ":7", TCP: echo.TCPOptions{MaxConnections: -1}},
		"UDP endpoint takes no TCP op": {Protocol: echo.UDP, Listen: ":7", TCP: echo.TCPOptions{OneShot: true}},
	} {
		if err := s.Validate(); !errors.Is(err, echo.ErrBadSpec) || !strings.Contains(err.Error(), hint) {
			t.Errorf("%+v: got %v, want an ErrBadSpec that says %q", s, err, hint)
		}
		if _, err := echo.New(echo.Options{}).Listen(t.Context(), s); !errors.Is(err, echo.ErrBadSpec) {
			t.Errorf("Listen(%+v): got %v, want ErrBadSpec", s, err)
		}
	}
}

func TestProtocolString(t *testing.T) {
	for p, want := range map[echo.Protocol]string{echo.TCP: "TCP", echo.UDP: "UDP", 9: "Protocol(9)"} {
		if p.String() != want {
			t.Errorf("got %q, want %q", p, want)
		}
	}
}

func TestOverlaps(t *testing.T) {
	for _, all := range [][3]string{
		{":7", "0.0.0.0:7", "[::1]:7"},
		{"0.0.0.0:7", "127.0.0.1:7", ":7"},
		{"[::]:7", "[::1]:7", "[fe80::1%eth0]:7"},
		{"127.0.0.1:7", "localhost:7", "127.0.0.1:7"},
	} {
		for _, other := range all[1:] {
			if a, b := parsed(t, all[0]), parsed(t, other); !a.Overlaps(b) || !b.Overlaps(a) {
				t.Errorf("%s and %s are apart", all[0], other)
			}
		}
	}
	for _, pair := range [][2]string{
		{":7", ":8"}, {"0.0.0.0:7", "[::]:7"}, {"0.0.0.0:7", "[::1]:7"}, {"127.0.0.1:7", "127.0.0.2:7"}, {"[fe80::1%eth0]:7", "[fe80::1%eth1]:7"},
	} {
		if a, b := parsed(t, pair[0]), parsed(t, pair[1]); a.Overlaps(b) || b.Overlaps(a) {
			t.Errorf("%s and %s overlap", pair[0], pair[1])
		}
	}
}

func parsed(t *testing.T, listen string) echo.Address {
	t.Helper()
	a, err := echo.ParseListen(listen)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
