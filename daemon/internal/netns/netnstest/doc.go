// Package netnstest makes network namespaces for tests: hosts with interfaces, addresses, routes and ports of their own, and
// cables between them. They have no names, and are gone with the test. Tests alone import it.
package netnstest
