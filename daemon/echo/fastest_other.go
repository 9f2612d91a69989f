//go:build !linux

package echo

func fastest() sockets { return portable{} }
