//go:build !linux

package handover

import (
	"fmt"
	"os"
)

// passed takes none: socket activation is for Linux.
func passed() ([]Socket, []string, error) {
	names, warning, err := namesOf(os.Getenv, os.Getpid())
	switch {
	case err != nil:
		return nil, nil, err
	case warning != "":
		return nil, []string{warning}, nil
	case len(names) > 0:
		return nil, nil, fmt.Errorf("%s: sockets cannot be passed on this system", listenFDs)
	}
	return nil, nil, nil
}
