package registry

import (
	"errors"
	"fmt"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/netns"
)

// ErrNamespaceNotAvailable says that the network namespace of an endpoint cannot be entered.
var ErrNamespaceNotAvailable = netns.ErrNotAvailable

// namespace is where the engine makes the sockets of endpoints: a network namespace, by its name or path.
type namespace string

// Do calls f inside.
func (n namespace) Do(f func() error) error { return netns.Do(string(n), f) }

// namespace is where the sockets of a definition are made; empty: here.
func (d Definition) namespace() namespace { return namespace(netns.Canonical(d.NetworkNamespace)) }

// IsIn says whether an endpoint with this definition is in a network namespace, by the names of both.
func (d Definition) IsIn(name string) bool { return string(d.namespace()) == netns.Canonical(name) }

// where is what a definition listens on, for people.
func (d Definition) where() string {
	text := d.Listen
	if d.Interface != "" {
		text += " on " + d.Interface
	}
	if d.NetworkNamespace != "" {
		text += " " + namespace(d.NetworkNamespace).String()
	}
	return text
}

// socketField is the field of a definition that an error of its socket is about.
func socketField(err error) string {
	switch {
	case errors.Is(err, ErrNamespaceNotAvailable):
		return "network_namespace"
	case errors.Is(err, echo.ErrInterfaceNotAvailable):
		return "interface"
	default:
		return "listen"
	}
}

func (n namespace) String() string { return fmt.Sprintf("in network namespace %q", string(n)) }
