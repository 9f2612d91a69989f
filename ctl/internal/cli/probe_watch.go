package cli

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/echod/echod/ctl/internal/render"
	echov1 "github.com/echod/echod/gen/echo/v1"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
)

// liveEvery is how often the live line changes, unless --aggregate says otherwise.
const liveEvery = 500 * time.Millisecond

// watchOptions are the flags that say what is to be seen of a probe that is followed.
type watchOptions struct {
	verbose   bool
	live      bool
	aggregate durationFlag
	histogram bool
}

func (o *watchOptions) addTo(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVarP(&o.verbose, "verbose", "v", false,
		"a line for each round trip (or --aggregate), even where there is no terminal")
	flags.BoolVar(&o.live, "live", false, "on a terminal one line that changes, and none for each round trip")
	flags.Var(&o.aggregate, "aggregate",
		"show what happened each `DURATION`; 0 is each round trip (default: 0, of a fast probe 0.5)")
	flags.BoolVar(&o.histogram, "histogram", false, "draw the round-trip times, even where there is no terminal")
}

// check refuses what cannot be had together.
func (o *watchOptions) check() error {
	switch {
	case o.live && o.verbose:
		return usagef("say either --live or --verbose, not both")
	case o.live && o.aggregate.set && o.aggregate.value == 0:
		return usagef("--live shows aggregates: leave --aggregate out, or give it a time")
	}
	return nil
}

// every is how often the daemon is to send an aggregate: nil leaves it to the daemon, 0 is never.
func (o *watchOptions) every() *durationpb.Duration {
	switch {
	case o.aggregate.set:
		return o.aggregate.proto()
	case o.live:
		return durationpb.New(liveEvery)
	case o.verbose:
		return durationpb.New(0)
	default:
		return nil
	}
}

// watch answers who is to be told of a followed probe, and what takes away of the screen what is not to stay there.
func (s *session) watch(o *watchOptions) (see follower, end func()) {
	env := s.app.env
	end = func() {}
	if s.isTable() && (env.Terminal || o.verbose) {
		see = follower{begin: s.out.ProbeBegin, sample: s.out.Sample, aggregate: s.out.Aggregate}
	}
	if env.StderrTerminal && !o.verbose && (o.live || s.isTable() && env.Terminal) {
		line := newLiveLine(env.Stderr, env.StderrWidth)
		see.aggregate, end = line.update, line.clear
	}
	return see, end
}

// liveLine is one line of a terminal that is written over and over. It needs no escape sequences: what is left of a
// longer line before is covered by blanks. It is talk, so that what it fails to write is nobody's concern.
type liveLine struct {
	w        io.Writer
	room     int // columns
	progress render.Progress
	shown    int // columns that were written to, blanks included: the cursor stands behind them
}

// plainWidth is how wide a terminal is taken for that does not say it.
const plainWidth = 80

// newLiveLine is for a terminal of so many columns; 0: not known.
func newLiveLine(w io.Writer, width int) *liveLine {
	if width <= 0 {
		width = plainWidth
	}
	// The last column stays free: writing there makes some terminals begin a new line.
	return &liveLine{w: w, room: width - 1}
}

func (l *liveLine) update(a *echov1.Aggregate) error {
	text := l.progress.Add(a, l.room)
	columns := utf8.RuneCountInString(text)
	// One write, so that no half of it is ever seen.
	_, _ = fmt.Fprint(l.w, "\r"+text+strings.Repeat(" ", max(l.shown-columns, 0)))
	l.shown = max(l.shown, columns)
	return nil
}

// echoedInterrupt is what terminals show behind the line for Ctrl-C.
const echoedInterrupt = "^C"

// clear leaves an empty line with the cursor at its beginning.
func (l *liveLine) clear() {
	if l.shown > 0 {
		_, _ = fmt.Fprint(l.w, "\r"+strings.Repeat(" ", min(l.shown+len(echoedInterrupt), l.room))+"\r")
		l.shown = 0
	}
}
