package cli

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"google.golang.org/grpc"
)

// buildEchoctl builds the program as a release does, once for all tests; it is beside the daemon that they share.
func buildEchoctl(t *testing.T) string {
	t.Helper()
	path, err := builtEchoctl()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var builtEchoctl = sync.OnceValues(func() (string, error) {
	path := filepath.Join(filepath.Dir(echod), "echoctl")
	build := exec.Command("go", "build", "-o", path, "-ldflags",
		"-X github.com/echod/echod/ctl/internal/cli.Version=1.2.3", "github.com/echod/echod/ctl/echoctl")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build echoctl: %w\n%s", err, out)
	}
	return path, nil
})

// TestBinary runs echoctl as a process: its version, its exit codes, and what Ctrl-C does to a probe.
func TestBinary(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no signal to send for Ctrl-C")
	}
	echoctl := buildEchoctl(t)
	out, err := exec.Command(echoctl, "version", "-o", "name").Output()
	if err != nil || string(out) != "1.2.3\n" {
		t.Errorf("version: %s, %v", out, err)
	}
	t.Run("first Ctrl-C", func(t *testing.T) {
		s := at(t, shared.GRPC)
		s.newEndpoint("tcp", "binary")
		cmd := exec.Command(echoctl, "--server", shared.GRPC, "probe", "binary", "-c", "0", "-i", "10ms", "-v", "-W", "60s")
		text := interruptAt(t, cmd, "seq=3", nil)
		if code := cmd.ProcessState.ExitCode(); code != 0 || !strings.Contains(text, "\nrtt ") {
			t.Errorf("exit %d: %s", code, text)
		}
	})
	t.Run("second Ctrl-C", func(t *testing.T) {
		asked, release := make(chan struct{}), make(chan struct{})
		defer close(release)
		f := &fake{
			stream: func(stream grpc.ServerStreamingServer[echov1.StreamProbeResponse]) error {
				err := stream.Send(&echov1.StreamProbeResponse{Message: &echov1.StreamProbeResponse_Probe{
					Probe: &echov1.Probe{Name: "p-1"},
				}})
				<-stream.Context().Done()
				return err
			},
			stop: func(*echov1.StopProbeRequest) (*echov1.ProbeReport, error) {
				close(asked)
				<-release
				return &echov1.ProbeReport{}, nil
			},
		}
		cmd := exec.Command(echoctl, "--server", f.start(t), "probe", "web-1", "-v")
		interruptAt(t, cmd, "probing", asked)
		if code := cmd.ProcessState.ExitCode(); code != 130 {
			t.Errorf("exit %d, want 130", code)
		}
	})
}

// interruptAt runs a command, sends it SIGINT at the first line that has sign, and again when the channel is closed,
// unless that is nil. It answers all that the command wrote.
func interruptAt(t *testing.T, cmd *exec.Cmd, sign string, again <-chan struct{}) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	lines := bufio.NewScanner(stdout)
	for pressed := false; lines.Scan(); {
		text.WriteString(lines.Text() + "\n")
		if pressed || !strings.Contains(lines.Text(), sign) {
			continue
		}
		pressed = true
		press(t, cmd)
		if again != nil {
			select {
			case <-again:
				press(t, cmd)
			case <-ctx.Done():
			}
		}
	}
	// The exit code is the caller's to judge.
	_ = cmd.Wait()
	return text.String() + stderr.String()
}

func press(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
}
