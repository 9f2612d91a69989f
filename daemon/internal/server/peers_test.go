package server

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// These tests hold the daemon against programs that nobody here wrote. Each needs its program on the PATH, and skips
// itself where it is not; continuous integration has them all.

func needs(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s is not installed", program)
	}
	return path
}

// output runs a program to its end and answers what it wrote.
func output(t *testing.T, stdin string, program string, args ...string) string {
	t.Helper()
	command := exec.CommandContext(testContextOf(t, 4*patience), needs(t, program), args...)
	command.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	if err := command.Run(); err != nil {
		t.Errorf("%s: %v\n%s%s", command, err, &out, &errs)
	}
	return out.String()
}

// firstLine runs a program that has no end of its own until it has written a line.
func firstLine(t *testing.T, stdin string, program string, args ...string) string {
	t.Helper()
	command := exec.CommandContext(testContext(t), needs(t, program), args...)
	in, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(in, stdin); err != nil {
		t.Error(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Errorf("%s: %v", command, err)
	}
	_ = command.Process.Kill()
	_ = command.Wait() // killed, it says
	return line
}

func testContextOf(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// onUnknownPort creates an endpoint on a port of which nmap knows no service. It takes an echo of the question that it puts
// to such a port for that service's answer.
func onUnknownPort(t *testing.T, client echov1.EndpointServiceClient, e *echov1.Endpoint) *echov1.Endpoint {
	t.Helper()
	const first, last = 29980, 29999
	for port := first; port < last; port++ {
		e.Listen = fmt.Sprintf("127.0.0.1:%d", port)
		created, err := client.CreateEndpoint(testContext(t), &echov1.CreateEndpointRequest{Endpoint: e})
		if err == nil {
			return created
		}
	}
	e.Listen = fmt.Sprintf("127.0.0.1:%d", last)
	return mustCreate(t, client, e)
}

func hostPort(e *echov1.Endpoint) (string, string) { return e.GetHost(), fmt.Sprint(e.GetPort()) }

func TestForeignClients(t *testing.T) {
	d := startDaemon(t, testConfig(t))
	client := echov1.NewEndpointServiceClient(d.dial(t, d.GRPC))
	tcp := onUnknownPort(t, client, &echov1.Endpoint{Name: "tcp", Protocol: echov1.Protocol_TCP})
	udp := onUnknownPort(t, client, &echov1.Endpoint{Name: "udp", Protocol: echov1.Protocol_UDP})
	once := mustCreate(t, client, &echov1.Endpoint{Name: "once", Protocol: echov1.Protocol_TCP, Tcp: &echov1.TcpOptions{OneShot: true}})
	// Larger than the socket buffers on the way, so that it only comes back from a server that reads and writes.
	large := strings.Repeat("0123456789abcdef", 1<<16)
	tcpHost, tcpPort := hostPort(tcp)

	// A group, so that the daemon outlives the parallel tests in it.
	t.Run("group", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T){
			"socat over TCP": func(t *testing.T) {
				if got := output(t, large, "socat", "-t60", "-", "TCP:"+tcp.GetAddress()); got != large {
					t.Errorf("%d bytes came back of %d", len(got), len(large))
				}
			},
			"socat over UDP": func(t *testing.T) {
				if got := firstLine(t, "hello\n", "socat", "-", "UDP:"+udp.GetAddress()); got != "hello\n" {
					t.Errorf("got %q", got)
				}
			},
			"nc over TCP": func(t *testing.T) {
				if got := output(t, large, "nc.openbsd", "-N", tcpHost, tcpPort); got != large {
					t.Errorf("%d bytes came back of %d", len(got), len(large))
				}
			},
			"ncat over TCP": func(t *testing.T) {
				if got := output(t, "hello\n", "ncat", tcpHost, tcpPort); got != "hello\n" {
					t.Errorf("got %q", got)
				}
			},
			"nmap names the TCP service": func(t *testing.T) {
				if got := output(t, "", "nmap", "-n", "-Pn", "-sV", "--version-light", "-p", tcpPort, tcpHost); !strings.Contains(got, "/tcp open  echo") {
					t.Error(got)
				}
			},
			"nmap names the UDP service": func(t *testing.T) {
				if os.Geteuid() != 0 {
					t.Skip("nmap needs root to scan UDP")
				}
				host, port := hostPort(udp)
				if got := output(t, "", "nmap", "-n", "-Pn", "-sU", "-sV", "-p", port, host); !strings.Contains(got, "/udp open  echo") {
					t.Error(got)
				}
			},
			"curl": func(t *testing.T) {
				got := output(t, "", "curl", "-sS", "--fail", "--json", `{"target": {"endpoint": "tcp"}, "count": 2, "interval": "1ms"}`, "http://"+d.HTTP+"/v1/probes:run")
				if received := jsonPath([]byte(got), "received"); received != "2" {
					t.Errorf("received %s of 2: %s", received, got)
				}
			},
			"grpcurl by reflection": func(t *testing.T) {
				services := output(t, "", "grpcurl", "-plaintext", d.GRPC, "list")
				for _, name := range []string{"echo.v1.EndpointService", "echo.v1.ProbeService", "echo.v1.DaemonService", "grpc.health.v1.Health"} {
					if !strings.Contains(services, name) {
						t.Errorf("%s is not listed: %s", name, services)
					}
				}
				got := output(t, "", "grpcurl", "-plaintext", "-unix", "-d", `{"endpoint": {"name": "by-grpcurl", "protocol": "UDP"}}`, d.Socket, "echo.v1.EndpointService/CreateEndpoint")
				if state := jsonPath([]byte(got), "state"); state != "SERVING" {
					t.Errorf("created as %s", got)
				}
				got = output(t, "", "grpcurl", "-plaintext", d.GRPC, "grpc.health.v1.Health/Check")
				if status := jsonPath([]byte(got), "status"); status != "SERVING" {
					t.Errorf("health: %s", got)
				}
			},
			"Python's asyncio client": func(t *testing.T) {
				host, port := hostPort(once)
				if got := output(t, asyncioClient, "python3", "-", host, port); got != "b'Hello World!' closed\n" {
					t.Errorf("got %q", got)
				}
			},
			"Python's asyncio datagram client": func(t *testing.T) {
				host, port := hostPort(udp)
				if got := output(t, asyncioDatagramClient, "python3", "-", host, port); got != "b'Hello World!'\n" {
					t.Errorf("got %q", got)
				}
			},
		} {
			t.Run(name, func(t *testing.T) { t.Parallel(); test(t) })
		}
	})
}

// The programs are in the manner of the echo examples in the documentation of Python's asyncio.
const (
	asyncioClient = `
import asyncio, sys
async def main(host, port):
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"Hello World!")
    await writer.drain()
    data = await reader.read(100)
    rest = await reader.read()
    assert rest == b"", rest
    writer.close()
    await writer.wait_closed()
    print(data, "closed")
asyncio.run(main(*sys.argv[1:]))
`
	asyncioDatagramClient = `
import asyncio, sys
class Client(asyncio.DatagramProtocol):
    def __init__(self, done): self.done = done
    def connection_made(self, transport): transport.sendto(b"Hello World!")
    def datagram_received(self, data, addr): self.done.set_result(data)
    def error_received(self, error): self.done.set_exception(error)
async def main(host, port):
    done = asyncio.get_running_loop().create_future()
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: Client(done), remote_addr=(host, int(port)))
    print(await asyncio.wait_for(done, 30))
    transport.close()
asyncio.run(main(*sys.argv[1:]))
`
	// asyncioServer answers once and closes, as the documentation's does; it prints its port first.
	asyncioServer = `
import asyncio, sys
async def handle(reader, writer):
    data = await reader.read(100)
    writer.write(data)
    await writer.drain()
    writer.close()
    await writer.wait_closed()
async def main():
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
`
	asyncioDatagramServer = `
import asyncio
class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport): self.transport = transport
    def datagram_received(self, data, addr): self.transport.sendto(data, addr)
async def main():
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    print(transport.get_extra_info("sockname")[1], flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
`
)

// TestForeignServers probes echo servers that nobody here wrote.
func TestForeignServers(t *testing.T) {
	d := startDaemon(t, testConfig(t))
	probes := echov1.NewProbeServiceClient(d.dial(t, d.GRPC))
	five := uint32(5)
	probe := func(t *testing.T, protocol echov1.Protocol, address string, options *echov1.TcpProbeOptions) *echov1.ProbeReport {
		t.Helper()
		report, err := probes.RunProbe(testContext(t), &echov1.RunProbeRequest{Probe: &echov1.Probe{
			Target: &echov1.ProbeTarget{Address: address, Protocol: protocol}, Count: &five, Interval: durationOf("10ms"),
			Timeout: durationOf("30s"), Tcp: options,
		}})
		if err != nil {
			t.Fatal(err)
		}
		return report
	}
	allReceived := func(t *testing.T, r *echov1.ProbeReport) {
		t.Helper()
		if r.GetReceived() != 5 || r.GetRtt().GetCount() != 5 || len(r.GetErrors()) > 0 {
			t.Errorf("%v", r)
		}
	}
	// Four flows, and payloads of several sizes.
	wide := func(t *testing.T, protocol echov1.Protocol, address string) {
		t.Helper()
		count, flows := uint32(60), uint32(4)
		r, err := probes.RunProbe(testContext(t), &echov1.RunProbeRequest{Probe: &echov1.Probe{
			Target: &echov1.ProbeTarget{Address: address, Protocol: protocol}, Count: &count, Interval: durationOf("2ms"),
			Timeout: durationOf("30s"), Flows: &flows, PayloadSweep: &echov1.PayloadSweep{From: 16, To: 1400, Step: 346},
		}})
		if err != nil {
			t.Fatal(err)
		}
		if r.GetReceived() != count || len(r.GetErrors()) > 0 || r.GetReordered() != 0 || r.GetDuplicated() != 0 || r.GetIgnored() != 0 {
			t.Errorf("%v", r)
		}
		if len(r.GetFlows()) != 4 || len(r.GetSizes()) != 5 {
			t.Fatalf("%d flows, %d sizes", len(r.GetFlows()), len(r.GetSizes()))
		}
		for _, f := range r.GetFlows() {
			if f.GetReceived() != count/4 {
				t.Errorf("flow %v", f)
			}
		}
		for _, size := range r.GetSizes() {
			if size.GetReceived() != count/5 {
				t.Errorf("size %v", size)
			}
		}
	}
	t.Run("group", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T){
			"fortio over TCP and UDP": func(t *testing.T) {
				program := buildFortio(t)
				wide(t, echov1.Protocol_TCP, startFortio(t, program, "tcp"))
				wide(t, echov1.Protocol_UDP, startFortio(t, program, "udp"))
			},
			"Python's asyncio server": func(t *testing.T) {
				port := startPython(t, asyncioServer)
				allReceived(t, probe(t, echov1.Protocol_TCP, "127.0.0.1:"+port, &echov1.TcpProbeOptions{AwaitClose: true}))
				// It answers once: over one connection for all rounds, each round but the first of a connection finds it closed.
				if r := probe(t, echov1.Protocol_TCP, "127.0.0.1:"+port, nil); r.GetReceived() == 0 || r.GetConnect().GetCount() < 2 {
					t.Errorf("over one connection: %v", r)
				}
			},
			"Python's asyncio datagram server": func(t *testing.T) {
				port := startPython(t, asyncioDatagramServer)
				allReceived(t, probe(t, echov1.Protocol_UDP, "127.0.0.1:"+port, nil))
				wide(t, echov1.Protocol_UDP, "127.0.0.1:"+port)
			},
			"socat over TCP": func(t *testing.T) {
				address := freeAddress(t)
				start(t, "socat", "TCP-LISTEN:"+port(address)+",bind=127.0.0.1,reuseaddr,fork", "PIPE")
				waitTCP(t, address)
				allReceived(t, probe(t, echov1.Protocol_TCP, address, nil))
				allReceived(t, probe(t, echov1.Protocol_TCP, address, &echov1.TcpProbeOptions{NewConnection: true}))
				wide(t, echov1.Protocol_TCP, address)
			},
			"ncat over TCP": func(t *testing.T) {
				address := freeAddress(t)
				start(t, "ncat", "-l", "-k", "-e", "/bin/cat", "127.0.0.1", port(address))
				waitTCP(t, address)
				allReceived(t, probe(t, echov1.Protocol_TCP, address, &echov1.TcpProbeOptions{AwaitClose: true}))
			},
			"xinetd over TCP and UDP": func(t *testing.T) {
				if os.Geteuid() != 0 {
					t.Skip("xinetd needs root for its internal services")
				}
				address := freeAddress(t)
				start(t, "xinetd", "-dontfork", "-pidfile", filepath.Join(t.TempDir(), "pid"), "-f", xinetdConfig(t, port(address)))
				waitTCP(t, address)
				allReceived(t, probe(t, echov1.Protocol_TCP, address, nil))
				wide(t, echov1.Protocol_TCP, address)
				// xinetd forks for each datagram, and loses one now and then, of any client: what comes back is right.
				count := uint32(5)
				r, err := probes.RunProbe(testContext(t), &echov1.RunProbeRequest{Probe: &echov1.Probe{
					Target: &echov1.ProbeTarget{Address: address, Protocol: echov1.Protocol_UDP}, Count: &count, Interval: durationOf("50ms"),
					Timeout: durationOf("3s"),
				}})
				if err != nil {
					t.Fatal(err)
				}
				if r.GetReceived() == 0 || r.GetReceived()+r.GetLost() != count || r.GetCorrupted() != 0 || r.GetIgnored() != 0 {
					t.Errorf("%v", r)
				}
			},
		} {
			t.Run(name, func(t *testing.T) { t.Parallel(); test(t) })
		}
	})
}

// start runs a program until the test ends.
func start(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	command := exec.Command(needs(t, program), args...)
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait() // killed, it says
		if t.Failed() {
			t.Logf("%s: %s", command, &out)
		}
	})
	return command
}

// startPython runs a server that prints its port first.
func startPython(t *testing.T, program string) (port string) {
	t.Helper()
	command := exec.Command(needs(t, "python3"), "-u", "-c", program)
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	command.Stderr = os.Stderr
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait() // killed, it says
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the server says no port: %v", err)
	}
	return strings.TrimSpace(line)
}

// buildFortio builds the echo server of fortio, which is a module of its own in the benchmark.
func buildFortio(t *testing.T) (program string) {
	t.Helper()
	program = filepath.Join(t.TempDir(), "fortio")
	command := exec.Command(needs(t, "go"), "build", "-o", program, ".")
	command.Dir = "../../../bench/peers/fortio"
	command.Env = append(os.Environ(), "GOPROXY=off") // a test does not download
	if out, err := command.CombinedOutput(); err != nil {
		t.Skipf("fortio cannot be built here: %v: %s", err, out)
	}
	return program
}

// startFortio runs a server that prints its address first.
func startFortio(t *testing.T, program, protocol string) (address string) {
	t.Helper()
	command := exec.Command(program, protocol, "127.0.0.1")
	in, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // ends it
		_ = command.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("fortio says no address: %v", err)
	}
	return strings.TrimSpace(line)
}

// freeAddress answers an address that was free a moment ago, for programs that cannot pick one themselves.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func port(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

func waitTCP(t *testing.T, address string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func xinetdConfig(t *testing.T, port string) string {
	t.Helper()
	var text strings.Builder
	for kind, rest := range map[string]string{"stream": "protocol = tcp\nwait = no", "dgram": "protocol = udp\nwait = yes"} {
		fmt.Fprintf(&text, "service echo\n{\ntype = INTERNAL UNLISTED\nid = echo-%s\nsocket_type = %s\n%s\nuser = root\ninstances = UNLIMITED\ncps = 1000000 1\nbind = 127.0.0.1\nport = %s\n}\n", kind, kind, rest, port)
	}
	path := filepath.Join(t.TempDir(), "xinetd.conf")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
