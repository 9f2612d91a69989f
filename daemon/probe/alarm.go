package probe

import "time"

// alarm wakes a run at a time. The timers of package time will do, but for their grain, which on some systems is a
// millisecond where nothing else wakes the process.
type alarm interface {
	// set has the alarm go off after d, instead of whatever it was set to.
	set(d time.Duration)
	// rings has something to read when the alarm has gone off, or did before it was set anew.
	rings() <-chan time.Time
	// stop ends what belongs to it.
	stop()
}

// timer is an alarm of package time.
type timer struct{ *time.Timer }

func newTimer() alarm { return timer{time.NewTimer(never)} }

func (t timer) set(d time.Duration)     { t.Reset(d) }
func (t timer) rings() <-chan time.Time { return t.C }
func (t timer) stop()                   { t.Stop() }
