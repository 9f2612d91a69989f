package echo

import (
	"context"
	"net/netip"
)

// portable serves by package net: a goroutine for each socket.
type portable struct{}

func (portable) bindTCP(ctx context.Context, a Address, s Spec, b *budget, o Observe, c *counters) (server, netip.AddrPort, error) {
	return bindTCP(ctx, a, s, b, o, c)
}

func (portable) bindUDP(ctx context.Context, a Address, s Spec, g *guard, l *ledgers, c *counters) (server, netip.AddrPort, error) {
	return bindUDP(ctx, a, s, g, l, c)
}

func (portable) close() {}
