// Command echoserver is what the benchmark measures: the echo engine, alone in a process.
//
//	echoserver -protocol tcp|udp -address ADDRESS [-engine NAME]
//	echoserver -protocol tcp|udp -address ADDRESS [-engine NAME] -count N
//
// The first listens on a free port, prints address and port, and ends when its standard input does. The second opens N
// endpoints, adds and removes single ones among them, reads the counters of all, and prints what that took as one JSON object.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/echod/echod/bench/internal/many"
	"github.com/echod/echod/daemon/echo"
)

func main() {
	protocol := flag.String("protocol", "tcp", "tcp or udp")
	address := flag.String("address", "127.0.0.1", "where to listen")
	name := flag.String("engine", "", `"net" is the portable engine, empty what a user gets`)
	count := flag.Int("count", 0, "open so many endpoints, print what it took, and end")
	flag.Parse()
	if err := run(*name, *protocol, *address, *count); err != nil {
		fmt.Fprintln(os.Stderr, "echoserver:", err)
		os.Exit(1)
	}
}

func run(name, protocol, address string, count int) (err error) {
	engine, err := newEngine(name)
	if err != nil {
		return err
	}
	spec := echo.Spec{Listen: address}
	if err := spec.Protocol.UnmarshalText([]byte(strings.ToUpper(protocol))); err != nil {
		return err
	}
	cut, cancel := context.WithCancel(context.Background())
	cancel() // what is open when it ends is cut
	defer func() { err = errors.Join(err, engine.Close(cut)) }()

	if count > 0 {
		seen, err := many.Measure(engine, spec, count)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(seen)
	}
	spec.Listen = net.JoinHostPort(address, "0")
	endpoint, err := engine.Listen(context.Background(), spec)
	if err != nil {
		return err
	}
	fmt.Println(endpoint.Addr())
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// newEngine is the one place that knows which engines there are.
func newEngine(name string) (*echo.Engine, error) {
	switch name {
	case "":
		return echo.New(echo.Options{}), nil
	case "net":
		return echo.New(echo.Options{Portable: true}), nil
	}
	return nil, fmt.Errorf("there is no engine %q", name)
}
