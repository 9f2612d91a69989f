// Package handover gets sockets from those who have them already, and gives them on: from the service manager (systemd's socket
// activation), to and from its descriptor store, which outlives a crash, and to and from the next binary. It tells the service
// manager how the daemon is, too. It serves no socket and knows no endpoint; server calls it.
package handover

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Manager is what the service manager has given to this process, and how it is told. Files gets the sockets out.
type Manager struct {
	// Sockets are those that were passed, in their order. They belong to who takes them.
	Sockets []Socket
	// Warnings tell of what was passed and cannot be used, each with its name.
	Warnings []string
	// Notifier tells the manager how the daemon is. Nil: it does not want to know.
	Notifier *Notifier
	// Watchdog is how long the manager may hear nothing before it ends the daemon. 0: it does not mind.
	Watchdog time.Duration
	// StoreMax is how many descriptors the manager keeps for this process; -1: it does not tell (systemd before 254).
	StoreMax int
}

// FromEnvironment takes what a service manager has left for this process in the environment, and out of it, so that no child
// takes it for its own. It is called once, before anything opens a file. The error is about a variable that makes no sense.
func FromEnvironment() (*Manager, error) {
	m := &Manager{StoreMax: -1}
	var errs []error
	note := func(err error) { errs = append(errs, err) }

	var err error
	m.StoreMax, err = storeMax(os.Getenv("FDSTORE"))
	note(err)
	m.Watchdog, err = watchdog()
	note(err)
	m.Sockets, m.Warnings, err = passed()
	note(err)
	var warning string
	m.Notifier, warning, err = notifierFor(os.Getenv(notifyVariable))
	note(err)
	if warning != "" {
		m.Warnings = append(m.Warnings, warning)
	}
	for _, variable := range []string{listenPID, listenFDs, listenNames, notifyVariable, "FDSTORE"} {
		_ = os.Unsetenv(variable) // fails for a name that is none
	}
	if err := errors.Join(errs...); err != nil {
		m.Close()
		return nil, err
	}
	if m.Notifier == nil {
		m.Watchdog = 0 // there is nobody to tell
	}
	return m, nil
}

// Close gives back what nobody has taken.
func (m *Manager) Close() {
	closeAll(m.Sockets)
	m.Sockets = nil
	_ = m.Notifier.Close() // nothing is under way
}

func closeAll(sockets []Socket) {
	for _, s := range sockets {
		_ = s.File.Close() // who takes it in our place has it anyway
	}
}

func watchdog() (time.Duration, error) {
	given := os.Getenv("WATCHDOG_USEC")
	every, err := daemon.SdWatchdogEnabled(true)
	if err != nil {
		return 0, fmt.Errorf("WATCHDOG_USEC=%q: %w; it is how many microseconds the service manager waits for a sign of life, WATCHDOG_PID whose", given, err)
	}
	return every, nil
}

func storeMax(text string) (int, error) {
	if text == "" {
		return -1, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return -1, fmt.Errorf("FDSTORE=%q: must be how many descriptors the service manager keeps", text)
	}
	return n, nil
}
