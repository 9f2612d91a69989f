package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"
)

func TestReasonOf(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the numbers below are those of Unix")
	}
	socketError := func(e syscall.Errno) error {
		return fmt.Errorf("more: %w", &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", e)})
	}
	for _, c := range []struct {
		err  error
		want Reason
	}{
		{socketError(syscall.ECONNREFUSED), ReasonRefused},
		{socketError(syscall.ENETUNREACH), ReasonUnreachable},
		{socketError(syscall.EHOSTUNREACH), ReasonUnreachable},
		{socketError(syscall.ECONNRESET), ReasonReset},
		{socketError(syscall.EPIPE), ReasonReset},
		{socketError(syscall.ETIMEDOUT), ReasonTimeout},
		{socketError(syscall.EMSGSIZE), ReasonTooBig},
		{socketError(syscall.EMFILE), ReasonOther},
		{socketError(syscall.EPERM), ReasonOther},
		{os.ErrDeadlineExceeded, ReasonTimeout},
		{fmt.Errorf("more: %w", context.DeadlineExceeded), ReasonTimeout},
		{io.EOF, ReasonClosedEarly},
		{io.ErrUnexpectedEOF, ReasonClosedEarly},
		{errors.New("anything"), ReasonOther},
	} {
		if got := reasonOf(c.err); got != c.want {
			t.Errorf("%v is %s, want %s", c.err, got, c.want)
		}
	}
}
