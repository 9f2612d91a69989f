package cli

import (
	"strings"
	"testing"
)

func TestRenew(t *testing.T) {
	s := at(t, ownDaemon(t).GRPC)
	s.ok("create", "tcp", "--name", "a", "--ttl", "10m", "-l", "k=v")
	s.ok("create", "udp", "--name", "b", "--ttl", "10m")
	s.ok("create", "udp", "--name", "ever")
	s.run("renew", "a", "ever", "nobody").want(t, 1,
		"NAME PROTOCOL ADDRESS STATE AGE EXPIRES LABELS\na TCP 127.0.0.1:* SERVING 0s in * k=v\n",
		"echoctl: the endpoint has no ttl: \"ever\" lives until it is deleted; say for how long it shall\n"+
			"give it one: echoctl renew ever --ttl 10m\n"+
			"echoctl: no such endpoint: \"nobody\"\nechoctl list shows those there are\n")
	s.run("renew", "-l", "k=v", "-o", "name").want(t, 0, "a\n", "")
	s.run("renew", "-l", "k=x", "-o", "name").want(t, 0, "", "no endpoint with a ttl matches\n")
	s.run("renew", "--filter", "*", "-o", "name").want(t, 0, "a\nb\n", "")
	s.run("renew", "--filter", "name =", "-o", "name").want(t, 1, "", "echoctl: filter: *\n")
	s.run("renew", "a", "--ttl", "1ms").want(t, 1, "", "echoctl: a: ttl: must be 1s to 8760h, not 1ms\n")
	wantField(t, s.json("renew", "ever", "--ttl", "1h"), "ttl", `"3600s"`)
	out := s.ok("get", "ever")
	for _, want := range []string{"TTL: 1h\n", "Expires: ", "Z (in "} {
		if !strings.Contains(spaces.ReplaceAllString(out, " "), want) {
			t.Errorf("get does not say %q:\n%s", want, out)
		}
	}
	s.ok("update", "ever", "--ttl", "0")
	if out := s.ok("get", "ever"); strings.Contains(out, "Expires") {
		t.Errorf("without a ttl:\n%s", out)
	}
}
