//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench: the benchmark needs Linux: epoll, recvmmsg, /proc")
	os.Exit(1)
}
