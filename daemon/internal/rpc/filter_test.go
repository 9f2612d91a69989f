package rpc

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/monitor"
	"github.com/echod/echod/daemon/internal/registry"
)

var filtered = registry.Endpoint{
	Definition: registry.Definition{
		Name: "web-1", Protocol: echo.TCP, Listen: "127.0.0.1:0", Description: "the first one", NetworkNamespace: "lab-a", Interface: "eth1",
		Labels: map[string]string{"rack": "r1", "env": "test", "app.example/part-of": "lab"},
		TTL:    10 * time.Minute, Session: "ci",
	},
	UID: "7c9e6679", State: registry.Serving, Address: netip.MustParseAddrPort("127.0.0.1:7007"),
	CreateTime: time.Date(2026, 1, 31, 18, 0, 0, 0, time.UTC), ExpireTime: time.Date(2026, 1, 31, 18, 10, 0, 0, time.UTC),
}

func TestFilter(t *testing.T) {
	for filter, want := range map[string]bool{
		``:                                     true,
		`   `:                                  true,
		`name = "web-1"`:                       true,
		`name = "web-2"`:                       false,
		`name = "web-*"`:                       true,
		`name = "*-1"`:                         true,
		`name = "*eb*"`:                        true,
		`name = "db-*"`:                        false,
		`name != "web-2"`:                      true,
		`name != "web-*"`:                      false,
		`name > "web-0" AND name < "web-2"`:    true,
		`name >= "web-1" AND name <= "web-1"`:  true,
		`protocol = TCP`:                       true,
		`protocol = "UDP"`:                     false,
		`state = SERVING`:                      true,
		`state = STOPPED OR state = SERVING`:   true,
		`NOT state = SERVING`:                  false,
		`-state = STOPPED`:                     true,
		`port = 7007`:                          true,
		`port != 7007`:                         false,
		`port > 7000 port < 8000`:              true,
		`port >= 7008`:                         false,
		`port <= 7007`:                         true,
		`labels.rack = "r1"`:                   true,
		`labels.rack = "r2"`:                   false,
		`labels.rack != "r2"`:                  true,
		`labels.none = "x"`:                    false,
		`labels.none != "x"`:                   true,
		`labels:env`:                           true,
		`labels."app.example/part-of" = "lab"`: true,
		`labels."app.example/part-of" = "x"`:   false,
		`labels:"app.example/part-of"`:         true,
		`labels:none`:                          false,
		`labels.rack:"1"`:                      true,
		`description:"first"`:                  true,
		`network_namespace = "lab-*"`:          true,
		`network_namespace = "lab-b"`:          false,
		`interface = "eth1"`:                   true,
		`interface = ""`:                       false,
		`address = "127.0.0.1:*"`:              true,
		`listen = "127.0.0.1:0"`:               true,
		`uid = "7c9e*" AND host = "127.0.0.1"`: true,
		`host:"10."`:                           false,
		`description:*`:                        true,
		`labels.rack:* AND NOT labels.none:*`:  true,
		`address:"*" AND NOT uid:*`:            false,

		`create_time = "2026-01-31T18:00:00Z"`:     true,
		`createTime = "2026-01-31T19:00:00+01:00"`: true,
		`create_time != "2026-01-31T18:00:00Z"`:    false,
		`create_time > "2026-01-31T18:00:00Z"`:     false,
		`create_time >= "2026-01-31T18:00:00Z"`:    true,
		`createTime < "2026-01-31T18:00:00.001Z"`:  true,
		`create_time <= "2026-01-31T17:59:59.9Z"`:  false,
		`create_time:*`:                                       true,
		`update_time:*`:                                       false,
		`session = "ci" AND session:*`:                        true,
		`expire_time > "2026-01-31T18:00:00Z"`:                true,
		`expireTime:* AND ttl:* AND ttl > 5m AND ttl < 11m`:   true,
		`ttl = 10m`:                                           true,
		`update_time < "2030-01-01T00:00:00Z"`:                false,
		`NOT updateTime < "2030-01-01T00:00:00Z"`:             true,
		`update_time != "2030-01-01T00:00:00Z"`:               true,
		`(name = "x" OR port = 7007) AND labels.env = "test"`: true,

		// Values without quotes.
		`name = web-1`:                               true,
		`name=web-2 OR name=web-1`:                   true,
		`name = *-1 AND name = web* AND name != db*`: true,
		`labels.rack = r1 AND (labels.env=test)`:     true,
		`labels.rack = r1 labels.env = production`:   false,
		`labels.rack != r1`:                          false,
		`-labels.rack = r2`:                          true,
		`labels.app.example/part-of = lab`:           true,
		`labels.app.example/part-of:*`:               true,
		`labels:app.example/part-of`:                 true,
		`labels:*`:                                   true,
		`address = 127.0.0.1:7007`:                   true,
		`listen=127.0.0.1:0 host:127.`:               true,
		`listen = [::]:7007 OR listen = :7007`:       false,
		`createTime = 2026-01-31T19:00:00+01:00`:     true,
		`port = "7007"`:                              true,
		`port > -1`:                                  true,
		`name = labels`:                              false, // a value, whatever else is called so
		`name = 7 OR labels.rack = 1`:                false,
		`description = 'the first one' name=web-1`:   true,
		`description = "name = web-2 AND"`:           false,
		`name = a\b`:                                 false,
		`state = S* AND protocol != UDP`:             true,
	} {
		match, err := endpointFilter.parse(filter)
		if err != nil {
			t.Errorf("%s: %v", filter, err)
			continue
		}
		if got := match == nil || match(&filtered); got != want {
			t.Errorf("%s is %v, want %v", filter, got, want)
		}
	}
}

var badFilters = []string{
	`name`, `name =`, `= "x"`, `colour = "red"`, `port = "x"`, `port = 7.5`, `port : 7`, `labels = "x"`,
	`create_time > "yesterday"`, `create_time > 7`, `create_time:"2026-01-31T18:00:00Z"`, `create_time = update_time`, `*`,
	`"web-1"`, `((((`, `name = "web`, `state = RUNNING`, `state != RUNNING`, `protocol = "tcp"`, `"a" = "b"`, `TCP = "x"`,
	`name = AND port = 7`, `name = NOT`, `name = a=b`, `name = (a OR b)`, `name = it's`, `labels.a-b`, `web-1`,
}

func TestBadFiltersAreRefused(t *testing.T) {
	for _, filter := range badFilters {
		if _, err := endpointFilter.parse(filter); err == nil {
			t.Errorf("%s is taken", filter)
		}
	}
}

// TestNestingOfFilters: only what is nested counts, not what is long.
func TestNestingOfFilters(t *testing.T) {
	for filter, taken := range map[string]bool{
		strings.Repeat(`name = "web-1-2" OR `, 100) + `name = "((((-NOT"`:                       true,
		strings.Repeat(`(name = "a" AND port = 1) OR `, 100) + `(-port = 2)`:                    true,
		strings.Repeat(`NOT port = 1 AND `, 100) + `-port = 2`:                                  true,
		strings.Repeat(`(`, maxFilterDepth) + `port = 1` + strings.Repeat(`)`, maxFilterDepth):  true,
		strings.Repeat(`(`, maxFilterDepth) + `-port = 1` + strings.Repeat(`)`, maxFilterDepth): false,
		strings.Repeat(`NOT (`, 33) + `port = 1` + strings.Repeat(`)`, 33):                      false,
		strings.Repeat(`(port = 1 AND `, maxFilterDepth) + `"\\" NOT (port = 1`:                 false,
	} {
		_, err := endpointFilter.parse(filter)
		if deep := err != nil && strings.Contains(err.Error(), "deep"); deep == taken || taken && err != nil {
			t.Errorf("%s: %v", filter, err)
		}
	}
}

// TestFilterErrors: what the parser says in its own words is said in ours.
func TestFilterErrors(t *testing.T) {
	for filter, want := range map[string]string{
		`port =`:            `it ends too early (fields: name,`,
		`"web-1"`:           `a comparison is wanted, as in name = "web-1" (fields: name,`,
		`rack = r1`:         `'rack' is no field (fields: name,`,
		`protocol = tcp`:    `"tcp" is none of the values: TCP, UDP`,
		`state != "SERVE"`:  `"SERVE" is none of the values: SERVING, `,
		`port = seven`:      `port is compared with a number, not "seven"`,
		`name = web-1 = x`:  `unexpected token = (fields: name,`,
		`name = "web`:       `unterminated string (fields: name,`,
		`name = (a OR web)`: `no field`,
	} {
		if _, err := endpointFilter.parse(filter); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", filter, err, want)
		}
	}
}

// TestFilterOfDurations has a table of its own, with what an endpoint's may have.
func TestFilterOfDurations(t *testing.T) {
	f := newFilterable(filterable[time.Duration]{
		texts:     map[string]func(*time.Duration) string{"as_text": func(d *time.Duration) string { return d.String() }},
		durations: map[string]func(*time.Duration) time.Duration{"time_to_live": func(d *time.Duration) time.Duration { return *d }},
	})
	ttl := 90 * time.Second
	for filter, want := range map[string]bool{
		`time_to_live = 90s`:                           true,
		`timeToLive = 1m30s`:                           true,
		`time_to_live = "1.5m"`:                        true,
		`time_to_live < 10m AND time_to_live > 0s`:     true,
		`time_to_live != 1h`:                           true,
		`time_to_live >= 90.5s`:                        false,
		`(time_to_live <= 2000ms)`:                     false,
		`time_to_live:*`:                               true,
		`as_text = 1m30s`:                              true,
		`as_text = "10m" OR as_text = 'a "10m" in it'`: false,
		`asText = "1m*"`:                               true,
	} {
		match, err := f.parse(filter)
		if err != nil {
			t.Errorf("%s: %v", filter, err)
		} else if got := match(&ttl); got != want {
			t.Errorf("%s is %v, want %v", filter, got, want)
		}
	}
	for _, filter := range []string{`time_to_live < 7`, `time_to_live < "soon"`, `time_to_live:"10m"`, `time_to_live < timeToLive`} {
		if _, err := f.parse(filter); err == nil {
			t.Errorf("%s is taken", filter)
		}
	}
	// What has none is not a short one.
	var none time.Duration
	for filter, want := range map[string]bool{
		`time_to_live < 10m`: false, `time_to_live = 0s`: true, `time_to_live != 10m`: true, `time_to_live:*`: false, `NOT time_to_live > 0s`: true,
	} {
		match, err := f.parse(filter)
		if err != nil {
			t.Errorf("%s: %v", filter, err)
		} else if got := match(&none); got != want {
			t.Errorf("%s of none is %v, want %v", filter, got, want)
		}
	}
}

func FuzzFilter(f *testing.F) {
	for _, filter := range badFilters {
		f.Add(filter)
	}
	f.Add(`(name = "x*" OR port = 7007) AND NOT labels.env : "test"`)
	f.Fuzz(func(_ *testing.T, filter string) {
		if len(filter) > 4096 {
			return // refused before it is read
		}
		if match, err := endpointFilter.parse(filter); err == nil && match != nil {
			match(&filtered)
		}
	})
}

func TestFilterOfMonitors(t *testing.T) {
	watched := monitor.Monitor{
		Definition: monitor.Definition{
			Name: "m-1", Description: "the first", Labels: map[string]string{"rack": "r1"}, Probe: []byte(`{"target":{"endpoint":"web-1"}}`),
		},
		State: monitor.Running, Verdict: monitor.NotMet,
	}
	for filter, want := range map[string]bool{
		`name = "m-*" AND endpoint = "web-1"`:           true,
		`address = "127.0.0.1:7"`:                       false,
		`verdict = NOT_MET AND NOT verdict = "UNKNOWN"`: true,
		`state = RUNNING`:                               true,
		`state = PAUSED OR labels.rack = "r2"`:          false,
		`labels:rack description:"first"`:               true,
	} {
		match, err := monitorFilter.parse(filter)
		if err != nil {
			t.Errorf("%s: %v", filter, err)
		} else if got := match(&watched); got != want {
			t.Errorf("%s is %v, want %v", filter, got, want)
		}
	}
	for _, filter := range []string{`port = 7`, `protocol = TCP`, `state = SERVING`, `verdict = MAYBE`} {
		if _, err := monitorFilter.parse(filter); err == nil {
			t.Errorf("%s is taken", filter)
		}
	}
}
