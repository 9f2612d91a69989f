//go:build !linux

package netns

// Namespace is a network namespace, of which there are none on this system. A nil one is the process's own.
type Namespace struct{}

// Open answers that there are no namespaces.
func Open(name string) (*Namespace, error) {
	if !isName(name) && name[:1] != "/" {
		return nil, noSuch(name)
	}
	return nil, notAvailable("network namespaces are for Linux; leave the network namespace out")
}

// ID answers the zero ID.
func (n *Namespace) ID() (ID, error) { return ID{}, nil }

// Do calls f.
func (n *Namespace) Do(f func() error) error { return f() }

// Close does nothing.
func (n *Namespace) Close() error { return nil }
