package gateway

import (
	"fmt"
	"net/http"
	"strings"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// healthz says that the process answers and is not stuck; whether it can do its work is readyz.
func healthz(alive func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if alive != nil {
			if err := alive(); err != nil {
				writeText(w, http.StatusServiceUnavailable, err.Error()+"\n")
				return
			}
		}
		writeText(w, http.StatusOK, "ok\n")
	}
}

// readyz says whether the daemon does its work, which one that is degraded does; with ?verbose, what was checked for that.
func readyz(daemon echov1.DaemonServiceClient) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		verbose, problem := verboseQuery(r)
		if problem != "" {
			writeStatus(w, http.StatusBadRequest, badValue("query", problem))
			return
		}
		readiness, err := daemon.GetReadiness(r.Context(), &echov1.GetReadinessRequest{})
		code, text := http.StatusOK, "ok\n"
		if err != nil || readiness.GetState() == echov1.Readiness_NOT_READY {
			code, text = http.StatusServiceUnavailable, "not ready\n"
		}
		if verbose {
			text = checkLines(readiness) + resultText(readiness.GetState()) + "\n"
		}
		writeText(w, code, text)
	}
}

// verboseQuery reads the one parameter that there is; problem says what is wrong with others.
func verboseQuery(r *http.Request) (verbose bool, problem string) {
	values, err := parseQuery(r)
	if err != nil {
		return false, "cannot be read: " + err.Error()
	}
	for name, given := range values {
		switch {
		case name != "verbose":
			return false, fmt.Sprintf("%q is no query parameter of GET /readyz; it takes verbose", shorten(name))
		case len(given) > 1 || given[0] != "" && given[0] != "true":
			return false, "verbose takes no value: say /readyz?verbose"
		}
		verbose = true
	}
	return verbose, ""
}

// checkLines writes what was checked, a line each.
func checkLines(r *echov1.Readiness) string {
	var b strings.Builder
	for _, c := range r.GetChecks() {
		mark, text := "-", c.GetMessage()
		switch c.GetState() {
		case echov1.Readiness_READY:
			mark, text = "+", "ok"
		case echov1.Readiness_DEGRADED:
			mark = "!"
		}
		fmt.Fprintf(&b, "[%s] %s: %s\n", mark, c.GetName(), oneLine(text))
	}
	return b.String()
}

// oneLine keeps a message of several lines from looking like several checks.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

func resultText(s echov1.Readiness_State) string {
	switch s {
	case echov1.Readiness_READY:
		return "ready"
	case echov1.Readiness_DEGRADED:
		return "degraded"
	default:
		return "not ready"
	}
}

func writeText(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text)) // a client that went away is told nothing
}
