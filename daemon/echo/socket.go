package echo

import "os"

// Socket answers a duplicate of the descriptor that the endpoint listens on, while it serves, for somebody who is to have the
// socket outlive it. The caller closes it. As long as anybody has one, the address stays taken after Close, and what comes to it
// waits. The error is [ErrClosed] when the endpoint is closing or over, or has connections alone, or the system's.
func (e *Endpoint) Socket() (*os.File, error) {
	if err := canHandOver(); err != nil {
		return nil, err
	}
	e.updating.Lock()
	defer e.updating.Unlock()
	if e.stopped.Load() || e.lone || e.isOver() {
		return nil, ErrClosed
	}
	return e.server.socket()
}

// Duplicate answers another descriptor of a socket, which the caller closes. The error is [ErrCannotHandOver], or the system's.
func Duplicate(socket *os.File) (*os.File, error) { return duplicateConn(socket, socket.Name()) }

func (s *tcpServer) socket() (*os.File, error) { return duplicateConn(s.listener, "listener") }

func (s *udpServer) socket() (*os.File, error) { return duplicateConn(s.conn, "udp") }
