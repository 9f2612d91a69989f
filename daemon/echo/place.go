package echo

import (
	"errors"
	"strings"
)

// Place is where the sockets of an endpoint are made, if that is not where the engine is: another network namespace, say. A
// socket stays where it was made. Places that are the same are equal (==).
type Place interface {
	// Do calls f there, and answers f's error, or why it was not called. It may be called at any time while the endpoint is
	// there, by any goroutine; f is short and starts no goroutine.
	Do(f func() error) error
	// String completes what is said of an address, as in `in network namespace "a"`.
	String() string
}

// there calls f where the endpoint's sockets are to be made.
func (s Spec) there(f func() error) error { return doAt(s.Place, f) }

// doAt calls f at a place; nil is here.
func doAt(p Place, f func() error) error {
	if p == nil {
		return f()
	}
	return p.Do(f)
}

// where is what the endpoint is to be bound to, for people.
func (s Spec) where() string {
	text := s.Listen
	if s.Interface != "" {
		text += " on " + s.Interface
	}
	if s.Place != nil {
		text += " " + s.Place.String()
	}
	return text
}

// maxInterface is how long the name of an interface may be: IFNAMSIZ of Linux, without the zero at its end.
const maxInterface = 15

// checkInterface says whether there could be an interface of that name.
func checkInterface(name string) error {
	if len(name) > maxInterface || strings.ContainsAny(name, "/: \t\n\x00") || name == "." || name == ".." {
		return badSpec("interface %.*q is no name of one: at most %d characters, without '/', ':' and spaces", 2*maxInterface, name, maxInterface)
	}
	return nil
}

// interfaceError is an ErrInterfaceNotAvailable whose text is the problem alone.
type interfaceError string

func (e interfaceError) Error() string        { return string(e) }
func (e interfaceError) Is(target error) bool { return target == ErrInterfaceNotAvailable }

// isOwnWords says whether an error says all that there is to say, and its code is not to be taken for another reason.
func isOwnWords(err error) bool { return errors.Is(err, ErrInterfaceNotAvailable) }
