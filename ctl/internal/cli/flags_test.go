package cli

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"google.golang.org/protobuf/proto"
)

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "1": time.Second, "0.2": 200 * time.Millisecond, ".5": 500 * time.Millisecond, "40ms": 40 * time.Millisecond,
		"1m30s": 90 * time.Second, "8760h": 8760 * time.Hour, "0s": 0, "1.5s": 1500 * time.Millisecond,
	} {
		if got, err := parseDuration(text); err != nil || got != want {
			t.Errorf("parseDuration(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", " ", "abc", "-1", "-1s", "1 s", "1e3", "NaN", "Inf", "0x10", "1..2", ".",
		"99999999999"} {
		if got, err := parseDuration(text); err == nil {
			t.Errorf("parseDuration(%q) = %v, want an error", text, got)
		}
	}
}

func FuzzParseDuration(f *testing.F) {
	for _, s := range []string{"1", "0.2", "40ms", "-1", "1e9"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := parseDuration(s); err == nil && d < 0 {
			t.Errorf("parseDuration(%q) = %v", s, d)
		}
	})
}

func TestCountFlag(t *testing.T) {
	for _, text := range []string{"", "-1", "1.5", "4294967296", "abc", "0x1", "default"} {
		if err := new(countFlag).Set(text); err == nil {
			t.Errorf("%q is taken for a count", text)
		}
	}
	f := countFlag{}
	if f.proto() != nil {
		t.Error("a flag that was not given has a value")
	}
	if err := f.Set("4294967295"); err != nil || *f.proto() != 4294967295 {
		t.Errorf("Set: %v, value %v", err, f.proto())
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]uint64{
		"0": 0, "65536": 65536, "18446744073709551615": math.MaxUint64, "1k": 1000, "1kB": 1000, "2M": 2e6, "2MB": 2e6,
		"3G": 3e9, "3GB": 3e9, "4KiB": 4096, "5MiB": 5 << 20, "6GiB": 6 << 30, "1K": 1000, "7kib": 7168, "007": 7,
		"17179869183GiB": 17179869183 << 30,
	} {
		if got, err := parseSize(text, math.MaxUint64); err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "k", "-1", "+1", "1.5k", "1 k", "1KiBB", "1T", "1b", "0x10", "1e3", " 1", "default",
		"18446744073709551616", "17179869184GiB", "99999999999999999999k"} {
		if got, err := parseSize(text, math.MaxUint64); err == nil {
			t.Errorf("parseSize(%q) = %d, want an error", text, got)
		}
	}
	if _, err := parseSize("4GiB", math.MaxUint32); err == nil {
		t.Error("a size over the most is taken")
	}
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"1", "4KiB", "3g", "-1", "18446744073709551616"} {
		f.Add(s, uint64(math.MaxUint64))
	}
	f.Fuzz(func(t *testing.T, s string, most uint64) {
		n, err := parseSize(s, most)
		if err != nil {
			return
		}
		if again, err := parseSize(strconv.FormatUint(n, 10), most); n > most || err != nil || again != n {
			t.Errorf("parseSize(%q, %d) = %d, which is read as %d, %v", s, most, n, again, err)
		}
	})
}

func TestDSCP(t *testing.T) {
	for text, want := range map[string]uint32{
		"0": 0, "63": 63, "ef": 46, "EF": 46, "va": 44, "le": 1, "cs0": 0, "cs1": 8, "cs7": 56, "af11": 10, "af41": 34, "AF43": 38,
	} {
		var f dscpFlag
		if err := f.Set(text); err != nil || f.value != want || !f.set {
			t.Errorf("%q is %d, %v, want %d", text, f.value, err, want)
		}
	}
	for _, text := range []string{"", "-1", "64", "af14", "af44", "cs8", "af", "e", "0x10", "1.5", "ef "} {
		if err := new(dscpFlag).Set(text); err == nil {
			t.Errorf("%q is taken for a code point", text)
		}
	}
}

func TestSweep(t *testing.T) {
	var f sweepFlag
	if err := f.Set("64:1472:64"); err != nil || f.String() != "64:1472:64" {
		t.Errorf("%v, %v", &f, err)
	}
	for _, text := range []string{"", "1", "1:2", "1:2:3:4", ":2:1", "1:2:0", "2:1:1", "1:4294967296:1", "-1:2:1", "a:b:c"} {
		if err := new(sweepFlag).Set(text); err == nil {
			t.Errorf("%q is taken for a sweep", text)
		}
	}
}

func TestRate(t *testing.T) {
	var f rateFlag
	if err := f.Set("0.5"); err != nil || *f.value != 0.5 {
		t.Errorf("%v, %v", &f, err)
	}
	for _, text := range []string{"", "0", "-1", "NaN", "Inf", "1/s", "1e999"} {
		if err := new(rateFlag).Set(text); err == nil {
			t.Errorf("%q is taken for a rate", text)
		}
	}
}

func TestParseTarget(t *testing.T) {
	for text, want := range map[string]*echov1.ProbeTarget{
		"web-1":                   {Endpoint: "web-1"},
		"endpoint/list":           {Endpoint: "list"},
		"tcp://127.0.0.1:7":       {Address: "127.0.0.1:7", Protocol: echov1.Protocol_TCP},
		"UDP://host.example:7007": {Address: "host.example:7007", Protocol: echov1.Protocol_UDP},
		"udp://[fe80::1%eth0]:7":  {Address: "[fe80::1%eth0]:7", Protocol: echov1.Protocol_UDP},
	} {
		if got, err := parseTarget(text); err != nil || !proto.Equal(got, want) {
			t.Errorf("parseTarget(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "127.0.0.1:7", "tcp://", "tcp://host", "tcp://:7", "tcp://host:", "tcp://::1:7", "http://host:7", "://h:1",
		"tcp://host:7/path", "endpoint/", "endpoint/a/b", "a/b",
	} {
		var usage *usageError
		if got, err := parseTarget(text); !errors.As(err, &usage) {
			t.Errorf("parseTarget(%q) = %v, %v, want a usage error", text, got, err)
		}
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"web-1", "endpoint/list", "tcp://[::1]:7", "udp://h:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		target, err := parseTarget(s)
		if err == nil && (target.GetEndpoint() != "") == (target.GetAddress() != "") {
			t.Errorf("parseTarget(%q) = %v", s, target)
		}
	})
}

func TestParseServer(t *testing.T) {
	for text, want := range map[string]server{
		"127.0.0.1:7007":        {"tcp", "127.0.0.1:7007"},
		"lab-1":                 {"tcp", "lab-1:7007"},
		"[::1]:7":               {"tcp", "[::1]:7"},
		"::1":                   {"tcp", "[::1]:7007"},
		"[::1]":                 {"tcp", "[::1]:7007"},
		"unix:/run/echod.sock":  {"unix", "/run/echod.sock"},
		"unix:///run/e.sock":    {"unix", "/run/e.sock"},
		"unix:rel/echod.sock":   {"unix", "rel/echod.sock"},
		"host.example.com:http": {"tcp", "host.example.com:http"},
	} {
		if got, err := parseServer(text); err != nil || got != want {
			t.Errorf("parseServer(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "http://host:1", "unix:", ":7007", "host:", "a b", "[::1", "/run/echod.sock"} {
		if got, err := parseServer(text); err == nil {
			t.Errorf("parseServer(%q) = %v, want an error", text, got)
		}
	}
}

func FuzzParseServer(f *testing.F) {
	for _, s := range []string{"h:1", "::1", "[::1]:1", "unix:/x", "unix:///x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := parseServer(s); err == nil && (got.address == "" || strings.Contains(got.network, ":")) {
			t.Errorf("parseServer(%q) = %v", s, got)
		}
	})
}
