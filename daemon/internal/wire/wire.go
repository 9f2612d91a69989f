// Package wire is the payload of a round trip: a header that says whose it is, then a pattern that only this round has.
//
// It is pure bytes: it owns no socket, no clock and no state. The prober writes and checks payloads with it, and the
// data plane may read them; nobody else has business here.
//
// A payload of at least HeaderBytes is laid out so, integers in network byte order:
//
//	bytes 0..3    magic "ECH1"
//	bytes 4..11   run, a number drawn at random for each probe
//	bytes 12..15  sequence, from 1
//	bytes 16..23  when it was sent, in nanoseconds since 1970-01-01 UTC by the clock of the sender; if it is that long
//	bytes 24..    the pattern of run and sequence; without room for the time from byte 16
//
// A shorter one has no header: it is a pattern from its first byte on.
package wire

import (
	"encoding/binary"
	"math/bits"
)

// HeaderBytes is the size of the header. A payload of at least so many bytes says which round it belongs to.
const HeaderBytes = 16

// StampedBytes is how long a payload is that says when it was sent.
const StampedBytes = 24

const magic uint32 = 'E'<<24 | 'C'<<16 | 'H'<<8 | '1'

// Fill writes the whole payload of one round into b, sent at a time in nanoseconds since 1970; len(b) is the payload's
// size and may be 0.
func Fill(b []byte, run uint64, seq uint32, sent int64) {
	if len(b) < HeaderBytes {
		fillShort(b, run, seq)
		return
	}
	putHeader(b, run, seq)
	rest := b[HeaderBytes:]
	if len(b) >= StampedBytes {
		binary.BigEndian.PutUint64(rest, uint64(sent))
		rest = b[StampedBytes:]
	}
	fillPattern(rest, run, seq)
}

// Sent answers when a payload claims to have been sent, in nanoseconds since 1970. ok is false when it has no header, or no
// room for it.
func Sent(b []byte) (nanos int64, ok bool) {
	if _, _, ok := Parse(b); !ok || len(b) < StampedBytes {
		return 0, false
	}
	return int64(binary.BigEndian.Uint64(b[HeaderBytes:])), true
}

// Parse answers the run and the sequence that b claims to belong to. It looks at the header alone: whether the rest is
// right is for Matches to say. ok is false when b is shorter than the header or starts with something else.
func Parse(b []byte) (run uint64, seq uint32, ok bool) {
	if len(b) < HeaderBytes || binary.BigEndian.Uint32(b) != magic {
		return 0, 0, false
	}
	return binary.BigEndian.Uint64(b[4:]), binary.BigEndian.Uint32(b[12:]), true
}

// Matches says whether b is, byte for byte, what Fill writes for this run, sequence, time and size.
func Matches(b []byte, run uint64, seq uint32, sent int64) bool {
	if stamp, ok := Sent(b); ok && stamp != sent {
		return false
	}
	return differing(b, run, seq, 0) == 0
}

// Resembles says whether b is what Fill writes but for at most a quarter of its bytes: a damaged copy of it, even if
// the damage is in the header, and not the payload of another run. It is never true of an empty b.
func Resembles(b []byte, run uint64, seq uint32) bool {
	return len(b) > 0 && differing(b, run, seq, len(b)/4) <= len(b)/4
}

// differing counts the bytes of b that are not what Fill writes, but for those of the time. It may stop as soon as there are more than enough.
func differing(b []byte, run uint64, seq uint32, enough int) int {
	var want [HeaderBytes]byte
	head := want[:min(len(b), HeaderBytes)]
	if len(b) < HeaderBytes {
		fillShort(head, run, seq)
	} else {
		putHeader(head, run, seq)
	}
	n := 0
	for i, w := range head {
		if b[i] != w {
			n++
		}
	}
	if len(b) >= StampedBytes {
		head = b[:StampedBytes]
	}
	p := newPattern(run, seq)
	for rest := b[len(head):]; len(rest) > 0 && n <= enough; rest = rest[min(len(rest), 8):] {
		word := p.next()
		if len(rest) >= 8 {
			n += differingBytes(binary.LittleEndian.Uint64(rest) ^ word)
			continue
		}
		for i, got := range rest {
			if got != byte(word>>(8*i)) {
				n++
			}
		}
	}
	return n
}

// differingBytes counts the bytes of x that are not 0.
func differingBytes(x uint64) int {
	x |= x >> 4
	x |= x >> 2
	x |= x >> 1
	return bits.OnesCount64(x & 0x0101010101010101)
}

func putHeader(b []byte, run uint64, seq uint32) {
	binary.BigEndian.PutUint32(b, magic)
	binary.BigEndian.PutUint64(b[4:], run)
	binary.BigEndian.PutUint32(b[12:], seq)
}

func fillPattern(b []byte, run uint64, seq uint32) {
	p := newPattern(run, seq)
	for ; len(b) >= 8; b = b[8:] {
		binary.LittleEndian.PutUint64(b, p.next())
	}
	if len(b) > 0 {
		var last [8]byte
		binary.LittleEndian.PutUint64(last[:], p.next())
		copy(b, last[:])
	}
}

// fillShort writes a payload without a header. The first byte takes 256 different values in 256 successive rounds, so
// that even the reply of a one-byte payload is not taken for that of the round before.
func fillShort(b []byte, run uint64, seq uint32) {
	fillPattern(b, run, seq)
	if len(b) > 0 {
		b[0] = byte(mix(run)) + byte(seq)
	}
}

// pattern is a stream of words that look random and follow from run and sequence alone.
type pattern uint64

func newPattern(run uint64, seq uint32) pattern {
	return pattern(mix(mix(run) + uint64(seq)))
}

func (p *pattern) next() uint64 {
	*p += golden
	return mix(uint64(*p))
}

// golden is 2^64 divided by the golden ratio, the usual odd step of such a stream.
const golden = 0x9e3779b97f4a7c15

// mix scrambles a word; no two words give the same (each step can be undone).
func mix(x uint64) uint64 {
	x ^= x >> 32
	x *= golden
	x ^= x >> 29
	x *= golden
	return x ^ x>>32
}
