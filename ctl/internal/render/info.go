package render

import (
	"strconv"
	"time"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

func describeInfo(i *echov1.Info, r *echov1.Readiness, now time.Time) *pairs {
	p := &pairs{}
	p.add("Version", orDash(clean(i.GetVersion())))
	p.add("Platform", orDash(clean(i.GetPlatform())))
	p.add("PID", strconv.FormatUint(uint64(i.GetPid()), 10))
	started := moment(now, i.GetStartTime(), "-")
	if how := startText(i.GetStart()); how != "" {
		started += ", " + how
	}
	p.add("Started", started)
	if r != nil {
		p.add("Readiness", readinessLines(r)...)
	}
	listeners := make([]string, len(i.GetListeners()))
	for k, l := range i.GetListeners() {
		listeners[k] = clean(l.GetProtocol()) + " " + clean(l.GetAddress())
	}
	p.add("Listeners", listeners...)
	state := clean(i.GetStateDirectory())
	if state == "" {
		state = "none: endpoints end with the process"
	}
	p.add("State directory", state)
	p.add("Endpoints", number(i.GetEndpoints()))
	warnings := make([]string, len(i.GetWarnings()))
	for k, w := range i.GetWarnings() {
		warnings[k] = clean(w)
	}
	if len(warnings) == 0 {
		warnings = []string{"none"}
	}
	p.add("Warnings", warnings...)
	return p
}

func describeUpgrade(u *echov1.UpgradeDaemonResponse, tried bool) *pairs {
	p := &pairs{}
	pid := strconv.FormatUint(uint64(u.GetPid()), 10)
	if tried {
		pid += ", which has tried and ended: nothing was changed"
	}
	p.add("PID", pid)
	p.add("Version", orDash(clean(u.GetVersion())))
	p.add("Before", orDash(clean(u.GetPreviousVersion())))
	p.add("Endpoints", number(u.GetEndpoints()))
	if !tried {
		p.add("Connections", number(u.GetConnections()))
		p.add("Pause", milliseconds(u.GetPause())+" ms")
	}
	return p
}

func describeVersion(v Version) *pairs {
	p := &pairs{}
	p.add("Client", clean(v.Client.Version)+" ("+clean(v.Client.Platform)+")")
	if v.Daemon == nil {
		p.add("Daemon", "none that answers")
		return p
	}
	p.add("Daemon", clean(v.Daemon.Version)+" ("+clean(v.Daemon.Platform)+") at "+clean(v.Daemon.Address))
	return p
}
