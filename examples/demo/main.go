// Command demo shows in a minute what echod does: it starts a daemon on free ports in a temporary directory, creates a TCP
// and a UDP endpoint, probes both with echoctl and over REST, lists them, and stops everything. It prints what it runs.
//
//	make demo
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"
)

// patience bounds each wait; a machine may be slow.
const patience = time.Minute

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: demo DIRECTORY-OF-THE-BINARIES")
		os.Exit(2)
	}
	// Ctrl-C ends the demo, too, with nothing left behind.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
	fmt.Println("\nThat was the demo: nothing of it is left.")
}

// ready is what the daemon writes into its ready file.
type ready struct{ GRPC, HTTP string }

func run(ctx context.Context, bin string) (err error) {
	dir, err := os.MkdirTemp("", "echod-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	readyFile := filepath.Join(dir, "ready")
	daemon := exec.Command(filepath.Join(bin, "echod"), "--grpc-listen=127.0.0.1:0", "--http-listen=127.0.0.1:0", "--socket=",
		"--state-dir="+filepath.Join(dir, "state"), "--ready-file="+readyFile)
	title("A daemon on free ports")
	show(strings.Join(append([]string{"echod"}, daemon.Args[1:]...), " ") + " &")
	daemon.Stdout, daemon.Stderr = os.Stdout, os.Stdout
	if err := daemon.Start(); err != nil {
		return fmt.Errorf("cannot start echod: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- daemon.Wait() }()

	r, err := waitReady(readyFile, ended)
	if err == nil {
		err = tour(ctx, filepath.Join(bin, "echoctl"), r)
	}
	title("Stop: the daemon drains and exits with 0")
	show("kill -TERM $!")
	return errors.Join(err, stop(daemon, ended))
}

// tour is what there is to see.
func tour(ctx context.Context, echoctl string, r ready) error {
	ctl := func(args ...string) error {
		show("echoctl " + strings.Join(args, " "))
		command := exec.CommandContext(ctx, echoctl, args...)
		command.Env = append(os.Environ(), "ECHOCTL_SERVER="+r.GRPC)
		command.Stdout, command.Stderr = os.Stdout, os.Stdout
		if err := command.Run(); err != nil {
			return fmt.Errorf("echoctl %s: %w", strings.Join(args, " "), err)
		}
		return nil
	}
	post := func(path, body string) error { return post(ctx, "http://"+r.HTTP+path, body) }
	for _, step := range []struct {
		title string
		do    func() error
	}{
		{"Two endpoints; port 0 is a free one", func() error {
			return errors.Join(ctl("create", "tcp", "--name", "web-1", "--label", "rack=r1"), ctl("create", "udp", ":0", "--name", "dns-1"))
		}},
		{"Round trips, by echoctl", func() error {
			return errors.Join(ctl("probe", "web-1", "-c", "3", "-i", "0.05", "-v"), ctl("probe", "dns-1", "-c", "3", "-i", "0.05", "-s", "1200"))
		}},
		{"The same over REST", func() error {
			return errors.Join(
				post("/v1/probes:run", `{"target": {"endpoint": "web-1"}, "count": 3, "interval": "50ms"}`),
				post("/v1/probes:run", `{"target": {"endpoint": "dns-1"}, "count": 3, "interval": "50ms"}`),
				post("/v1/endpoints", `{"name": "made-by-rest", "protocol": "TCP", "tcp": {"idleTimeout": "30s"}}`))
		}},
		{"What is there", func() error { return errors.Join(ctl("list"), ctl("get", "web-1"), ctl("probe", "list")) }},
		{"Stop keeps the definition and the port, delete is final", func() error {
			return errors.Join(ctl("stop", "web-1"), ctl("start", "web-1"), ctl("delete", "web-1", "dns-1", "made-by-rest"), ctl("list"))
		}},
	} {
		title(step.title)
		if err := errors.Join(ctx.Err(), step.do()); err != nil {
			return err
		}
	}
	return nil
}

func title(text string) { fmt.Printf("\n== %s\n", text) }

func show(command string) { fmt.Println("$", command) }

func post(ctx context.Context, url, body string) error {
	show(fmt.Sprintf("curl --json '%s' %s", body, url))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	client := http.Client{Timeout: patience}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	fmt.Printf("%s", text)
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return nil
}

// waitReady waits for the ready file, or for the daemon's end.
func waitReady(path string, ended chan error) (r ready, err error) {
	deadline := time.After(patience)
	for {
		if text, err := os.ReadFile(path); err == nil {
			return r, json.NewDecoder(bytes.NewReader(text)).Decode(&r)
		}
		select {
		case err := <-ended:
			ended <- err
			return r, fmt.Errorf("echod ended before it was ready: %w", err)
		case <-deadline:
			return r, errors.New("echod is not ready")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// stop asks the daemon to end, and makes it end if it does not.
func stop(daemon *exec.Cmd, ended chan error) error {
	if err := daemon.Process.Signal(stopSignal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case err := <-ended:
		if stopSignal == os.Kill {
			return nil // an abrupt end is no clean one
		}
		return err
	case <-time.After(patience):
		return errors.Join(errors.New("echod does not end"), daemon.Process.Kill(), <-ended)
	}
}
