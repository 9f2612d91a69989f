//go:build linux && race

package torture_test

// raced says that this test looks for races, and so has the daemon look for its own.
const raced = true
