// Command bench measures echod's data plane against other echo servers on this machine, over 127.0.0.1, and its probes
// against other clients.
//
//	go run ./bench                                 the whole table, about eight minutes
//	go run ./bench -quick                          a look at it, about a minute
//	go run ./bench -within 3                       as many rounds as narrow intervals of C's ratios take, up to half an hour
//	go run ./bench -case tcp-64x64B -rounds 40     one case, with 40 rounds of every server
//	go run ./bench -case 'probe-*' -rounds 30         probes alone, eight minutes
//	go run ./bench -servers echod,c-epoll-64k,...  only some of the servers
//	go run ./bench -list                           the cases and the servers
//
// It builds the servers of peers/ into a temporary directory, starts each in a process of its own, and lets a load
// generator (internal/load), again in a process of its own, talk to one at a time. What is not installed is left out, and
// it says so. In each round of a case every server of the case has one turn, in alternating order; the ratios compare the
// turns of one round, so that what disturbs the machine for a while disturbs both sides of a ratio. It prints what it
// saw. It judges nothing, and its exit code says nothing about speed.
//
// The probe cases are about clients: each in its turn times round trips to one echo server, a thousand a second, and is set
// beside a client in C that has the kernel's times. irtt is among them; it talks to a server of its own. And where a client
// has the kernel's times they are set beside those of a capture of the same packets, which is the better comparison: turns
// differ by what the machine does meanwhile, two clocks on the same packets do not. The capture needs root, and so do the
// two cases that make network namespaces.
//
// cases.go has the cases, servers.go the servers, probes.go the clients and their cases, capture.go the capture.
package main
