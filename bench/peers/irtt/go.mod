// The version of irtt that the benchmark measures. A module of its own, so that the product does not depend on irtt.
module github.com/echod/echod/bench/peers/irtt

go 1.26.8

tool github.com/heistp/irtt/cmd/irtt

require (
	github.com/heistp/irtt v0.9.1 // indirect
	github.com/ogier/pflag v0.0.2-0.20160129220114-45c278ab3607 // indirect
	github.com/pkg/profile v1.3.0 // indirect
	golang.org/x/net v0.0.0-20210405180319-a5a99cb37ef4 // indirect
	golang.org/x/sys v0.0.0-20210514084401-e8d321eab015 // indirect
)
