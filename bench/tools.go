//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// peerWithin is how long building a peer may take, downloads included.
const peerWithin = 2 * time.Minute

// tools are the programs that the servers run, in a temporary directory where they were built.
type tools struct {
	dir     string
	peers   string // the directory of the peers' sources
	paths   map[string]string
	missing map[string]string // why a program is not to be had
}

// build provides the programs that are needed. Ours must build; a peer that cannot be had is missing.
func build(ctx context.Context, dir string, needed []string) (*tools, error) {
	root, err := output(ctx, "", "go", "list", "-m", "-f", "{{.Dir}}", "github.com/echod/echod")
	if err != nil {
		return nil, fmt.Errorf("cannot find the sources; run it inside the module: %w", err)
	}
	peers := filepath.Join(root, "bench", "peers")
	t := &tools{dir: dir, peers: peers, paths: map[string]string{}, missing: map[string]string{}}
	for _, name := range needed {
		to := filepath.Join(dir, name)
		switch name {
		case "echoserver":
			if _, err := output(ctx, root, "go", "build", "-o", to, "./bench/echoserver"); err != nil {
				return nil, err
			}
			t.paths[name] = to
		case "probeclient":
			if _, err := output(ctx, root, "go", "build", "-o", to, "./bench/probeclient"); err != nil {
				return nil, err
			}
			t.paths[name] = to
		case "netecho", "netclient":
			t.peer(ctx, name, root, "go", "build", "-o", to, "./bench/peers/"+name)
		case "tcp_epoll", "udp_mmsg", "stamp_client":
			t.peer(ctx, name, t.peers, "gcc", "-O2", "-o", to, name+".c")
		case "fortio": // a module of its own, which the first build downloads
			t.peer(ctx, name, filepath.Join(t.peers, name), "go", "build", "-o", to, ".")
		case "irtt": // likewise; of its sources we have none
			t.peer(ctx, name, filepath.Join(t.peers, name), "go", "build", "-o", to, "github.com/heistp/irtt/cmd/irtt")
		default:
			t.find(name)
		}
	}
	return t, ctx.Err()
}

// find takes a program that is installed.
func (t *tools) find(name string) {
	path, err := exec.LookPath(name)
	if err != nil {
		t.missing[name] = "not installed"
		return
	}
	t.paths[name] = path
}

// peer builds a peer, or notes why it cannot be.
func (t *tools) peer(ctx context.Context, name, dir string, command ...string) {
	ctx, cancel := context.WithTimeout(ctx, peerWithin)
	defer cancel()
	if _, err := output(ctx, dir, command[0], command[1:]...); err != nil {
		t.missing[name] = err.Error()
		return
	}
	t.paths[name] = filepath.Join(t.dir, name)
}

// output runs a command and returns the first line that it prints; its error has what it complained about.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.WaitDelay = endWithin
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return "", fmt.Errorf("%s is not installed", name)
		}
		line := strings.Join(append([]string{name}, args...), " ")
		return "", fmt.Errorf("cannot run %s: %w: %s", line, err, oneLine(complaint.String()))
	}
	return firstLine(out.String()), nil
}

// oneLine joins the lines of text.
func oneLine(text string) string { return strings.ReplaceAll(strings.TrimSpace(text), "\n", "; ") }

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

// command is the command line of s for protocol "tcp" or "udp", listening on address, on port if it has to be told one.
func (t *tools) command(s Server, engine, protocol, address string, port uint16) ([]string, error) {
	path, ok := t.paths[s.Program]
	if !ok {
		return nil, fmt.Errorf("%s: %s", s.Program, t.missing[s.Program])
	}
	config := filepath.Join(t.dir, s.Name+"-"+protocol+".conf")
	fill := strings.NewReplacer("{protocol}", protocol, "{address}", address, "{port}", fmt.Sprint(port), "{engine}", engine,
		"{config}", config, "{peers}", t.peers, "{user}", userName())
	if s.Config != "" {
		if err := os.WriteFile(config, []byte(fill.Replace(s.Config)), 0o600); err != nil {
			return nil, err
		}
	}
	argv := []string{path}
	for _, arg := range s.Args {
		argv = append(argv, fill.Replace(arg))
	}
	return argv, nil
}
