package probe

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// timerFD is an alarm of the kernel's, exact to some microseconds (timerfd_create(2)).
type timerFD struct {
	file    *os.File
	ring    chan time.Time
	reading sync.WaitGroup
}

// newAlarm answers the most exact alarm that there is.
func newAlarm() alarm {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return newTimer()
	}
	t := &timerFD{file: os.NewFile(uintptr(fd), "timerfd"), ring: make(chan time.Time, 1)}
	t.reading.Go(t.read)
	return t
}

func (t *timerFD) read() {
	var count [8]byte
	for {
		if _, err := t.file.Read(count[:]); err != nil {
			return
		}
		select {
		case t.ring <- time.Now():
		default:
		}
	}
}

func (t *timerFD) set(d time.Duration) {
	// 0 would disarm it.
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(int64(d), 1))}
	raw, err := t.file.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.TimerfdSettime(int(fd), 0, &spec, nil) })
}

func (t *timerFD) rings() <-chan time.Time { return t.ring }

func (t *timerFD) stop() {
	_ = t.file.Close()
	t.reading.Wait()
}
