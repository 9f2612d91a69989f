//go:build !failpoints

package store

// failpoint does nothing: only a binary that is built with the tag failpoints has any.
func failpoint(string) {}
