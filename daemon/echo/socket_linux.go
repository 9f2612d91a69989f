package echo

import "os"

func (s *loopTCP) socket() (f *os.File, err error) {
	err = ErrClosed
	s.home.await(func() {
		if !s.closed {
			f, err = duplicateFile(uintptr(s.listener), "listener")
		}
	})
	return f, err
}

func (s *loopUDP) socket() (f *os.File, err error) {
	err = ErrClosed
	s.home.await(func() {
		if !s.closed {
			f, err = duplicateFile(uintptr(s.fd), "udp")
		}
	})
	return f, err
}
