package wire

import (
	"bytes"
	"encoding/hex"
	"testing"
)

// stamp is when the payloads here say that they were sent.
const stamp = 0x1122334455667788

// Two ends of a run may be of different versions: the layout must not change.
func TestFillIsAsEver(t *testing.T) {
	for size, want := range map[int]string{
		0:  "",
		3:  "e197f8",
		16: "454348310123456789abcdef0000002a",
		23: "454348310123456789abcdef0000002a" + "9897f85e2fab11",
		27: "454348310123456789abcdef0000002a" + "1122334455667788" + "9897f8",
	} {
		b := make([]byte, size)
		Fill(b, 0x0123456789abcdef, 42, stamp)
		if got := hex.EncodeToString(b); got != want {
			t.Errorf("Fill of %d bytes = %s, want %s", size, got, want)
		}
	}
}

var sizes = []int{0, 1, 2, 7, 8, 15, 16, 17, 23, 24, 25, 64, 1472, 65507}

func TestWhatIsFilledMatchesAndNothingElse(t *testing.T) {
	for _, size := range sizes {
		b := make([]byte, size)
		Fill(b, 7, 9, stamp)
		if !Matches(b, 7, 9, stamp) {
			t.Errorf("%d bytes do not match themselves", size)
		}
		if size == 0 {
			continue
		}
		if Matches(b, 7, 10, stamp) || size > 1 && Matches(b, 8, 9, stamp) {
			t.Errorf("%d bytes match another round", size)
		}
		for i := 0; i < size; i += max(1, size/50) {
			b[i] ^= 0x10
			if Matches(b, 7, 9, stamp) {
				t.Errorf("%d bytes match with byte %d wrong", size, i)
			}
			b[i] ^= 0x10
		}
		b[size-1]++
		if Matches(b, 7, 9, stamp) {
			t.Errorf("%d bytes match with the last one wrong", size)
		}
	}
}

func TestParse(t *testing.T) {
	for _, size := range sizes {
		b := make([]byte, size)
		Fill(b, 1<<63+5, 1<<32-1, stamp)
		run, seq, ok := Parse(b)
		if ok != (size >= HeaderBytes) {
			t.Errorf("Parse of %d bytes: ok = %v", size, ok)
		}
		if ok && (run != 1<<63+5 || seq != 1<<32-1) {
			t.Errorf("Parse of %d bytes = %d, %d", size, run, seq)
		}
	}
	b := make([]byte, 64)
	Fill(b, 1, 1, stamp)
	b[3] ^= 1
	if _, _, ok := Parse(b); ok {
		t.Error("Parse takes a wrong magic")
	}
}

func TestSent(t *testing.T) {
	for _, size := range sizes {
		b := make([]byte, size)
		Fill(b, 1, 2, -stamp)
		if nanos, ok := Sent(b); ok != (size >= StampedBytes) || ok && nanos != -stamp {
			t.Errorf("Sent of %d bytes = %d, %v", size, nanos, ok)
		}
		if size >= StampedBytes && Matches(b, 1, 2, stamp) {
			t.Errorf("%d bytes match another time", size)
		}
	}
	if _, ok := Sent(make([]byte, 64)); ok {
		t.Error("what is no payload says when it was sent")
	}
}

func TestResembles(t *testing.T) {
	for _, size := range []int{4, 16, 17, 64, 1472} {
		b := make([]byte, size)
		Fill(b, 5, 6, stamp)
		damaged := size / 4
		if size >= StampedBytes && damaged > HeaderBytes {
			damaged += StampedBytes - HeaderBytes // The time may be any.
		}
		for i := range damaged {
			b[i] ^= 0xff // The header first.
		}
		if !Resembles(b, 5, 6) {
			t.Errorf("%d bytes, a quarter of them damaged, are not known again", size)
		}
		b[size-1] ^= 1
		if Resembles(b, 5, 6) {
			t.Errorf("%d bytes, more than a quarter of them damaged, are taken for the round's", size)
		}
		Fill(b, 0x1122334455667788, 6, stamp)
		if Resembles(b, 0x99aabbccddeeff00, 6) {
			t.Errorf("%d bytes of another run are taken for ours", size)
		}
	}
	if Resembles(nil, 1, 1) {
		t.Error("nothing resembles something")
	}
}

func TestOneByteDiffersIn256SuccessiveRounds(t *testing.T) {
	seen := map[byte]uint32{}
	for seq := range uint32(256) {
		var b [1]byte
		Fill(b[:], 99, seq, stamp)
		if other, ok := seen[b[0]]; ok {
			t.Fatalf("rounds %d and %d have the same byte", other, seq)
		}
		seen[b[0]] = seq
	}
}

func TestLargePayloadLooksRandom(t *testing.T) {
	b := make([]byte, 1<<20)
	Fill(b, 3, 4, stamp)
	var count [256]int
	for _, x := range b {
		count[x]++
	}
	for x, n := range count {
		if n < 3500 || n > 4700 { // 4096 expected, standard deviation 64.
			t.Errorf("byte %#x occurs %d times in a mebibyte", x, n)
		}
	}
}

func FuzzPayload(f *testing.F) {
	f.Add([]byte(nil), uint64(0), uint32(0))
	f.Add([]byte("ECH1 and twelve bytes more"), uint64(1), uint32(2))
	f.Add(make([]byte, 100), uint64(1)<<63, uint32(1)<<31)
	// A quarter of them damaged, and another time.
	damaged := make([]byte, StampedBytes)
	Fill(damaged, 7, 8, stamp)
	for i := range len(damaged) / 4 {
		damaged[i] ^= 0xff
	}
	for i := HeaderBytes; i < StampedBytes; i++ {
		damaged[i] ^= 0xff
	}
	f.Add(damaged, uint64(7), uint32(8))
	f.Fuzz(func(t *testing.T, b []byte, run uint64, seq uint32) {
		want := make([]byte, len(b))
		Fill(want, run, seq, stamp)
		if got := Matches(b, run, seq, stamp); got != bytes.Equal(b, want) {
			t.Errorf("Matches = %v of %x, Fill writes %x", got, b, want)
		}
		n := 0
		for i := range b {
			theTime := len(b) >= StampedBytes && i >= HeaderBytes && i < StampedBytes // It may be any.
			if b[i] != want[i] && !theTime {
				n++
			}
		}
		if got := Resembles(b, run, seq); got != (len(b) > 0 && n <= len(b)/4) {
			t.Errorf("Resembles = %v with %d of %d bytes wrong", got, n, len(b))
		}
		if parsedRun, parsedSeq, ok := Parse(b); ok {
			header := make([]byte, HeaderBytes)
			Fill(header, parsedRun, parsedSeq, stamp)
			if !bytes.Equal(header, b[:HeaderBytes]) {
				t.Errorf("Parse of %x = %d, %d", b, parsedRun, parsedSeq)
			}
		}
	})
}

func BenchmarkFill(b *testing.B) {
	buf := make([]byte, 1472)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		Fill(buf, 1, 2, stamp)
	}
}
