//go:build unix

package echo_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"

	"github.com/echod/echod/daemon/echo"
)

// childVariable has the test binary be the other process of a hand-over: "net" or "fast" is its engine, and descriptor 3 its
// connection to the test.
const childVariable = "ECHO_TEST_HANDOVER"

func init() {
	kind := os.Getenv(childVariable)
	if kind == "" {
		return
	}
	child = func() error {
		conn, err := unixConn(os.NewFile(3, "test"))
		if err != nil {
			return err
		}
		return serveHandOvers(conn, echo.New(echo.Options{Portable: kind == "net"}))
	}
}

func unixConn(f *os.File) (*net.UnixConn, error) {
	conn, err := net.FileConn(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// served is an endpoint and what it is made from.
type served struct {
	Spec     echo.Spec
	Handed   echo.Handed
	endpoint *echo.Endpoint
}

// fewFiles is how many go with one message; the kernel takes no more than 253 (SCM_MAX_FD).
const fewFiles = 200

func (s *served) files() (files []**os.File) {
	if s.Handed.Socket != nil {
		files = append(files, &s.Handed.Socket)
	}
	for i := range s.Handed.Connections {
		files = append(files, &s.Handed.Connections[i].Socket)
	}
	return files
}

// pass hands endpoints over to who is at the other end of conn.
func pass(conn *net.UnixConn, all []*served) error {
	for _, s := range all {
		var err error
		if s.Handed, err = s.endpoint.Pause(noEnd); err != nil {
			return err
		}
		defer closeFiles(s.Handed)
	}
	text, err := json.Marshal(all)
	if err != nil {
		return err
	}
	if _, err := conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...)); err != nil {
		return err
	}
	for _, s := range all {
		hasSocket := []byte{0}
		if s.Handed.Socket != nil {
			hasSocket[0] = 1
		}
		if _, err := conn.Write(hasSocket); err != nil {
			return err
		}
		for some := range slices.Chunk(s.files(), fewFiles) {
			var fds []int
			for _, f := range some {
				fds = append(fds, int((*f).Fd()))
			}
			if _, _, err := conn.WriteMsgUnix([]byte{byte(len(fds))}, syscall.UnixRights(fds...), nil); err != nil {
				return err
			}
		}
	}
	if err := expectByte(conn, 'a'); err != nil { // all are adopted
		return err
	}
	for _, s := range all {
		s.endpoint.Release()
		closeFiles(s.Handed)
	}
	_, err = conn.Write([]byte{'r'}) // and released
	return err
}

// take adopts what is passed, and serves it.
func take(conn *net.UnixConn, engine *echo.Engine) (all []*served, err error) {
	var size [4]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	text := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(conn, text); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, err
	}
	for _, s := range all {
		var hasSocket [1]byte
		if _, err := io.ReadFull(conn, hasSocket[:]); err != nil {
			return nil, err
		}
		if hasSocket[0] != 0 {
			s.Handed.Socket = os.Stdin // a place for it
		}
		for some := range slices.Chunk(s.files(), fewFiles) {
			if err := receive(conn, some); err != nil {
				return nil, err
			}
		}
		if s.endpoint, err = engine.Adopt(noEnd, s.Spec, s.Handed); err != nil {
			return nil, err
		}
	}
	if _, err := conn.Write([]byte{'a'}); err != nil {
		return nil, err
	}
	if err := expectByte(conn, 'r'); err != nil {
		return nil, err
	}
	for _, s := range all {
		if err := s.endpoint.Resume(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func receive(conn *net.UnixConn, files []**os.File) error {
	oob := make([]byte, syscall.CmsgSpace(4*fewFiles))
	n, oobn, _, _, err := conn.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil || n != 1 {
		return fmt.Errorf("read %d, %w", n, err)
	}
	messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		return fmt.Errorf("%d control messages, %w", len(messages), err)
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != len(files) {
		return fmt.Errorf("%d descriptors, want %d, %w", len(fds), len(files), err)
	}
	for i, fd := range fds {
		syscall.CloseOnExec(fd)
		*files[i] = os.NewFile(uintptr(fd), "handed")
	}
	return nil
}

func expectByte(r io.Reader, want byte) error {
	var b [1]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return err
	}
	if b[0] != want {
		return fmt.Errorf("got %q, want %q", b[0], want)
	}
	return nil
}

// serveHandOvers is the other process: it takes what it is passed, and passes it back when it is asked to.
func serveHandOvers(conn *net.UnixConn, engine *echo.Engine) error {
	for {
		all, err := take(conn, engine)
		if errors.Is(err, io.EOF) {
			return engine.Close(endedContext())
		}
		if err != nil {
			return err
		}
		if err := expectByte(conn, 'b'); err != nil {
			return err
		}
		if err := pass(conn, all); err != nil {
			return err
		}
	}
}

// The same as in one process, with another: nothing is lost, changed, reset or refused.
func TestHandOverToAnotherProcess(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"net", "fast"} {
		t.Run(kind, func(t *testing.T) {
			pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
			if err != nil {
				t.Fatal(err)
			}
			syscall.CloseOnExec(pair[0])
			syscall.CloseOnExec(pair[1])
			theirs := os.NewFile(uintptr(pair[1]), "child")
			conn, err := unixConn(os.NewFile(uintptr(pair[0]), "test"))
			if err != nil {
				t.Fatal(err)
			}
			other := exec.Command(self)
			other.Env = append(os.Environ(), childVariable+"="+kind)
			other.ExtraFiles, other.Stdout, other.Stderr = []*os.File{theirs}, os.Stdout, os.Stderr
			if err := errors.Join(other.Start(), theirs.Close()); err != nil {
				t.Fatal(err)
			}
			defer func() {
				conn.Close()
				if err := other.Wait(); err != nil {
					t.Errorf("the other process: %v", err)
				}
			}()
			setDeadline(t, conn)

			engine := echo.New(echo.Options{Portable: kind == "net"})
			defer closeEngine(t, engine)
			var all []*served
			for _, s := range []echo.Spec{tcpSpec(echo.TCPOptions{}), {Protocol: echo.UDP, Listen: "127.0.0.1:0"}} {
				all = append(all, &served{Spec: s, endpoint: listen(t, engine, s)})
			}
			l := startLoad(all[0].endpoint.Addr(), all[1].endpoint.Addr(), 200, 8, 2)
			for range 10 {
				l.moves(t)
				if err := pass(conn, all); err != nil {
					t.Fatal(err)
				}
				l.moves(t)
				setDeadline(t, conn)
				if _, err := conn.Write([]byte{'b'}); err != nil {
					t.Fatal(err)
				}
				if all, err = take(conn, engine); err != nil {
					t.Fatal(err)
				}
			}
			l.moves(t)
			for _, problem := range l.end() {
				t.Error(problem)
			}
			tcp, udp := all[0].endpoint, all[1].endpoint
			eventually(t, "all have ended", func() bool { return tcp.Stats().ConnectionsOpen == 0 })
			got, connected := tcp.Stats(), l.connected.Load()
			if want := l.streamed.Load() + 4*connected; got.BytesIn != want || got.BytesOut != want || got.ConnectionsTotal != 200+connected || len(got.Drops)+len(got.Errors) > 0 {
				t.Errorf("TCP: %d bytes of 200 streams and %d others; counted %+v", want, connected, got)
			}
			if got := udp.Stats(); got.DatagramsIn != l.datagrams.Load() || got.DatagramsOut != got.DatagramsIn || len(got.Drops)+len(got.Errors) > 0 {
				t.Errorf("UDP: %d datagrams came back; counted %+v", l.datagrams.Load(), got)
			}
		})
	}
}
