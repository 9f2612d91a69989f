//go:build linux

package torture_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// patience is how long anything may take that should be quick. It is long since machines of CI are slow, and so that what takes
// longer hangs.
const patience = time.Minute

// life is one run of the daemon: from its start until it is killed or stops, upgrades included.
type life struct {
	number int
	grpc   string // address
	conn   *grpc.ClientConn
	rest   restConn
	mortal atomic.Bool // that it ends is no wonder from here on
	moving atomic.Bool // to another process: an answer may be lost on the way
	p      atomic.Pointer[process]
	log    string // path

	// What clients have sent to and heard of the anchors, by their names: it is what the daemon must have counted.
	sent map[string]*sums
}

// process is one that is the daemon, or was.
type process struct {
	pid    int
	ended  chan struct{}      // closed when it has
	status syscall.WaitStatus // then
}

type sums struct{ bytes, datagrams atomic.Uint64 }

// errDied says that a process ended before it was ready.
var errDied = errors.New("echod ended before it was ready")

// launch is how a daemon is started.
type launch struct {
	binary, dir, state string
	env, flags         []string
	number             int
	// check compares; nil: with what was acknowledged.
	check    func()
	keepsOut *bool // whether nobody may work, since nothing can be changed; nil: no
}

// start runs a daemon and returns when it is ready. The error is errDied when it ends before that.
func start(l launch) (*life, error) {
	readyFile := filepath.Join(l.dir, "ready")
	if err := os.Remove(readyFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	one, p := &life{number: l.number}, &process{ended: make(chan struct{})}
	one.log = filepath.Join(l.dir, fmt.Sprintf("echod-%d.log", l.number))
	args := append([]string{
		"--state-dir=" + l.state, "--grpc-listen=127.0.0.1:0", "--http-listen=127.0.0.1:0", "--socket=" + filepath.Join(l.dir, "s"),
		"--drain-timeout=0s", "--ready-file=" + readyFile,
	}, l.flags...)
	cmd := exec.Command(l.binary, args...)
	cmd.Env = append(os.Environ(), l.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.OpenFile(one.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	started := make(chan error)
	go func() {
		// The kernel ends the process with the thread that started it, not with ours.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			p.status, _ = cmd.ProcessState.Sys().(syscall.WaitStatus)
			close(p.ended)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	p.pid = cmd.Process.Pid
	one.p.Store(p)
	var ready struct{ GRPC, HTTP string }
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		if text, err := os.ReadFile(readyFile); err == nil {
			if err := json.Unmarshal(text, &ready); err != nil {
				return nil, fmt.Errorf("the ready file: %w: %s", err, text)
			}
			break
		}
		select {
		case <-p.ended:
			return nil, fmt.Errorf("%w: %v", errDied, cmd.ProcessState)
		default:
		}
		if time.Now().After(deadline) {
			one.kill()
			return nil, fmt.Errorf("echod is not ready after %v", patience)
		}
	}
	one.rest = restConn{"http://" + ready.HTTP, &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}}
	one.grpc = ready.GRPC
	if err := one.connect(); err != nil {
		one.kill()
		return nil, err
	}
	return one, nil
}

// connect gives it a new connection over gRPC: one that was broken takes its time to try again.
func (l *life) connect() (err error) {
	if l.conn != nil {
		_ = l.conn.Close()
	}
	l.rest.client.CloseIdleConnections()
	l.conn, err = grpc.NewClient(l.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	return err
}

// kill ends it as a crash does, and waits until it is gone.
func (l *life) kill() {
	l.mortal.Store(true)
	_ = l.signal(syscall.SIGKILL)
	<-l.p.Load().ended
	l.end()
}

func (l *life) signal(s syscall.Signal) error { return syscall.Kill(l.p.Load().pid, s) }

// follow notes that another process is the daemon now, which nobody here has started.
func (l *life) follow(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	p := &process{pid: pid, ended: make(chan struct{})}
	l.p.Store(p)
	go func() {
		defer close(p.ended)
		defer unix.Close(fd)
		for { // readable when it has ended
			if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1); n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
				break
			}
		}
		// Its parent has gone before it, so it is ours by now.
		_, _ = syscall.Wait4(pid, &p.status, 0, nil)
	}()
	return nil
}

// words is what it has written.
func (l *life) words() string {
	text, err := os.ReadFile(l.log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// lastWords is the end of it.
func (l *life) lastWords() string {
	text := l.words()
	return text[max(0, len(text)-4000):]
}

// end gives up what clients share.
func (l *life) end() {
	if l.conn != nil {
		_ = l.conn.Close()
		l.rest.client.CloseIdleConnections()
	}
}

// hasEnded says whether nothing of it runs any more.
func (l *life) hasEnded() bool {
	select {
	case <-l.p.Load().ended:
		return true
	default:
		return false
	}
}

func (l *life) endpoints() echov1.EndpointServiceClient {
	return echov1.NewEndpointServiceClient(l.conn)
}

func (l *life) info(ctx context.Context) (*echov1.Info, error) {
	return echov1.NewDaemonServiceClient(l.conn).GetInfo(ctx, &echov1.GetInfoRequest{})
}

// list is all endpoints that match a filter, by name.
func list(ctx context.Context, c echov1.EndpointServiceClient, filter string) (map[string]*echov1.Endpoint, error) {
	all := map[string]*echov1.Endpoint{}
	for token := ""; ; {
		page, err := c.ListEndpoints(ctx, &echov1.ListEndpointsRequest{Filter: filter, PageSize: 1000, PageToken: token})
		if err != nil {
			return nil, err
		}
		for _, e := range page.Endpoints {
			all[e.Name] = e
		}
		if token = page.NextPageToken; token == "" {
			return all, nil
		}
	}
}
