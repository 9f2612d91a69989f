//go:build unix

package echo_test

import (
	"io"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/echod/echod/daemon/echo"
)

// Urgent data comes back where it stood, and the mark at which reading stops short holds up nothing behind it.
func TestTCPUrgentData(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		e := open(t, newEngine, tcpSpec(echo.TCPOptions{}))
		for range 50 {
			conn := dial(t, e)
			raw, err := conn.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			for _, piece := range []struct {
				text  string
				flags int
			}{{"before", 0}, {"!", unix.MSG_OOB}, {"behind it", 0}} {
				var sendErr error
				if err := raw.Control(func(fd uintptr) { sendErr = unix.Sendto(int(fd), []byte(piece.text), piece.flags, nil) }); err != nil || sendErr != nil {
					t.Fatal(err, sendErr)
				}
			}
			answer := make([]byte, len("before!behind it"))
			if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != "before!behind it" {
				t.Fatalf("got %q, %v", answer, err)
			}
			conn.Close()
		}
	})
}
