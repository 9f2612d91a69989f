package echo

import "time"

const (
	firstPause = 5 * time.Millisecond
	maxPause   = time.Second
)

// backoff spaces out retries of something that keeps failing. The zero value is ready.
type backoff struct{ last time.Duration }

// pause waits 5 ms, then twice as long each time up to a second. It returns early and false when stop closes.
func (b *backoff) pause(stop <-chan struct{}) bool {
	b.last = min(max(2*b.last, firstPause), maxPause)
	timer := time.NewTimer(b.last)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-stop:
		return false
	}
}

// reset starts over after a success.
func (b *backoff) reset() { b.last = 0 }
