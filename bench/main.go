//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// The cases that are not of cases: what is held and not what is done.
const (
	endpointsCase = "endpoints"
	idleCase      = "idle-connections"
	stalledCase   = "stalled-peers"
)

// spareFiles is what a process has open besides what it is to hold many of, and more.
const spareFiles = 256

// options are the flags, and what this process may.
type options struct {
	settings
	quick    bool
	list     bool
	markdown bool
	cases    string
	servers  string
	count    int
	stalled  int
	files    uint64 // a process may have open
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == loadArgument {
		os.Exit(beLoad(os.Args[2]))
	}
	if len(os.Args) == 2 && os.Args[1] == spinArgument {
		beBusy()
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "bench: interrupted")
		os.Exit(1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parseFlags(args []string, talk io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(talk)
	flags.IntVar(&o.rounds, "rounds", 6, "rounds of each case; more narrow the intervals")
	flags.Float64Var(&o.within, "within", 0,
		"go on with echod and the C servers until the intervals of their rate ratios are within so many percent; 0 does not")
	flags.IntVar(&o.maxRounds, "max-rounds", 60, "the most rounds that -within leads to")
	flags.DurationVar(&o.trial, "trial", 400*time.Millisecond, "how long a server is measured in a round")
	flags.DurationVar(&o.warm, "warm", 100*time.Millisecond, "how long it is warmed up before")
	flags.StringVar(&o.cases, "case", "", "run only these cases, comma-separated; a name may end with *")
	flags.StringVar(&o.servers, "servers", "", "measure only these servers, comma-separated; the probe cases measure clients, and all of them")
	flags.StringVar(&o.engine, "engine", "", "echod's engine: net is the portable one, empty what a user gets")
	flags.IntVar(&o.count, "count", 10000,
		"how many endpoints and idle connections are held, as far as the limit of open files allows")
	flags.IntVar(&o.stalled, "stalled", 0, "how many peers write and never read, as far as that limit allows; 0 is a tenth of -count")
	flags.BoolVar(&o.quick, "quick", false,
		"2 rounds of 120 ms, 1000 endpoints, no server that forks: about a minute, and coarse")
	flags.BoolVar(&o.markdown, "markdown", false, "print Markdown")
	flags.BoolVar(&o.list, "list", false, "list the cases and the servers, and measure nothing")
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	if flags.NArg() > 0 {
		return options{}, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	o.hurry(given)
	if o.rounds < 1 || o.count < 1 || o.trial <= 0 || o.warm < 0 || o.stalled < 0 {
		return options{}, errors.New("-rounds and -count must be 1 and up, -trial more than 0, -warm and -stalled no less")
	}
	if o.stalled == 0 {
		o.stalled = max(1, o.count/10)
	}
	if !(o.within >= 0) || o.within > 0 && o.maxRounds < o.rounds { // it may be no number
		return options{}, errors.New("-within must be 0 and up, and -max-rounds no less than -rounds")
	}
	return o, o.check()
}

// hurry makes the defaults those of -quick. What was given stays.
func (o *options) hurry(given map[string]bool) {
	if !o.quick {
		return
	}
	o.noFork = true
	if !given["rounds"] {
		o.rounds = 2
	}
	if !given["trial"] {
		o.trial = 120 * time.Millisecond
	}
	if !given["warm"] {
		o.warm = 50 * time.Millisecond
	}
	if !given["count"] {
		o.count = 1000
	}
}

// check resolves the names of servers and refuses names that nothing has.
func (o *options) check() error {
	if o.servers != "" {
		o.only = strings.Split(o.servers, ",")
	}
	for _, name := range o.only {
		if _, err := findServer(name); err != nil {
			return err
		}
	}
	for pattern := range strings.SplitSeq(o.cases, ",") {
		known := func(name string) bool { return matches(pattern, name) }
		if pattern != "" && !slices.ContainsFunc(caseNames(), known) {
			return fmt.Errorf("there is no case %q; -list shows them", pattern)
		}
	}
	return nil
}

func caseNames() []string {
	var names []string
	for _, c := range cases {
		names = append(names, c.Name)
	}
	for _, c := range probeCases {
		names = append(names, c.Name)
	}
	return append(names, endpointsCase, idleCase, stalledCase)
}

// wantsCase reports whether a case is to be run.
func (o options) wantsCase(name string) bool {
	if o.cases == "" {
		return true
	}
	for pattern := range strings.SplitSeq(o.cases, ",") {
		if matches(pattern, name) {
			return true
		}
	}
	return false
}

// programs are those that what is to be measured needs.
func (o options) programs() []string {
	names := map[string]bool{}
	alone := o.wantsCase(endpointsCase) || o.wantsCase(stalledCase) // these measure ours, whatever -servers says
	names[ours] = alone
	if o.wantsCase(idleCase) {
		addAll(names, idleServers)
	}
	for _, c := range cases {
		if o.wantsCase(c.Name) {
			addAll(names, c.Servers)
		}
	}
	var programs []string
	for _, c := range probeCases { // these measure clients, whatever -servers says
		if !o.wantsCase(c.Name) {
			continue
		}
		for _, program := range c.programs() {
			if !slices.Contains(programs, program) {
				programs = append(programs, program)
			}
		}
	}
	for _, s := range servers {
		if names[s.Name] && (o.wants(s) || s.Name == ours && alone) && !slices.Contains(programs, s.Program) {
			programs = append(programs, s.Program)
		}
	}
	return programs
}

func addAll(set map[string]bool, names []string) {
	for _, name := range names {
		set[name] = true
	}
}

func matches(pattern, name string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, prefix)
	}
	return pattern == name
}

// run is the program. It prints tables to out, and what it is doing to talk.
func run(ctx context.Context, args []string, out, talk io.Writer) (err error) {
	o, err := parseFlags(args, talk)
	if err != nil {
		return err
	}
	if o.list {
		list(out)
		return nil
	}
	if o.files, err = raiseFileLimit(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "echod-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	fmt.Fprintln(talk, "building the servers")
	t, err := build(ctx, dir, o.programs())
	if err != nil {
		return err
	}
	printHead(out, o, describeMachine(ctx, args, o.settings), t)
	return measure(ctx, t, o, out, talk)
}

// measure runs what was asked for and prints each table as soon as there is one.
func measure(ctx context.Context, t *tools, o options, out, talk io.Writer) error {
	var wrong []error
	for _, c := range cases {
		if !o.wantsCase(c.Name) {
			continue
		}
		fmt.Fprintln(talk, "measuring", c.Name)
		all, err := runCase(ctx, t, c, o.settings)
		if err != nil {
			return err
		}
		o.print(out, tableOf(c, all, o.settings))
		wrong = append(wrong, failures(c, all)...)
	}
	for _, c := range probeCases {
		if !o.wantsCase(c.Name) {
			continue
		}
		fmt.Fprintln(talk, "measuring", c.Name)
		all, err := runProbes(ctx, t, c, o.settings)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil { // no compiler, or no right to make a namespace: others can be measured
			fmt.Fprintf(out, "\n%s was not measured: %v\n", c.Name, err)
			continue
		}
		o.print(out, probeTable(c, all))
		if table := captureTable(c, all); len(table.Rows) > 0 {
			o.print(out, table)
		}
	}
	held := []struct {
		name  string
		table func(ctx context.Context, t *tools, s settings, count int) (Table, error)
		count int
	}{
		{endpointsCase, endpointMemory, o.count},
		{idleCase, connectionMemory, o.count},
		{stalledCase, stalledPeers, o.stalled},
	}
	for _, h := range held {
		if !o.wantsCase(h.name) {
			continue
		}
		fmt.Fprintln(talk, "measuring", h.name)
		count, note := fitting(h.count, o.files)
		table, err := h.table(ctx, t, o.settings, count)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", h.name, err))
		}
		if len(table.Rows) > 0 { // what was seen before the error is no less true
			table.Notes = append(table.Notes, note...)
			o.print(out, table)
		}
	}
	return errors.Join(wrong...)
}

// fitting is how many of count files a process may have open besides its others, and a note if that is less.
func fitting(count int, files uint64) (int, []string) {
	if files >= spareFiles && uint64(count) <= files-spareFiles {
		return count, nil
	}
	fewer := 1
	if files > spareFiles {
		fewer = int(files - spareFiles)
	}
	return fewer, []string{fmt.Sprintf("%d were asked for; the limit of open files, %d, leaves room for %d.", count, files, fewer)}
}

func (o options) print(out io.Writer, table Table) {
	if o.markdown {
		table.writeMarkdown(out)
	} else {
		table.writeText(out)
	}
}

// printHead prints where and how it is measured, and what is missing.
func printHead(out io.Writer, o options, lines []string, t *tools) {
	var missing []string
	for program, why := range t.missing {
		missing = append(missing, fmt.Sprintf("left out: %s: %s", program, why))
	}
	slices.Sort(missing)
	if o.markdown {
		fmt.Fprintln(out, "```")
		defer fmt.Fprintln(out, "```")
	}
	for _, line := range append(lines, missing...) {
		fmt.Fprintln(out, line)
	}
}

func list(out io.Writer) {
	fmt.Fprintln(out, "cases:")
	for _, c := range cases {
		fmt.Fprintf(out, "  %-16s  %s\n", c.Name, c.Title)
	}
	for _, c := range probeCases {
		fmt.Fprintf(out, "  %-16s  %s\n", c.Name, c.Title)
	}
	fmt.Fprintf(out, "  %-16s  what many endpoints cost: to create, hold and change them, and to read their counters\n", endpointsCase)
	fmt.Fprintf(out, "  %-16s  what a connection that is silent costs\n", idleCase)
	fmt.Fprintf(out, "  %-16s  what a peer that writes and never reads costs, and what others feel of it\n", stalledCase)
	fmt.Fprintln(out, "servers:")
	for _, s := range servers {
		fmt.Fprintf(out, "  %-22s  %s\n", s.Name, s.About)
	}
}

// raiseFileLimit lets this process and those that it starts open as many descriptors as they may, and returns how many
// that are. The Go runtime raises its own limit by itself, but gives children the old one unless the limit was set on
// purpose.
func raiseFileLimit() (uint64, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("cannot read the limit of open files: %w", err)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("cannot raise the limit of open files to %d: %w", limit.Max, err)
	}
	return limit.Cur, nil
}
