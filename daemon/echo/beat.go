package echo

// Beat returns when each of the engine's loops has come to its next turn: at once, unless something holds one up. Whoever
// calls it now and then, and notes that it does not return, knows that endpoints do not answer. An engine that is closed, or
// that serves each socket by a goroutine of its own, has nothing that all wait for: Beat returns at once.
func (g *Engine) Beat() { g.sockets.beat() }

func (portable) beat() {}
