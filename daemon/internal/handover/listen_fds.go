package handover

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/echod/echod/daemon/echo"
)

// The variables of socket activation; see sd_listen_fds(3).
const (
	listenPID   = "LISTEN_PID"
	listenFDs   = "LISTEN_FDS"
	listenNames = "LISTEN_FDNAMES"
)

const (
	// firstFD is SD_LISTEN_FDS_START: standard input, output and error come before.
	firstFD = 3
	// maxPassed is how many sockets may be passed. Their names have to fit in one variable of the environment, for which
	// Linux has 128 KiB.
	maxPassed = 32768
	// unknownName is what sd_listen_fds_with_names(3) calls a socket without a name.
	unknownName = "unknown"
)

// Kind is what a passed socket is there for.
type Kind uint8

// The kinds of sockets.
const (
	Listening Kind = iota + 1 // a stream socket that takes connections
	Datagrams                 // a datagram socket
	Connected                 // a connection that was accepted already
)

// Socket is a socket that was passed to this process.
type Socket struct {
	Name string   // as the manager has it
	File *os.File // not inherited by children
	Kind Kind

	// Path is where a unix socket is; "" for one of TCP or UDP, and what follows is for those.
	Path     string
	Protocol echo.Protocol
	// Listen is where it is bound, as echo.ParseListen takes it; of a Connected one, its own end.
	Listen    string
	Interface string         // that it is bound to; empty: none
	Peer      netip.AddrPort // of a Connected one
}

// String tells which socket it is, for people.
func (s Socket) String() string {
	if s.Path != "" {
		return fmt.Sprintf("%q (unix %s)", s.Name, s.Path)
	}
	return fmt.Sprintf("%q (%s %s)", s.Name, s.Protocol, s.Listen)
}

// namesOf reads how many sockets were passed to the process pid, and how they are called. A warning says why it takes none of
// those that are there.
func namesOf(get func(string) string, pid int) (names []string, warning string, err error) {
	whose, count, given := get(listenPID), get(listenFDs), get(listenNames)
	if count == "" {
		return nil, "", nil
	}
	owner, err := strconv.Atoi(whose)
	if err != nil || owner <= 0 {
		return nil, "", fmt.Errorf("%s=%q: must be the number of the process that the sockets of %s are for", listenPID, whose, listenFDs)
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > maxPassed {
		return nil, "", fmt.Errorf("%s=%q: must be how many sockets were passed, 0 to %d", listenFDs, count, maxPassed)
	}
	if owner != pid {
		return nil, fmt.Sprintf("the %s sockets that %s tells of are not taken: they were passed to process %d, and this is %d", count, listenFDs, owner, pid), nil
	}
	if given == "" {
		for range n {
			names = append(names, unknownName)
		}
		return names, "", nil
	}
	names = strings.Split(given, ":")
	if len(names) != n {
		return nil, "", fmt.Errorf("%s has %d names, and %s=%d sockets were passed: there must be one for each", listenNames, len(names), listenFDs, n)
	}
	return names, "", nil
}
