package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// connected is a socket that is connected, so that an ICMP port unreachable comes back as an error of the socket, at once.
// (Not on Windows, where the sockets of package net keep such reports to themselves: there the rounds time out.) What
// comes from elsewhere it never sees.
type connected struct {
	run  *run
	conn net.Conn
}

func newConnected(r *run, conn net.Conn) connected {
	if c, ok := conn.(interface{ SetReadBuffer(int) error }); ok {
		_ = c.SetReadBuffer(receiveBuffer) // A wish: a socket with a smaller buffer works, too.
	}
	return connected{r, conn}
}

func (c connected) write(b []byte, deadline time.Time) error {
	if err := c.conn.SetWriteDeadline(deadline); err != nil {
		return err
	}
	_, err := c.conn.Write(b)
	return err
}

func (c connected) local() netip.AddrPort { return addrPort(c.conn.LocalAddr()) }
func (c connected) countAnew()            {}
func (c connected) close()                { _ = c.conn.Close() } // Nothing was buffered that could fail.

// read tells of what comes until the socket is closed or fails, or tell answers false.
func (c connected) read(tell func(arrival) bool) {
	buffer := make([]byte, longestDatagram)
	for {
		n, err := c.conn.Read(buffer)
		a := arrival{at: c.run.now(), err: err}
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err == nil:
			a.size = n
			a.seq, a.sent, a.data = c.run.judge(buffer[:n])
		}
		if !tell(a) || err != nil && !isReport(err) {
			return
		}
	}
}

// connections are the connected sockets of a run, each with a goroutine that reads.
type connections struct {
	*mailbox[arrival]
	ctx     context.Context
	cancel  context.CancelFunc
	readers sync.WaitGroup
}

func newConnections(ctx context.Context, r *run, handle func(arrival)) *connections {
	ctx, cancel := context.WithCancel(ctx)
	return &connections{mailbox: newMailbox(r, 256, handle), ctx: ctx, cancel: cancel}
}

func (c *connections) open(f *udpFlow, which int) (udpSocket, error) {
	conn, _, err := c.run.dial(c.ctx, f.number)
	if err != nil {
		return nil, err
	}
	socket := newConnected(c.run, conn)
	c.readers.Go(func() {
		socket.read(func(a arrival) bool {
			a.from, a.socket = f, which
			select {
			case c.in <- a:
				return true
			case <-c.ctx.Done():
				return false
			}
		})
	})
	return socket, nil
}

// stop follows the end of all sockets.
func (c *connections) stop() {
	c.cancel()
	c.mailbox.stop()
	c.readers.Wait()
}
