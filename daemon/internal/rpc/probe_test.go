package rpc

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/echod/echod/daemon/probe"
)

func TestAggregateEvery(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		count    uint32
		interval time.Duration
		asked    *durationpb.Duration
		want     time.Duration
	}{
		{count: 5, interval: 200 * ms},
		{count: 0, interval: 10 * ms},
		{count: 100, interval: 0},
		{count: 101, interval: 10*ms - 1, want: 500 * ms},
		{count: 101, interval: 0, want: 500 * ms},
		{count: 0, interval: 0, want: 500 * ms},
		{count: 0, interval: 0, asked: durationpb.New(0)},
		{count: 1, interval: time.Second, asked: durationpb.New(10 * ms), want: 10 * ms},
	} {
		if got := aggregateEvery(c.asked, probe.Plan{Count: c.count, Interval: c.interval}); got != c.want {
			t.Errorf("count %d, interval %v, asked %v: %v, want %v", c.count, c.interval, c.asked, got, c.want)
		}
	}
}
