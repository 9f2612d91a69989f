// Package echotest gives tests something that echoes, for as long as a test lasts.
//
//   - [TCP] and [UDP] answer the address of an echo endpoint on loopback, and [Endpoint] one with any options of package echo.
//   - [StartDaemon] runs a whole daemon in the process of the test: endpoints, probes and monitors over gRPC and REST.
//   - [StartProcess] runs the echod binary, for what only a process shows: signals, kills, restarts, another user.
//   - [Main] is for what all tests of a package share.
//
// Zero options work. Whatever is started is on ports of its own, so that tests may run in parallel; it is ready when the
// function returns, and gone when the test is over, however the test ends. What cannot be had ends the test with a message
// that says why. What a daemon writes is kept, and goes to the log of a test that failed.
//
// As with testing.TB.FailNow, the functions and methods that take or hold a [TB] are for the goroutine that runs the test,
// unless they say otherwise. The package is for tests alone: nothing else of ours calls it.
package echotest

// TB is what this package needs of a testing.TB, which is one. So are the doubles that other test frameworks have.
type TB interface {
	Helper()
	Cleanup(f func())
	Failed() bool
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}
