package load

import (
	"bytes"
	"errors"
)

var errNotOurs = errors.New("what came back is not what was sent")

// pattern is what is sent: the same size bytes again and again. It holds them often enough to be compared with any piece
// of the stream of up to room bytes.
type pattern struct {
	bytes []byte
	size  int
}

func newPattern(size, room int) pattern {
	all := make([]byte, size+room)
	for i := range all {
		all[i] = byte(i%size)*7 + 1
	}
	return pattern{bytes: all, size: size}
}

// matches reports whether got is what stands at offset in the stream.
func (p pattern) matches(got []byte, offset int) bool {
	at := offset % p.size
	return bytes.Equal(got, p.bytes[at:at+len(got)])
}
