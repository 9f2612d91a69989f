package handover

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// MaxMessage is how many bytes a message of a [Link] may have. What is longer goes as several.
const MaxMessage = 16 << 20

// maxFiles is how many descriptors Linux takes with one message (SCM_MAX_FD).
const maxFiles = 253

// MessageKind is what a message of a [Link] is about. What the kinds are is for both sides to agree on; 0 is the refusal.
type MessageKind uint8

// refusal is the message of a side that does not go on, and why.
const refusal MessageKind = 0

// filesKind is the message that descriptors come with.
const filesKind MessageKind = 255

// headerBytes are a message's kind and the length of the rest.
const headerBytes = 5

var (
	// ErrEnded says that the other side has ended, or has been ended, or has closed the link.
	ErrEnded = errors.New("the other process has ended")
	// ErrTooLate says that the other side has not answered within the time that it had.
	ErrTooLate = errors.New("the other process does not answer")
	// ErrGarbled says that what came is nothing that this side understands at this moment.
	ErrGarbled = errors.New("the other process does not speak as it should")
)

// Refused is the error of a side that has been told why the other one does not go on.
type Refused struct{ Reason string }

func (r *Refused) Error() string { return r.Reason }

// Link is what two processes talk over while one hands over to the other: messages of JSON, and descriptors. It is one end of
// a socket pair. Each side's calls are to come one after the other; Close may come at any time.
type Link struct {
	conn  conn
	read  *bufio.Reader
	write *bufio.Writer
	came  []*os.File // that nobody has asked for yet
}

// conn is the socket below a link.
type conn interface {
	// Read reads bytes; the descriptors that came with them go to the link.
	io.ReadWriteCloser
	SetDeadline(time.Time) error
	// writeFiles writes bytes, and descriptors with the first of them.
	writeFiles(data []byte, some []*os.File) error
}

// SetDeadline bounds how long all calls from now on may take; the zero time is no bound.
func (l *Link) SetDeadline(t time.Time) error { return l.conn.SetDeadline(t) }

// Put adds a message to those that the next Send, SendFiles or Flush sends.
func (l *Link) Put(kind MessageKind, message any) error {
	text, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("cannot encode a message of kind %d: %w", kind, err)
	}
	if len(text) > MaxMessage {
		return fmt.Errorf("cannot send a message of kind %d: it has %d bytes, and %d are the most", kind, len(text), MaxMessage)
	}
	header := binary.BigEndian.AppendUint32([]byte{byte(kind)}, uint32(len(text)))
	if _, err := l.write.Write(header); err != nil {
		return reason(err)
	}
	_, err = l.write.Write(text)
	return reason(err)
}

// Flush sends what was put.
func (l *Link) Flush() error { return reason(l.write.Flush()) }

// Send sends a message, behind what was put.
func (l *Link) Send(kind MessageKind, message any) error {
	return errors.Join(l.Put(kind, message), l.Flush())
}

// Refuse tells the other side why this one does not go on.
func (l *Link) Refuse(why error) error { return l.Send(refusal, Refused{why.Error()}) }

// Receive waits for a message and decodes it. The error is a *Refused when the other side does not go on, ErrEnded, ErrTooLate,
// or ErrGarbled when it is no message of this kind.
func (l *Link) Receive(kind MessageKind, message any) error {
	got, text, err := l.receive()
	if err != nil {
		return err
	}
	if got == refusal && kind != refusal {
		refused := &Refused{}
		if err := json.Unmarshal(text, refused); err != nil {
			return fmt.Errorf("%w: its refusal cannot be understood: %w", ErrGarbled, err)
		}
		return refused
	}
	if got != kind {
		return fmt.Errorf("%w: a message of kind %d came, and one of kind %d should have", ErrGarbled, got, kind)
	}
	if err := json.Unmarshal(text, message); err != nil {
		return fmt.Errorf("%w: a message of kind %d cannot be understood: %w", ErrGarbled, kind, err)
	}
	return nil
}

func (l *Link) receive() (MessageKind, []byte, error) {
	var header [headerBytes]byte
	if _, err := io.ReadFull(l.read, header[:]); err != nil {
		return 0, nil, reason(err)
	}
	kind, length := MessageKind(header[0]), binary.BigEndian.Uint32(header[1:])
	if length > MaxMessage {
		return 0, nil, fmt.Errorf("%w: a message of kind %d has %d bytes, and %d are the most", ErrGarbled, kind, length, MaxMessage)
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(l.read, text); err != nil {
		return 0, nil, reason(err)
	}
	return kind, text, nil
}

// SendFiles sends descriptors, behind what was put; those of the caller stay open. The other side has to ask for as many.
func (l *Link) SendFiles(some []*os.File) error {
	if err := l.Flush(); err != nil {
		return err
	}
	for len(some) > 0 {
		n := min(len(some), maxFiles)
		header := binary.BigEndian.AppendUint32([]byte{byte(filesKind)}, 1)
		if err := l.conn.writeFiles(append(header, byte(n)), some[:n]); err != nil {
			return reason(err)
		}
		some = some[n:]
	}
	return nil
}

// ReceiveFiles waits for so many descriptors, which are the caller's to close. With an error there are none.
func (l *Link) ReceiveFiles(n int) (_ []*os.File, err error) {
	var got []*os.File
	defer func() {
		if err != nil {
			closeFiles(got)
		}
	}()
	for len(got) < n {
		kind, text, err := l.receive()
		if err != nil {
			return nil, err
		}
		if kind != filesKind || len(text) != 1 {
			return nil, fmt.Errorf("%w: a message of kind %d came, and %d descriptors should have", ErrGarbled, kind, n-len(got))
		}
		more := int(text[0])
		if more == 0 || more > n-len(got) || more > len(l.came) {
			return nil, fmt.Errorf("%w: of %d descriptors %d were sent and %d came", ErrGarbled, n-len(got), more, len(l.came))
		}
		got = append(got, l.came[:more]...)
		l.came = append([]*os.File(nil), l.came[more:]...)
	}
	return got, nil
}

// Close ends the link, and closes descriptors that came and nobody has asked for.
func (l *Link) Close() error {
	closeFiles(l.came)
	l.came = nil
	return l.conn.Close()
}

func closeFiles(some []*os.File) {
	for _, f := range some {
		_ = f.Close() // it is only given up
	}
}

// reason says what an error of the socket means.
func reason(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ErrTooLate
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), isHangUp(err):
		return ErrEnded
	default:
		return fmt.Errorf("cannot talk to the other process: %w", err)
	}
}
