//go:build !unix

package server

// maxSockets is no limit: descriptors are not counted on this system.
func maxSockets() int { return 0 }
