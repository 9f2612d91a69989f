package registry

import (
	"net/netip"
	"testing"

	"github.com/echod/echod/daemon/echo"
)

// TestANamespaceWrittenInTwoWays: a name and its path are one place, to which no new socket is needed.
func TestANamespaceWrittenInTwoWays(t *testing.T) {
	def := Definition{Name: "a", Protocol: echo.TCP, Listen: "127.0.0.1:7000", NetworkNamespace: "lab"}
	e := &entry{state: Serving, address: netip.MustParseAddrPort("127.0.0.1:7000"), live: new(echo.Endpoint)}
	e.define(def)
	otherwise := def
	otherwise.NetworkNamespace = "/run/netns/lab"
	if address, err := e.admit(otherwise); err != nil || address != e.address {
		t.Errorf("an update keeps %v, %v", address, err)
	}
	s := &step{}
	if field, err := s.change(e, Wanted{Definition: otherwise}, false); err != nil || s.Action != ActionUpdate || s.socket != nil {
		t.Errorf("an apply: %s, %v, %+v", field, err, s)
	}
	if spec(def, e.address).Place != spec(otherwise, e.address).Place {
		t.Error("the engine is told of two places")
	}
	if !def.IsIn("/var/run/netns/lab") || def.IsIn("") || def.IsIn("other") || !(Definition{}).IsIn("") {
		t.Error("it does not know where it is")
	}
}
