package verdict

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/echod/echod/daemon/probe"
)

// Kind is what kind of value a name has. Counts, shares and rates are numbers, and differ only in how they are written.
type Kind uint8

// The kinds.
const (
	Count        Kind = iota + 1 // a whole number
	Share                        // 0 to 1, written as 0% to 100%
	Rate                         // bits a second
	TimeDuration                 // a duration
)

// String is the kind for people.
func (k Kind) String() string {
	switch k {
	case Count:
		return "count"
	case Share:
		return "share"
	case Rate:
		return "bits a second"
	case TimeDuration:
		return "duration"
	}
	return ""
}

// Figure is a figure of a report that an expectation may mention.
type Figure struct {
	Name string
	Kind Kind
	// Doc says in a few words what it is.
	Doc string
}

// name is a Figure and where its value is.
type name struct {
	Figure
	// get reads the value: a number, or a duration in nanoseconds. ok is false when it is not known, and unknown says why
	// that is.
	get     func(*probe.Report) (value float64, ok bool)
	unknown string
}

// Why a value may not be known.
const (
	never         = "" // it always is
	noRoundTrip   = "no round trip was received"
	noConnection  = "no TCP connection was made"
	noPair        = "there are no two round trips in a row"
	noNumber      = "only datagrams with room for a sequence number are told apart (UDP, 16 bytes of payload)"
	noEnd         = "no round has ended, or they search for the path MTU"
	noneEnded     = "no round has ended"
	noOutages     = "no round has ended, or rounds have no times to leave at"
	noSchedule    = "rounds have no times to leave at"
	noneLeft      = "no round left at its time"
	oneFlow       = "there is one flow only"
	noStrangers   = "it is seen over UDP only, and not on every system"
	notOverStream = "it is counted over UDP only"
	noLedger      = "it takes the target's ledger (--ledger), once the probe has ended"
	noSearch      = "nothing came back, or it was not searched for"
)

// names are all names, in the order of the documentation. A new figure of the report is one line here, and one in
// docs/probes.md.
var names = slices.Concat(
	[]name{
		always("sent", "rounds begun", func(r *probe.Report) uint32 { return r.Sent }),
		count("received", "rounds whose right reply came in time", func(r *probe.Report) uint32 { return r.Received }),
		count("lost", "rounds without a right reply", func(r *probe.Report) uint32 { return r.Lost }),
		count("corrupted", "rounds with a wrong reply", func(r *probe.Report) uint32 { return r.Corrupted }),
		count("late", "rounds whose right reply came after the timeout", func(r *probe.Report) uint32 { return r.Late }),
		always("outstanding", "rounds on their way", func(r *probe.Report) uint32 { return r.Outstanding }),
		optional("duplicated", "replies that came again", noNumber, func(r *probe.Report) *uint32 { return r.Duplicated }),
		optional("reordered", "replies overtaken by a later one", noNumber, func(r *probe.Report) *uint32 { return r.Reordered }),
		optional("wrong_address", "replies from another address", noStrangers, func(r *probe.Report) *uint32 { return r.WrongAddress }),
		optional("ignored", "datagrams that belong to no round", notOverStream, func(r *probe.Report) *uint32 { return r.Ignored }),
		optional("dropped_here", "datagrams that the daemon's own host dropped", noStrangers, func(r *probe.Report) *uint32 { return r.DroppedHere }),
		optional("lost_there", "rounds lost on the way to the target", noLedger, func(r *probe.Report) *uint32 {
			if r.Directions == nil {
				return nil
			}
			return r.Directions.LostThere
		}),
		optional("lost_back", "rounds lost on the way back", noLedger, func(r *probe.Report) *uint32 {
			if r.Directions == nil {
				return nil
			}
			return r.Directions.LostBack
		}),
		ofLoss("loss", Share, "share of the ended rounds that had no reply in time: lost and late", func(l *probe.Loss) float64 { return l.Ratio }),
		ofLoss("loss_upper", Share, "what the share is not above, with 95 % confidence", func(l *probe.Loss) float64 { return l.UpperBound }),
		ofLoss("bursts", Count, "rows of rounds without a reply in time, single ones too", func(l *probe.Loss) float64 { return float64(l.Bursts) }),
		ofLoss("longest_burst", Count, "rounds in the longest such row", func(l *probe.Loss) float64 { return float64(l.LongestBurst) }),
	},
	distribution("", "round-trip time", noRoundTrip, func(r *probe.Report) *probe.Distribution { return r.RTT }),
	distribution("application_", "round-trip time as the process saw it", noRoundTrip, func(r *probe.Report) *probe.Distribution { return r.ApplicationRTT }),
	distribution("connect_", "time to connect", noConnection, func(r *probe.Report) *probe.Distribution { return r.Connect }),
	distribution("ipdv_", "difference of two round trips in a row", noPair, func(r *probe.Report) *probe.Distribution { return r.IPDV }),
	[]name{
		{Figure{"jitter", TimeDuration, "interarrival jitter at the end (RFC 3550)"}, func(r *probe.Report) (float64, bool) {
			return pointer(r.Jitter)
		}, noPair},
		{Figure{"outages", Count, "rows of rounds of a flow without a reply in time"}, func(r *probe.Report) (float64, bool) {
			return float64(len(r.Outages)) + float64(r.MoreOutages), r.Schedule != nil && anyEnded(r)
		}, noOutages},
		{Figure{"longest_outage", TimeDuration, "the longest of them; 0s without any"}, func(r *probe.Report) (float64, bool) {
			longest := time.Duration(0)
			for _, o := range r.Outages {
				longest = max(longest, o.Length)
			}
			return float64(longest), r.Schedule != nil && anyEnded(r)
		}, noOutages},
		ofSchedule("schedule_late", "rounds that left more than 1ms after their time", func(s *probe.Schedule) uint32 { return s.Late }),
		ofSchedule("schedule_moved", "how often the schedule was moved", func(s *probe.Schedule) uint32 { return s.Moved }),
		ofSchedule("schedule_omitted", "rounds that never left because it was moved", func(s *probe.Schedule) uint32 { return s.Omitted }),
	},
	distribution("schedule_", "how much later than its time a round left", noneLeft, func(r *probe.Report) *probe.Distribution {
		if r.Schedule == nil {
			return nil
		}
		return r.Schedule.Error
	}),
	[]name{
		ofThroughput("sent_bps", "payload sent", func(t *probe.Throughput) float64 { return t.Sent }),
		ofThroughput("received_bps", "payload received in right replies in time", func(t *probe.Throughput) float64 { return t.Received }),
		{Figure{"elapsed", TimeDuration, "from the probe's start to its end, or until now"}, func(r *probe.Report) (float64, bool) {
			return float64(r.Elapsed), true
		}, never},
		{Figure{"flows_outliers", Count, "flows that stand out from the others"}, func(r *probe.Report) (float64, bool) {
			outliers := 0
			for _, f := range r.Flows {
				if f.LossOutlier || f.RTTOutlier {
					outliers++
				}
			}
			return float64(outliers), len(r.Flows) > 0
		}, oneFlow},
		{Figure{"uncertainty", TimeDuration, "how far a round-trip time may be off"}, func(r *probe.Report) (float64, bool) {
			return float64(r.Timestamps.Uncertainty), r.Timestamps.Clock != 0
		}, noRoundTrip},
		ofSearch("path_mtu", "the largest IP packet that came back", func(m *probe.PathMTU) int { return m.MTU }),
		ofSearch("path_mtu_payload", "its payload", func(m *probe.PathMTU) int { return m.PayloadBytes }),
		count("timestamps_missing", "rounds received without a time of the clock", func(r *probe.Report) uint32 { return r.Timestamps.Missing }),
		count("paused", "rounds made longer by the daemon's own pauses", func(r *probe.Report) uint32 { return r.Timestamps.Paused }),
		{Figure{"longest_pause", TimeDuration, "the longest of those pauses; 0s without any"}, func(r *probe.Report) (float64, bool) {
			return float64(r.Timestamps.LongestPause), anyEnded(r)
		}, noneEnded},
	},
	reasons(),
)

// byName finds a name.
var byName = func() map[string]*name {
	index := make(map[string]*name, len(names))
	for i := range names {
		index[names[i].Name] = &names[i]
	}
	return index
}()

// Figures answers all that an expectation may mention, in the order of the documentation.
func Figures() []Figure {
	all := make([]Figure, len(names))
	for i := range names {
		all[i] = names[i].Figure
	}
	return all
}

func pointer[T uint32 | time.Duration](p *T) (float64, bool) {
	if p == nil {
		return 0, false
	}
	return float64(*p), true
}

func ofSearch(called, doc string, of func(*probe.PathMTU) int) name {
	return name{Figure{called, Count, doc}, func(r *probe.Report) (float64, bool) {
		if r.PathMTU == nil {
			return 0, false
		}
		n := of(r.PathMTU)
		return float64(n), n > 0
	}, noSearch}
}

// always is a count that is known from the start.
func always(called, doc string, of func(*probe.Report) uint32) name {
	return name{Figure{called, Count, doc}, func(r *probe.Report) (float64, bool) { return float64(of(r)), true }, never}
}

// count is a count of what became of rounds: where none has ended, none is no finding.
func count(called, doc string, of func(*probe.Report) uint32) name {
	return name{Figure{called, Count, doc}, func(r *probe.Report) (float64, bool) {
		n := of(r)
		return float64(n), n > 0 || anyEnded(r)
	}, noneEnded}
}

func anyEnded(r *probe.Report) bool { return r.Sent > r.Outstanding }

func optional(called, doc, unknown string, of func(*probe.Report) *uint32) name {
	return name{Figure{called, Count, doc}, func(r *probe.Report) (float64, bool) {
		if !anyEnded(r) {
			return 0, false
		}
		return pointer(of(r))
	}, unknown}
}

func ofLoss(called string, kind Kind, doc string, of func(*probe.Loss) float64) name {
	return name{Figure{called, kind, doc}, func(r *probe.Report) (float64, bool) {
		if r.Loss == nil {
			return 0, false
		}
		return of(r.Loss), true
	}, noEnd}
}

func ofSchedule(called, doc string, of func(*probe.Schedule) uint32) name {
	return name{Figure{called, Count, doc}, func(r *probe.Report) (float64, bool) {
		if r.Schedule == nil {
			return 0, false
		}
		return float64(of(r.Schedule)), true
	}, noSchedule}
}

func ofThroughput(called, doc string, of func(*probe.Throughput) float64) name {
	return name{Figure{called, Rate, doc}, func(r *probe.Report) (float64, bool) {
		if r.Throughput == nil {
			return 0, false
		}
		return of(r.Throughput), true
	}, noRoundTrip}
}

// distribution makes the names of what sums up a set of times.
func distribution(prefix, what, unknown string, of func(*probe.Report) *probe.Distribution) (made []name) {
	for _, figure := range []struct {
		called, doc string
		of          func(*probe.Distribution) time.Duration
	}{
		{"min", "shortest", func(d *probe.Distribution) time.Duration { return d.Min }},
		{"mean", "arithmetic mean", func(d *probe.Distribution) time.Duration { return d.Mean }},
		{"p50", "half are not longer", func(d *probe.Distribution) time.Duration { return d.P50 }},
		{"p90", "90 % are not longer", func(d *probe.Distribution) time.Duration { return d.P90 }},
		{"p95", "95 % are not longer", func(d *probe.Distribution) time.Duration { return d.P95 }},
		{"p99", "99 % are not longer", func(d *probe.Distribution) time.Duration { return d.P99 }},
		{"p999", "99.9 % are not longer", func(d *probe.Distribution) time.Duration { return d.P999 }},
		{"max", "longest", func(d *probe.Distribution) time.Duration { return d.Max }},
		{"stddev", "standard deviation", func(d *probe.Distribution) time.Duration { return d.StdDev }},
	} {
		made = append(made, name{Figure{prefix + figure.called, TimeDuration, what + ": " + figure.doc}, func(r *probe.Report) (float64, bool) {
			d := of(r)
			if d == nil {
				return 0, false
			}
			return float64(figure.of(d)), true
		}, unknown})
	}
	return made
}

// reasons makes a name of each reason that the report's errors may have. A reason that is not among them counts 0.
func reasons() (made []name) {
	for _, reason := range []probe.Reason{
		probe.ReasonTimeout, probe.ReasonRefused, probe.ReasonUnreachable, probe.ReasonReset, probe.ReasonClosedEarly,
		probe.ReasonNameNotFound, probe.ReasonCorrupted, probe.ReasonNotClosed, probe.ReasonTooBig, probe.ReasonNotSent, probe.ReasonOther,
	} {
		made = append(made, count("error_"+string(reason), "errors for that reason", func(r *probe.Report) uint32 {
			for _, e := range r.Errors {
				if e.Reason == reason {
					return e.Count
				}
			}
			return 0
		}))
	}
	return made
}

// toCEL is a value as expressions compute with it.
func (n *name) toCEL(value float64) ref.Val {
	if n.Kind == TimeDuration {
		return types.Duration{Duration: time.Duration(value)}
	}
	return types.Double(value)
}

// write is a value as people write it.
func (n *name) write(value float64) string {
	switch n.Kind {
	case TimeDuration:
		return writeDuration(time.Duration(value))
	case Share:
		return writeShort(value*100) + "%"
	case Rate:
		return strconv.FormatFloat(math.Round(value), 'f', -1, 64)
	default:
		return strconv.FormatFloat(value, 'f', -1, 64)
	}
}

// writeShort has six significant digits: as many as tell one lost round of a million from another share.
func writeShort(value float64) string {
	rounded, err := strconv.ParseFloat(strconv.FormatFloat(value, 'g', 6, 64), 64)
	if err != nil {
		rounded = value
	}
	return strconv.FormatFloat(rounded, 'f', -1, 64)
}

// nearest answers what may have been meant by a word that is no name; empty when nothing is close.
func nearest(word string) string {
	var plain strings.Builder // as the report spells it, over REST or here
	for i, r := range word {
		switch {
		case r == '.' || r == '-':
			plain.WriteByte('_')
		case 'A' <= r && r <= 'Z':
			if i > 0 {
				plain.WriteByte('_')
			}
			plain.WriteRune(r + 'a' - 'A')
		default:
			plain.WriteRune(r)
		}
	}
	wanted := strings.TrimPrefix(plain.String(), "report_")
	for _, candidate := range []string{wanted, strings.ReplaceAll(wanted, "rtt_", ""), strings.ReplaceAll(wanted, "_", "")} {
		if byName[candidate] != nil {
			return candidate
		}
	}
	if meant := meanings[wanted]; meant != "" {
		return meant
	}
	closest := slices.MinFunc(names, func(a, b name) int { return cmp.Compare(distance(wanted, a.Name), distance(wanted, b.Name)) })
	if distance(wanted, closest.Name) > max(1, len(wanted)/3) {
		return ""
	}
	return closest.Name
}

// meanings are words for which people look, and the name that is for it.
var meanings = map[string]string{
	"rtt": "mean", "avg": "mean", "average": "mean", "median": "p50", "latency": "mean", "connect": "connect_mean",
	"ipdv": "ipdv_mean", "loss_ratio": "loss", "loss_upper_bound": "loss_upper", "loss_bursts": "bursts",
	"loss_longest_burst": "longest_burst", "throughput": "received_bps", "duration": "elapsed", "errors": "lost",
	"packet_loss": "loss", "schedule_error": "schedule_mean",
}

// distance is how many letters must be added, left out or replaced to make b of a (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
