package echo

// beat waits for a turn of each loop.
func (g *loops) beat() {
	g.mu.Lock()
	all := g.all
	g.mu.Unlock()
	for _, l := range all {
		l.await(func() {})
	}
}
