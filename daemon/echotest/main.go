package echotest

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"sync"
)

// Main is for TestMain: it runs setup, then the tests, and ends what setup has started. It answers the code to exit with.
// What is started with setup's TB lives as long as the tests of the package. Where setup fails no test is run.
//
// When a test of the package fails, that TB has failed: what a daemon of setup wrote goes to standard error then.
func Main(m interface{ Run() int }, setup func(t TB)) (code int) {
	return scopedMain(&scope{log: os.Stderr}, m, setup)
}

func scopedMain(s *scope, m interface{ Run() int }, setup func(t TB)) (code int) {
	s.run(func() { setup(s) })
	if !s.Failed() {
		code = m.Run()
	}
	if code != 0 {
		s.fail()
	}
	s.end()
	if s.Failed() {
		code = max(code, 1)
	}
	return code
}

// scope is a TB without a test.
type scope struct {
	log io.Writer

	mu       sync.Mutex // guards what follows
	failed   bool
	cleanups []func()
}

// run calls f, and returns when f has or Fatalf was called.
func (s *scope) run(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
}

// end runs what Cleanup was given, last first.
func (s *scope) end() {
	for {
		s.mu.Lock()
		n := len(s.cleanups)
		if n == 0 {
			s.mu.Unlock()
			return
		}
		last := s.cleanups[n-1]
		s.cleanups = slices.Delete(s.cleanups, n-1, n)
		s.mu.Unlock()
		s.run(last)
	}
}

func (s *scope) Helper() {}

func (s *scope) Cleanup(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleanups = append(s.cleanups, f)
}

func (s *scope) fail() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = true
}

func (s *scope) Failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

func (s *scope) Logf(format string, args ...any) { fmt.Fprintf(s.log, format+"\n", args...) }

func (s *scope) Errorf(format string, args ...any) {
	s.Logf(format, args...)
	s.fail()
}

func (s *scope) Fatalf(format string, args ...any) {
	s.Errorf(format, args...)
	runtime.Goexit()
}
