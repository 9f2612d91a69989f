package probe

import (
	"cmp"
	"math"
	"time"
)

// Cost is what the run of a plan takes, of what it shares with others. It is what is planned, not what is measured.
type Cost struct {
	// RoundsPerSecond is how many rounds leave, over as long as the run lasts. Without an Interval it is how many leave
	// when nothing answers; more leave as fast as answers come, up to Plan.MaxRate.
	RoundsPerSecond float64
	// BitsPerSecond is their payload.
	BitsPerSecond float64
	// Sockets is how many are open at once, at most.
	Sockets int
	// MemoryBytes is about how much memory the run grows to.
	MemoryBytes int64
	// Length is for about how long rounds leave at most; 0: there is no bound.
	Length time.Duration
}

// What a run takes in memory, about: the sums of its report; what is remembered of each of the last rounds; the sums of
// a flow or a payload size; the buffers of a UDP socket.
const (
	runBytes    = 1 << 20
	tripBytes   = 48
	sumBytes    = 34 << 10
	readerBytes = 2 << 16
)

// Cost works out what the run of a plan takes. The plan must have passed Validate.
func (p Plan) Cost() Cost {
	c := Cost{RoundsPerSecond: 1 / p.Interval.Seconds(), Sockets: p.flows(), Length: p.length()}
	if p.Interval == 0 {
		c.RoundsPerSecond = float64(p.flows()) / p.Timeout.Seconds()
		if p.MaxRate > 0 {
			c.RoundsPerSecond = min(c.RoundsPerSecond, p.MaxRate)
		}
	}
	c.BitsPerSecond = c.RoundsPerSecond * p.meanBytes() * 8
	if p.newConnections() {
		c.Sockets = p.connections(c.RoundsPerSecond)
	}
	rounds := int64(windowRounds)
	if most := p.mostRounds(); most > 0 {
		rounds = min(rounds, most)
	}
	c.MemoryBytes = runBytes + rounds*tripBytes + int64(p.flows()+len(p.Sizes))*sumBytes
	if p.Protocol == TCP {
		c.MemoryBytes += 2 * int64(p.largest()) * int64(c.Sockets) // as sent and as read
	} else {
		c.MemoryBytes += readerBytes * int64(c.Sockets)
	}
	return c
}

// mostRounds is how many rounds there are at most; 0: there is no bound.
func (p Plan) mostRounds() int64 {
	if p.PathMTU != nil {
		return int64(mostSearched(int(p.Count)))
	}
	return int64(p.Count)
}

// meanBytes is the mean payload of a round; of a search, which chooses them, the largest that it may try.
func (p Plan) meanBytes() float64 {
	if p.PathMTU != nil {
		return float64(cmp.Or(p.PathMTU.MaxPayload, MaxPayloadUDP4))
	}
	if len(p.Sizes) == 0 {
		return float64(p.PayloadBytes)
	}
	sum := 0
	for _, size := range p.Sizes {
		sum += size
	}
	return float64(sum) / float64(len(p.Sizes))
}

// connections is how many there are at once where each round has its own: as many as may be on their way, or fewer when
// a round is over, at the latest, before so many others have left.
func (p Plan) connections(roundsPerSecond float64) int {
	most := int64(p.maxOutstanding())
	if p.Count > 0 {
		most = min(most, int64(p.Count))
	}
	if p.closed() {
		return int(most)
	}
	lasts := 2 * p.Timeout // to connect, and for the reply
	if p.AwaitClose {
		lasts += p.Timeout
	}
	return int(min(float64(most), math.Ceil(roundsPerSecond*lasts.Seconds())+1))
}

// length is for about how long rounds leave at most.
func (p Plan) length() time.Duration {
	rounds := p.mostRounds()
	if rounds == 0 {
		return p.Duration
	}
	// A round that must wait for another waits for no longer than that has time.
	apart := max(p.Interval, p.Timeout/time.Duration(p.flows()))
	if p.Interval == 0 {
		apart = max(apart, leastApart(p.MaxRate))
	}
	if time.Duration(rounds) > math.MaxInt64/apart {
		return p.Duration
	}
	length := time.Duration(rounds) * apart
	if p.Duration > 0 {
		length = min(length, p.Duration)
	}
	return length
}
