// Command probeclient is what the benchmark measures of our round trips: the probe engine, alone in a process.
//
//	probeclient udp|tcp ADDRESS:PORT BYTES COUNT INTERVAL
//
// It prints a line for each round trip that was received: its number from 0 and, in ns, what the kernel saw of it ("-" if it
// saw nothing), what this process saw of it, and how much later than its time it left. The last line is "sent N".
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/echod/echod/daemon/probe"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "probeclient:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	plan, err := parse(args)
	if err != nil {
		return err
	}
	received := make([]probe.Sample, 0, plan.Count)
	report, err := probe.New(probe.Options{}).Run(ctx, plan, func(s probe.Sample) error {
		if s.Outcome == probe.Received {
			received = append(received, s)
		}
		return nil
	})
	if err != nil {
		return err
	}
	w := bufio.NewWriter(out)
	for _, s := range received {
		network := "-"
		// A round that the kernel's times are missing of has the process's time for both.
		if report.Timestamps.Clock != probe.UserClock && *s.RTT != *s.ApplicationRTT {
			network = strconv.FormatInt(s.RTT.Nanoseconds(), 10)
		}
		due := time.Duration(s.Seq-1) * plan.Interval
		fmt.Fprintf(w, "%d %s %d %d\n", s.Seq-1, network, s.ApplicationRTT.Nanoseconds(), (s.Left - due).Nanoseconds())
	}
	fmt.Fprintf(w, "sent %d\n", report.Sent)
	return w.Flush()
}

func parse(args []string) (probe.Plan, error) {
	if len(args) != 5 {
		return probe.Plan{}, errors.New("usage: probeclient udp|tcp ADDRESS:PORT BYTES COUNT INTERVAL")
	}
	protocols := map[string]probe.Protocol{"udp": probe.UDP, "tcp": probe.TCP}
	size, err := strconv.Atoi(args[2])
	if err != nil {
		return probe.Plan{}, err
	}
	count, err := strconv.ParseUint(args[3], 10, 32)
	if err != nil {
		return probe.Plan{}, err
	}
	interval, err := time.ParseDuration(args[4])
	if err != nil {
		return probe.Plan{}, err
	}
	if count == 0 || interval == 0 {
		return probe.Plan{}, errors.New("COUNT and INTERVAL must be more than 0")
	}
	plan := probe.Plan{
		Protocol: protocols[args[0]], Address: args[1], PayloadBytes: size, Count: uint32(count), Interval: interval,
		Timeout: probe.DefaultTimeout,
	}
	return plan, plan.Validate()
}
