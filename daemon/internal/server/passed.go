package server

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/handover"
	"github.com/echod/echod/daemon/internal/registry"
)

// The names of sockets that are control listeners. All others are endpoints.
const (
	passedGRPC = "echod-grpc"
	passedHTTP = "echod-http"
	passedUnix = "echod-control"
)

// ServiceManager takes what a service manager has left for this process: sockets, and where to tell how the daemon is. It is for
// a process that is a daemon and nothing else, first of all. The error is about a variable that makes no sense.
func ServiceManager() (*handover.Manager, error) {
	m, err := handover.FromEnvironment()
	if err != nil {
		return nil, fmt.Errorf("cannot take what the service manager has passed: %w", err)
	}
	return m, nil
}

// controlName is the name of a socket without what systemd has at its end where a unit gives none: it is the unit's then.
func controlName(name string) string { return strings.TrimSuffix(name, ".socket") }

func isControl(name string) bool {
	return slices.Contains([]string{passedGRPC, passedHTTP, passedUnix}, controlName(name))
}

// nothingToDo says why a daemon without flags for control listeners has nothing to do; nil: it was passed something that it has.
func nothingToDo(m *handover.Manager) error {
	const none = "nothing to listen on: give --grpc-listen, --http-listen or --socket"
	if m == nil {
		return errors.New(none)
	}
	unfit := slices.Clone(m.Warnings)
	for _, s := range m.Sockets {
		_, kept := handover.KeptFor(s.Name)
		switch {
		case isControl(s.Name), s.Path == "" && !kept:
			return nil
		case kept:
			unfit = append(unfit, fmt.Sprintf("the socket %s was kept over the last process, which had something to listen on", s))
		default:
			unfit = append(unfit, notAnEndpoint(s))
		}
	}
	return errors.New(strings.Join(append([]string{none}, unfit...), "; "))
}

// notAnEndpoint says why a unix socket is not taken.
func notAnEndpoint(s handover.Socket) string {
	return fmt.Sprintf("the passed socket %s is not taken: an endpoint is TCP or UDP, and a unix socket for control is named %s", s, passedUnix)
}

// takeControl takes the control listeners out of the sockets that were passed.
func takeControl(m *handover.Manager) (given controlListeners, err error) {
	var rest []handover.Socket
	var errs []error
	for _, s := range m.Sockets {
		var place *net.Listener
		wanted := "a listening TCP socket"
		switch controlName(s.Name) {
		case passedGRPC:
			place = &given.grpc
		case passedHTTP:
			place = &given.http
		case passedUnix:
			place, wanted = &given.unix, "a listening unix socket"
		default:
			rest = append(rest, s)
			continue
		}
		switch {
		case s.Kind != handover.Listening || (s.Path != "") != (controlName(s.Name) == passedUnix):
			errs = append(errs, fmt.Errorf("the passed socket %s is to be %s", s, wanted))
		case *place != nil:
			errs = append(errs, fmt.Errorf("two sockets of the name %s were passed, and one is taken: the second is %s", controlName(s.Name), s))
		default:
			*place, err = net.FileListener(s.File)
			given.unixPassed = given.unixPassed || controlName(s.Name) == passedUnix
			errs = append(errs, err)
		}
		_ = s.File.Close() // the listener has a descriptor of its own
	}
	m.Sockets = rest
	if err := errors.Join(errs...); err != nil {
		given.close()
		return controlListeners{}, err
	}
	return given, nil
}

// takeEndpoints takes the sockets of endpoints. Those that none can have are closed, and a warning tells of each.
func takeEndpoints(m *handover.Manager, store *handover.Store) (all []registry.Inherited) {
	for _, s := range m.Sockets {
		if s.Path != "" {
			m.Warnings = append(m.Warnings, notAnEndpoint(s))
			_ = s.File.Close()
			continue
		}
		in := registry.Inherited{Name: s.Name, Protocol: s.Protocol, Listen: s.Listen, Interface: s.Interface, Handed: echo.Handed{Socket: s.File}}
		if s.Kind == handover.Connected {
			in.Handed = echo.Handed{Connections: []echo.HandedConnection{{Socket: s.File}}}
		}
		if endpoint, kept := handover.KeptFor(s.Name); kept {
			in.KeptFor = endpoint
			store.Kept(s.Name)
		}
		all = append(all, in)
	}
	m.Sockets = nil
	return all
}

// takeSockets gives the registry what the service manager has passed, and its store to keep more.
func (d *daemon) takeSockets(c *registry.Config) {
	m := d.config.Manager
	if m == nil {
		return
	}
	store := m.NewStore(d.log)
	if store != nil {
		c.Keeper = store
	}
	c.Inherited = takeEndpoints(m, store)
}
