package echo_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"time"

	"github.com/echod/echod/daemon/echo"
)

func Example() {
	ctx := context.Background()
	engine := echo.New(echo.Options{})
	endpoint, err := engine.Listen(ctx, echo.Spec{Protocol: echo.TCP, Listen: "127.0.0.1:0"})
	if err != nil {
		log.Fatal(err)
	}

	conn, err := net.Dial("tcp", endpoint.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	if _, err := io.WriteString(conn, "hello"); err != nil {
		log.Fatal(err)
	}
	answer := make([]byte, 5)
	if _, err := io.ReadFull(conn, answer); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", answer)
	conn.Close()

	// Open connections may take five seconds to finish.
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := engine.Close(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(endpoint.Stats().BytesOut, "bytes echoed")
	// Output:
	// hello
	// 5 bytes echoed
}

func ExampleEngine_Listen() {
	engine := echo.New(echo.Options{})
	defer engine.Close(context.Background())
	spec := echo.Spec{Protocol: echo.UDP, Listen: "198.51.100.1:7007"}
	if _, err := engine.Listen(context.Background(), spec); err != nil {
		fmt.Println(err)
		fmt.Println(errors.Is(err, echo.ErrAddressNotAvailable))
	}
	// Output:
	// cannot bind 198.51.100.1:7007: this host has no such address
	// true
}

func ExampleEndpoint_Update() {
	engine := echo.New(echo.Options{})
	defer engine.Close(context.Background())
	spec := echo.Spec{Protocol: echo.TCP, Listen: "127.0.0.1:0"}
	endpoint, err := engine.Listen(context.Background(), spec)
	if err != nil {
		log.Fatal(err)
	}

	spec.TCP.IdleTimeout = time.Minute
	fmt.Println(endpoint.Update(spec)) // takes effect at once, on open connections, too

	spec.Listen = "127.0.0.2:0"
	fmt.Println(endpoint.Update(spec))
	// Output:
	// <nil>
	// protocol, listen address, interface and place change only with a new socket
}

func ExampleParseListen() {
	for _, listen := range []string{":7", "localhost:7", "[0::0]:7"} {
		address, err := echo.ParseListen(listen)
		fmt.Println(address, err)
	}
	// Output:
	// :7 <nil>
	// 127.0.0.1:7 <nil>
	// [::]:7 <nil>
}
