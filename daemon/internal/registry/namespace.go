package registry

import (
	"fmt"

	"github.com/echod/echod/daemon/internal/netns"
)

// ErrNamespaceNotAvailable says that the network namespace of an endpoint cannot be entered.
var ErrNamespaceNotAvailable = netns.ErrNotAvailable

// namespace is where the engine makes the sockets of endpoints: a network namespace, by its name or path.
type namespace string

// Do calls f inside.
func (n namespace) Do(f func() error) error { return netns.Do(string(n), f) }

func (n namespace) String() string { return fmt.Sprintf("in network namespace %q", string(n)) }
