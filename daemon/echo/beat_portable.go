package echo

import "os"

// beat has nobody to ask: a goroutine serves one socket.
func (portable) beat() {}

func (s *tcpServer) socket() (*os.File, error) { return duplicateConn(s.listener, "listener") }

func (s *udpServer) socket() (*os.File, error) { return duplicateConn(s.conn, "udp") }

// Duplicate answers another descriptor of a socket, which the caller closes. The error is [ErrCannotHandOver], or the system's.
func Duplicate(socket *os.File) (*os.File, error) { return duplicateConn(socket, socket.Name()) }
