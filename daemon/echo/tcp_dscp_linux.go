package echo

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// synBytes holds the headers of a SYN: IPv6 with some extensions, and TCP's with all options.
const synBytes = 256

// copyDSCP marks what a connection sends as its SYN was marked, which TCP_SAVE_SYN has kept. It is a wish.
func copyDSCP(fd int) {
	var syn [synBytes]byte
	size := uint32(synBytes)
	_, _, errno := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_SAVED_SYN,
		uintptr(unsafe.Pointer(&syn)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 || size < 2 {
		return
	}
	six, dscp := dscpOf(syn[:size])
	switch {
	case dscp == 0: // what is sent anyway
	case six:
		_ = setOptions(fd, option{unix.IPPROTO_IPV6, unix.IPV6_TCLASS, dscp})
	default:
		_ = setOptions(fd, option{unix.IPPROTO_IP, unix.IP_TOS, dscp})
	}
}

// dscpOf reads the TOS of an IPv4 header (RFC 791) or the traffic class of an IPv6 one (RFC 8200), two bytes at least,
// without its ECN bits.
func dscpOf(header []byte) (six bool, dscp int) {
	const version4 = 4
	if header[0]>>4 == version4 {
		return false, int(header[1]) &^ ecnBits
	}
	return true, int(header[0]&0x0f<<4|header[1]>>4) &^ ecnBits
}
