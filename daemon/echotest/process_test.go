//go:build unix

package echotest

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// run are the options of most tests: the echod that TestMain has built.
func run(flags ...string) ProcessOptions { return ProcessOptions{Binary: echod, Flags: flags} }

// fake are the options of an echod that does not behave.
func fake(t *testing.T, role string) ProcessOptions {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return ProcessOptions{Binary: binary, Env: []string{roleVariable + "=" + role}}
}

func TestProcess(t *testing.T) {
	t.Parallel()
	p := StartProcess(t, run())
	made := create(t, &p.Client, &echov1.Endpoint{Protocol: echov1.Protocol_TCP})
	if answer := roundTrip(t, "tcp", made.Address, "hello"); answer != "hello" {
		t.Errorf("%q", answer)
	}
	wantHealthy(t, &p.Client)
	if _, err := os.Stat(p.Socket); err != nil {
		t.Error(err)
	}
	p.Stop()
	p.Stop()
	// Now: it says so after it is.
	if !strings.Contains(p.Output(), fmt.Sprintf("msg=ready version=dev pid=%d ", p.PID)) {
		t.Errorf("%v wrote %s", p, p.Output())
	}
	select {
	case <-p.Ended():
	default:
		t.Error("Stop did not wait for its end")
	}
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestProcessesInParallel starts several that are in nobody's way.
func TestProcessesInParallel(t *testing.T) {
	t.Parallel()
	for i := range 4 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			p := StartProcess(t, run())
			create(t, &p.Client, &echov1.Endpoint{Name: "the-same", Protocol: echov1.Protocol_UDP})
		})
	}
}

// TestTheEnvironmentOfTheTestSetsNothing has variables that are for another daemon.
func TestTheEnvironmentOfTheTestSetsNothing(t *testing.T) {
	t.Setenv("ECHOD_DEFAULT_HOST", "this is no address")
	t.Setenv("STATE_DIRECTORY", filepath.Join(t.TempDir(), "not", "to", "be", "made"))
	t.Setenv("ECHOD_BINARY", echod)
	p := StartProcess(t, ProcessOptions{Env: []string{"ECHOD_LOG_FORMAT=json", "ECHOD_HTTP_LISTEN="}})
	p.Stop()
	if p.HTTP != "" || p.URL != "" || !strings.Contains(p.Output(), `"msg":"ready"`) || !strings.Contains(p.Output(), `"stateDirectory":""`) {
		t.Errorf("HTTP %q, URL %q: %s", p.HTTP, p.URL, p.Output())
	}
}

func TestOverTheSocketAlone(t *testing.T) {
	t.Parallel()
	p := StartProcess(t, run("--grpc-listen=", "--http-listen="))
	if p.GRPC != "" {
		t.Errorf("%q", p.GRPC)
	}
	create(t, &p.Client, &echov1.Endpoint{Protocol: echov1.Protocol_TCP})
}

func TestWithoutGRPC(t *testing.T) {
	t.Parallel()
	p := StartProcess(t, run("--grpc-listen=", "--socket="))
	wantHealthy(t, &p.Client)
	defer func() {
		if said := fmt.Sprint(recover()); !strings.Contains(said, "takes no gRPC") {
			t.Error(said)
		}
	}()
	p.Conn()
}

func TestAProcessThatTheTestEnds(t *testing.T) {
	t.Parallel()
	said, failed := do(func(tb TB) {
		dir := t.TempDir()
		o := run("--state-dir=" + filepath.Join(dir, "state"))
		o.Dir = tempDir(tb)
		p := StartProcess(tb, o)
		before := create(t, &p.Client, &echov1.Endpoint{Name: "kept", Protocol: echov1.Protocol_TCP})
		p.Kill()
		if code := p.Wait(); code != -1 {
			t.Errorf("exit code %d of one that was killed", code)
		}
		p = StartProcess(tb, o) // its files are still there
		after, err := p.Endpoints().GetEndpoint(t.Context(), &echov1.GetEndpointRequest{Name: "kept"})
		if err != nil || after.Address != before.Address {
			t.Errorf("%v, %v; was %v", after, err, before)
		}
		p.Signal(os.Interrupt)
		if code := p.Wait(); code != 0 {
			t.Errorf("exit code %d of one that was interrupted", code)
		}
	})
	if failed || said != "" {
		t.Errorf("failed: %v: %s", failed, said)
	}
}

// TestProcessesThatDoNotBehave looks at what the test says of each, and that what the process wrote is there once.
func TestProcessesThatDoNotBehave(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "echod")
	// end ends the process, unknown to it.
	end := func(signal syscall.Signal) func(TB, *Process) {
		return func(t TB, p *Process) {
			if err := syscall.Kill(p.PID, signal); err != nil {
				t.Fatalf("%v", err)
			}
			<-p.Ended()
		}
	}
	soon := func(o ProcessOptions) ProcessOptions {
		o.StartTimeout, o.StopTimeout = 50*time.Millisecond, 50*time.Millisecond
		return o
	}
	for name, tc := range map[string]struct {
		options ProcessOptions
		then    func(TB, *Process)
		says    []string
	}{
		"is missing": {options: ProcessOptions{Binary: missing}, says: []string{"cannot run echod: ", missing, "ECHOD_BINARY"}},
		"does not start": {
			options: run("--grpc-listen=0.0.0.0:0"),
			says:    []string{"echod ended before it was ready: exit status 1\nIt wrote:\n", "--insecure"},
		},
		"refuses to start": {options: fake(t, "refuse"), says: []string{"echod ended before it was ready: exit status 3\nIt wrote:\nthis is a fake that is to refuse\n"}},
		"is never ready":   {options: soon(fake(t, "never be ready")), says: []string{"echod is not ready after 50ms: it wrote no ready file "}},
		"dies": {
			options: fake(t, "die"), then: end(syscall.SIGTERM),
			says: []string{" ended before the test did: exit status 4\nIt wrote:\nthis is a fake that is to die\n"},
		},
		"is killed by somebody": {
			options: run(), then: end(syscall.SIGKILL),
			says: []string{" ended before the test did: signal: killed\nIt wrote:\n", "protocol=http"},
		},
		"ignores SIGTERM": {
			options: func() ProcessOptions {
				o := fake(t, "ignore SIGTERM")
				o.StopTimeout = 50 * time.Millisecond
				return o
			}(),
			says: []string{" did not end within 50ms after SIGTERM, and was killed\nIt wrote:\nthis is a fake that is to ignore SIGTERM\n"},
		},
		"ends badly": {options: fake(t, "end badly"), says: []string{" did not end well: exit status 5\nIt wrote:\nthis is a fake that is to end badly\n"}},
		"does not end": {
			options: func() ProcessOptions {
				o := fake(t, "be there")
				o.StopTimeout = 50 * time.Millisecond
				return o
			}(),
			then: func(_ TB, p *Process) { p.Wait() },
			says: []string{" does not end: waited for 50ms\nIt wrote:\nthis is a fake"},
		},
		"is not to blame": {
			options: run(), then: func(t TB, _ *Process) { t.Errorf("for another reason") },
			says: []string{"for another reason\n", "About the daemon of the test: It wrote:\n", "msg=ready", "msg=stopping"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var p *Process
			said, failed := do(func(t TB) {
				p = StartProcess(t, tc.options)
				if tc.then != nil {
					tc.then(t, p)
				}
			})
			if !failed {
				t.Error("and the test did not fail")
			}
			wantSaid(t, said, tc.says...)
			if p != nil {
				<-p.Ended()
			}
		})
	}
}

// TestAProcessEndsWithTheProcessOfItsTest kills a test's process, which runs no cleanup.
func TestAProcessEndsWithTheProcessOfItsTest(t *testing.T) {
	t.Parallel()
	if !endsWithParent {
		t.Skip("this system cannot do that")
	}
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// echod holds the other end of a pipe, through the test's process.
	life, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer life.Close()
	test := exec.Command(binary)
	test.Env = append(os.Environ(), roleVariable+"=be killed", "ECHOD_BINARY="+echod, "TMPDIR="+t.TempDir())
	test.ExtraFiles = []*os.File{theirs}
	stdout, err := test.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := test.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	lines, started := bufio.NewScanner(stdout), false
	for !started && lines.Scan() {
		started = lines.Text() == "started"
	}
	if err := test.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = test.Wait()
	if !started {
		t.Fatal("it did not start")
	}
	if err := life.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := life.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("echod is still there: %v", err)
	}
}

func TestPrepare(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := run("--state-dir=here")
	o.Prepare = func(c *exec.Cmd) { c.Dir = dir }
	StartProcess(t, o)
	if _, err := os.Stat(filepath.Join(dir, "here")); err != nil {
		t.Error(err)
	}
}

func TestBuildSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	_, err := Build(t.TempDir(), "-no-such-flag")
	if err == nil {
		t.Fatal("built")
	}
	wantSaid(t, err.Error(), "cannot build echod: ", "-no-such-flag\n", "go get -tool github.com/echod/echod/daemon/echod")
}

// TestBuiltForTheTest has nothing say which echod it is.
func TestBuiltForTheTest(t *testing.T) {
	t.Setenv("ECHOD_BINARY", "")
	p := StartProcess(t, ProcessOptions{})
	resp, err := p.HTTPClient().Get(p.URL + "/v1/info")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Error(resp.Status)
	}
}
