package netns

import (
	"slices"
	"testing"
)

func TestCanonical(t *testing.T) {
	for name, want := range map[string]string{
		"": "", "a": "a", "/run/netns/a": "a", "/var/run/netns/a": "a",
		"/run/netns/": "/run/netns/", "/run/netns/..": "/run/netns/..", "/run/netns/a/b": "/run/netns/a/b",
		"/run/netns2/a": "/run/netns2/a", "/proc/1/ns/net": "/proc/1/ns/net",
	} {
		if got := Canonical(name); got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
}

func TestPaths(t *testing.T) {
	for name, want := range map[string][]string{
		"": nil, "a": {"/run/netns/a", "/var/run/netns/a"}, "/run/netns/a": {"/run/netns/a"}, "a/b": nil, "..": nil,
	} {
		if got := Paths(name); !slices.Equal(got, want) {
			t.Errorf("%q may be at %q, want %q", name, got, want)
		}
	}
}
