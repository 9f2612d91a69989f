package load

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	readBytes     = 64 << 10
	bulkReadBytes = 256 << 10
	// bulkBytes may be under way over all connections of Bulk.
	bulkBytes = 4 << 20
)

// tcpConn is a connection of any kind of load.
type tcpConn struct {
	fd       int
	received int           // bytes of the request that is coming back
	underWay int           // bytes sent and not yet back; Bulk alone
	sent     time.Duration // when the last request was
}

// dialAll opens the plan's connections and has the poller watch them, named by their index.
func dialAll(t *trial, p *poller) ([]tcpConn, error) {
	conns := make([]tcpConn, t.plan.Conns)
	for i := range conns {
		conns[i].fd = -1
	}
	for i := range conns {
		fd, err := dial(t.target, unix.SOCK_STREAM, t.plan.TOS)
		if err == nil {
			conns[i].fd = fd
			err = p.add(fd, i)
		}
		if err != nil {
			closeAll(conns)
			return nil, err
		}
	}
	return conns, nil
}

func closeAll(conns []tcpConn) {
	for _, c := range conns {
		if c.fd >= 0 {
			_ = unix.Close(c.fd)
		}
	}
}

// pingPong answers each request that came back whole with the next. Every byte is compared.
func pingPong(t *trial) error {
	p, err := newPoller()
	if err != nil {
		return err
	}
	defer p.close()
	conns, err := dialAll(t, p)
	if err != nil {
		return err
	}
	defer closeAll(conns)

	buf := make([]byte, readBytes)
	size := t.plan.Size
	payload := newPattern(size, max(readBytes, size*t.plan.Depth))
	for i := range conns {
		conns[i].sent = t.now()
		if err := sendWhole(conns[i].fd, payload.bytes[:size*t.plan.Depth]); err != nil {
			return err
		}
	}
	return p.turns(t, func(i int) error {
		c := &conns[i]
		n, err := receive(c.fd, buf)
		if err != nil || n == 0 {
			return err
		}
		now := t.now()
		if !payload.matches(buf[:n], c.received) {
			return errNotOurs
		}
		whole := (c.received + n) / size
		c.received = (c.received + n) % size
		t.came(now, whole, n)
		if whole == 0 {
			return nil
		}
		if t.plan.Depth == 1 {
			t.trip(now - c.sent)
		}
		c.sent = now
		return sendWhole(c.fd, payload.bytes[:whole*size])
	}, nothing)
}

// bulk keeps each connection full. Nothing waits for room to write: as long as something is under way, something comes
// back, and then there is room. The bytes are counted and not compared, which would cost more than moving them.
func bulk(t *trial) error {
	p, err := newPoller()
	if err != nil {
		return err
	}
	defer p.close()
	conns, err := dialAll(t, p)
	if err != nil {
		return err
	}
	defer closeAll(conns)

	buf := make([]byte, bulkReadBytes)
	payload := make([]byte, t.plan.Size)
	share := bulkBytes / len(conns)
	for i := range conns {
		if err := fill(&conns[i], payload, share); err != nil {
			return err
		}
	}
	return p.turns(t, func(i int) error {
		c := &conns[i]
		n, err := receive(c.fd, buf)
		if err != nil || n == 0 {
			return err
		}
		c.underWay -= n
		t.came(t.now(), 0, n)
		return fill(c, payload, share)
	}, nothing)
}

// fill writes until the share is under way or no more is taken.
func fill(c *tcpConn, payload []byte, share int) error {
	for c.underWay < share {
		n, err := send(c.fd, payload[:min(len(payload), share-c.underWay)])
		if err != nil || n == 0 {
			return err
		}
		c.underWay += n
	}
	return nil
}

// connect replaces each connection whose request came back by a new one.
func connect(t *trial) error {
	p, err := newPoller()
	if err != nil {
		return err
	}
	defer p.close()
	payload := newPattern(t.plan.Size, t.plan.Size)
	buf := make([]byte, t.plan.Size)
	conns := make([]tcpConn, t.plan.Conns)
	for i := range conns {
		conns[i].fd = -1
	}
	defer func() { closeAll(conns) }()
	for i := range conns {
		if err := open(t, p, conns, i, payload); err != nil {
			return err
		}
	}
	return p.turns(t, func(i int) error {
		c := &conns[i]
		n, err := receive(c.fd, buf[c.received:])
		if err != nil || n == 0 {
			return err
		}
		c.received += n
		now := t.now()
		if c.received < len(buf) {
			t.came(now, 0, n)
			return nil
		}
		if !payload.matches(buf, 0) {
			return errNotOurs
		}
		t.came(now, 1, n)
		t.trip(now - c.sent)
		if err := reset(c); err != nil {
			return err
		}
		return open(t, p, conns, i, payload)
	}, nothing)
}

// open makes connection i anew and sends its request.
func open(t *trial, p *poller, conns []tcpConn, i int, payload pattern) error {
	began := t.now()
	fd, err := dial(t.target, unix.SOCK_STREAM, t.plan.TOS)
	if err != nil {
		return err
	}
	conns[i] = tcpConn{fd: fd, sent: began}
	if err := p.add(fd, i); err != nil {
		return err
	}
	return sendWhole(fd, payload.bytes[:t.plan.Size])
}

// reset closes with an RST.
func reset(c *tcpConn) error {
	err := unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	err = errors.Join(err, unix.Close(c.fd))
	c.fd = -1
	return err
}

// sendWhole writes a request into a socket that has room for it.
func sendWhole(fd int, request []byte) error {
	n, err := send(fd, request)
	if err == nil && n < len(request) {
		err = fmt.Errorf("a request of %d bytes does not fit into the socket", len(request))
	}
	return err
}
