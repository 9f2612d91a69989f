//go:build !unix

package echo

import (
	"net/netip"
	"os"
)

// canHandOver says whether this system can hand sockets over.
func canHandOver() error { return ErrCannotHandOver }

// The rest is not reached.

func checkListener(*os.File, Address, Spec) (netip.AddrPort, error) {
	return netip.AddrPort{}, ErrCannotHandOver
}

func checkUDP(*os.File, Address, Spec) (netip.AddrPort, error) {
	return netip.AddrPort{}, ErrCannotHandOver
}

func checkServed(*os.File) (netip.AddrPort, error) { return netip.AddrPort{}, ErrCannotHandOver }

func checkConnection(*os.File, Address) (local, peer netip.AddrPort, err error) {
	return local, peer, ErrCannotHandOver
}

func prepareListener(*os.File, Spec) error { return ErrCannotHandOver }

func prepareConnection(*os.File) {}

func prepareUDP(*os.File, Address, *guard) error { return ErrCannotHandOver }

func duplicateFile(uintptr, string) (*os.File, error) { return nil, ErrCannotHandOver }
