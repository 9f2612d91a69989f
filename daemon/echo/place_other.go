//go:build !linux

package echo

import "syscall"

// bindToInterfaceRaw binds to no interface: this system has other ways to, if any.
func bindToInterfaceRaw(_ syscall.RawConn, name string) error {
	if name != "" {
		return interfaceError("sockets are bound to an interface on Linux only; leave the interface out")
	}
	return nil
}

// numberZone leaves zones to package net.
func numberZone(a Address) Address { return a }

// namespaceOf is the same for all sockets: there is but one network namespace.
func namespaceOf(int) uint64 { return 0 }
