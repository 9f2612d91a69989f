package server

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"regexp"
	"time"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/handover"
)

// Version is the daemon's version, set when it is built.
var Version = "dev"

// Config is what a daemon is to be. An empty listen address or path switches that listener off.
type Config struct {
	GRPCListen     string          // "HOST:PORT" for gRPC; port 0 picks one
	HTTPListen     string          // "HOST:PORT" for REST; port 0 picks one
	Socket         string          // path of the unix socket for gRPC
	StateDir       string          // where endpoints survive a restart; empty: in memory only
	AcceptDataLoss bool            // start empty where the state is lost
	StateChecker   []string        // a command that calls CheckState with a path that is appended to it; empty: this process checks
	DefaultHost    string          // where endpoints listen that do not say; an IP address
	ReadyFile      string          // gets one JSON object once the daemon is ready
	OnReady        func(Ready)     // called once, when the daemon is ready; must not wait for it; may be nil
	DrainDelay     time.Duration   // how long a stop is told before anything is stopped; 0: not at all
	DrainTimeout   time.Duration   // how long a stop waits for open connections; 0: not at all
	CutDrain       <-chan struct{} // closed: a stop waits for nothing more; nil: it never is
	StrictReady    bool            // not ready, rather than degraded, while an endpoint has failed
	AllowHosts     []string        // host names that REST requests may be addressed to, besides localhost
	ProbeAllow     []string        // addresses and prefixes that probes may go to; empty: to all that is not refused
	ProbeDeny      []string        // addresses and prefixes that probes may not go to
	ProbeLimits    ProbeLimits     // how much probes may take
	Insecure       bool            // let control listeners be open to the network, unprotected
	Log            *slog.Logger    // required

	// Executable is the path of the binary that an upgrade starts, with this process's arguments; empty: there are no upgrades.
	Executable string
	// UpgradeSignal has the daemon upgraded at each receive, as UpgradeDaemon does; nil: never.
	UpgradeSignal <-chan os.Signal
	// UpgradeTimeout is how long an upgrade may take before it is given up; 0: defaultUpgradeTimeout.
	UpgradeTimeout time.Duration
	// Predecessor is the process that this one takes over from; nil: there is none.
	Predecessor *handover.Link
	// Manager is what a service manager has passed to this process, as ServiceManager takes it. Run takes it over. Nil: nothing.
	Manager *handover.Manager

	silence   time.Duration // half of how long a client's host may be silent before it is gone; 0: defaultSilence
	httpTimes httpTimes

	restoring   func(Ready)  // called before anything is restored, with where calls are taken already; a test's
	storeHealth func() error // in place of the store's; a test's
}

// httpTimes are the timeouts of REST, which a test may shorten; 0 is the time that is right. None of them is one of a stream.
type httpTimes struct {
	header time.Duration // for the head of a request to come
	idle   time.Duration // between requests of a connection
	body   time.Duration // for the body of a request to come
	write  time.Duration // for a client to take what is written to it at once
}

// check says what is wrong with a configuration before anything is done.
func (c Config) check() error {
	var errs []error
	for _, l := range []struct{ flag, address string }{{"grpc-listen", c.GRPCListen}, {"http-listen", c.HTTPListen}} {
		if l.address == "" {
			continue
		}
		host, _, err := net.SplitHostPort(l.address)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("--%s %q: must be HOST:PORT, as in 127.0.0.1:7007", l.flag, l.address))
		case !isLoopback(host) && !c.Insecure:
			errs = append(errs, fmt.Errorf("--%s %s: is open to the network, and anybody who reaches it can control this daemon; "+
				"use a loopback address or the unix socket, or say --insecure if the network is yours alone", l.flag, l.address))
		}
	}
	if c.GRPCListen == "" && c.HTTPListen == "" && c.Socket == "" && c.Predecessor == nil {
		errs = append(errs, nothingToDo(c.Manager))
	}
	if _, err := echo.ParseListen(net.JoinHostPort(c.DefaultHost, "0")); err != nil {
		errs = append(errs, fmt.Errorf("--default-host %q: must be an IP address to listen on, as in 127.0.0.1: %w", c.DefaultHost, err))
	}
	for _, host := range c.AllowHosts {
		if !hostName.MatchString(host) {
			errs = append(errs, fmt.Errorf("--http-allow-host %q: must be a host name without a port, as in lab-1.example", host))
		}
	}
	if c.DrainDelay < 0 {
		errs = append(errs, fmt.Errorf("--drain-delay %v: must not be negative", c.DrainDelay))
	}
	if c.DrainTimeout < 0 {
		errs = append(errs, fmt.Errorf("--drain-timeout %v: must not be negative", c.DrainTimeout))
	}
	if c.UpgradeTimeout < 0 {
		errs = append(errs, fmt.Errorf("--upgrade-timeout %v: must not be negative", c.UpgradeTimeout))
	}
	_, err := c.targets(&controlListeners{})
	return errors.Join(append(errs, err, c.ProbeLimits.check())...)
}

// defaultSilence is after how much silence a client's host is asked whether it is there, and how long it may take to answer.
// What a client holds open ends when it does not: its session, its probe.
const defaultSilence = 10 * time.Second

func (c Config) upgradeTimeout() time.Duration {
	return cmp.Or(c.UpgradeTimeout, defaultUpgradeTimeout)
}

func (c Config) clientSilence() time.Duration { return cmp.Or(c.silence, defaultSilence) }

var hostName = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9.]{0,251}[A-Za-z0-9])?$`)

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
