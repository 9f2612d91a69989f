package store

import (
	"bytes"
	"math"
	"os"
	"strconv"
	"syscall"
)

// What a process that checks a file may take besides what it has when it starts: some, and some for each byte of the file.
const (
	checkMemory        = 128 << 20
	checkMemoryPerByte = 16
	// mostCompressed is how many bytes of a file each that it takes on the disk may stand for.
	mostCompressed = 16
)

// limitMemory has this process end rather than take more memory than an honest file at path is worth, whatever its pages say. A
// hole in a file counts nothing, and what a file system may have compressed does. Where there can be no limit there is none.
func limitMemory(path string) {
	var file syscall.Stat_t
	_ = syscall.Stat(path, &file) // zero, where there is none
	stored := file.Blocks * 512
	if stored < int64(2*os.Getpagesize()) { // less than any has: this file system does not tell
		stored = file.Size
	}
	size := min(file.Size, stored*mostCompressed, math.MaxInt64/(2*checkMemoryPerByte))
	// RLIMIT_DATA, and not RLIMIT_AS: the runtime reserves addresses as it likes, and so does the race detector.
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_DATA, &limit); err != nil {
		return
	}
	limit.Cur = min(limit.Max, uint64(dataNow()+checkMemory+size*checkMemoryPerByte))
	_ = syscall.Setrlimit(syscall.RLIMIT_DATA, &limit)
}

// dataNow is what counts for RLIMIT_DATA of what this process has, in bytes; 0 when that is not known.
func dataNow() int64 {
	text, err := os.ReadFile("/proc/self/statm")
	fields := bytes.Fields(text)
	if err != nil || len(fields) < 6 {
		return 0
	}
	pages, _ := strconv.ParseInt(string(fields[5]), 10, 64)
	return pages * int64(os.Getpagesize())
}
