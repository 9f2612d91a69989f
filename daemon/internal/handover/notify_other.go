//go:build !unix

package handover

import (
	"errors"
	"net"
	"os"
)

// sendMessage sends a message; descriptors cannot be passed here.
func sendMessage(conn *net.UnixConn, text []byte, files []*os.File) error {
	if len(files) > 0 {
		return errors.ErrUnsupported
	}
	_, err := conn.Write(text)
	return err
}
