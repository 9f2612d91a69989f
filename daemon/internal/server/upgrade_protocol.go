package server

import (
	"encoding/json"
	"time"

	"github.com/echod/echod/daemon/internal/event"
	"github.com/echod/echod/daemon/internal/handover"
	"github.com/echod/echod/daemon/internal/registry"
)

// An upgrade, by its messages. The daemon that goes ("old") sends what it has while it serves, then holds still for the moment
// that the sockets take, and lets go only when the other one ("new") has said that it has everything:
//
//	new: hello           version, protocol
//	old: manifest, then every session, endpoint and monitor as a record        changes are refused from here on
//	new: checked         it understands all of it; the end, if that was only to be tried
//	old: state free      with the control listeners, and sockets of the service manager; its state file is closed
//	new: assembled       it has opened the state file and made everything
//	old: ledgers         of probes that came here
//	old: sockets         of each endpoint, with their connections               nothing is echoed from here on
//	new: adopted
//	old: go
//	new: taken           from here on the new one is the daemon, whatever happens
//	new: resumed         echo goes on
//	old: told            the service manager knows the new one, and listens to it
//	new: serving         control calls are taken; the old one ends
//
// Until taken, whatever is wrong with the new one, the old one ends it and goes on.
const (
	helloMessage handover.MessageKind = iota + 1
	manifestMessage
	recordMessage
	checkedMessage
	stateFreeMessage
	assembledMessage
	ledgersMessage
	socketsMessage
	connectionsMessage
	adoptedMessage
	goMessage
	takenMessage
	resumedMessage
	toldMessage
	servingMessage
)

// upgradeProtocol numbers what is said in an upgrade. A daemon that speaks more than one says from which on.
const upgradeProtocol = 1

const (
	// changePatience is how long changes that are under way may take to end before an upgrade is given up for them.
	changePatience = 5 * time.Second
	// stillPatience is how long endpoints are paused at most before an upgrade is given up: their peers may notice that.
	stillPatience = 5 * time.Second
	// defaultUpgradeTimeout is how long an upgrade may take in all.
	defaultUpgradeTimeout = 30 * time.Second
	// maxHanded is how many records of a kind one daemon takes from another.
	maxHanded = 1 << 22
	// connectionsAtATime are sent in one message, whose pending bytes are 256 times 32 KiB at most, in base64.
	connectionsAtATime = 256
)

type hello struct {
	Protocol       int    `json:"protocol"`
	OldestProtocol int    `json:"oldestProtocol"`
	Version        string `json:"version"`
	PID            int    `json:"pid"`
}

// manifest is what comes, and what the two daemons have to agree on.
type manifest struct {
	Protocol     int               `json:"protocol"`
	Version      string            `json:"version"`
	ValidateOnly bool              `json:"validateOnly,omitempty"`
	StateDir     string            `json:"stateDir,omitempty"`
	Executable   string            `json:"executable,omitempty"` // what was started, which a script may have exec'd another binary from
	Listeners    []handedListener  `json:"listeners,omitempty"`
	Events       event.Place       `json:"events"`
	Sessions     int               `json:"sessions"`
	Endpoints    int               `json:"endpoints"`
	Monitors     int               `json:"monitors"`
	Live         int               `json:"live"`
	records      []json.RawMessage // sessions, endpoints, monitors
}

// handedListener is a control listener, in the order of their descriptors.
type handedListener struct {
	Flag  string `json:"flag"`  // grpc-listen, http-listen or socket
	Value string `json:"value"` // of the flag
	// Passed says that the service manager has made it.
	Passed bool `json:"passed,omitempty"`
}

// handedSockets is what comes of one endpoint: messages with its connections follow, and behind those of all the descriptors.
type handedSockets struct {
	registry.HandedSockets
	HasSocket       bool
	ConnectionCount int
}

type nothing struct{}
