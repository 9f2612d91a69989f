package echotest

import (
	"net/http"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// maxMessageBytes is the largest message that a daemon sends.
const maxMessageBytes = 8 << 20

// Client is the way to a daemon. Its fields do not change, and its methods may be called from any goroutine.
type Client struct {
	GRPC   string // "127.0.0.1:PORT"; empty when gRPC is switched off
	HTTP   string // "127.0.0.1:PORT"; empty when REST is switched off
	URL    string // "http://127.0.0.1:PORT", for paths to be appended; empty when REST is switched off
	Socket string // the path of the unix socket for gRPC; empty when it is switched off

	conn *grpc.ClientConn // nil: no gRPC
	http *http.Client
}

// open connects c to a daemon that is ready. The caller owes a close.
func (c *Client) open(t TB, grpcAddress, httpAddress, socket string) {
	t.Helper()
	c.GRPC, c.HTTP, c.Socket = grpcAddress, httpAddress, socket
	if c.HTTP != "" {
		c.URL = "http://" + c.HTTP
	}
	c.http = &http.Client{Transport: &http.Transport{}} // no proxy: the daemon is here
	target := c.GRPC
	if target == "" && c.Socket != "" {
		target = "unix:" + c.Socket
	}
	if target == "" {
		return
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes)))
	if err != nil {
		t.Fatalf("cannot make a gRPC client for echod at %s: %v", target, err)
	}
	c.conn = conn
}

// close gives up the connections. It may be called again, and on a client that was never opened.
func (c *Client) close() {
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
	if c.conn != nil {
		_ = c.conn.Close() // once is enough, and the second says so
	}
}

// Conn is a connection for any client of gRPC, which the end of the daemon closes. It leads over TCP, or over the unix socket
// where the daemon has no other gRPC. It panics when the daemon has neither.
func (c *Client) Conn() *grpc.ClientConn {
	if c.conn == nil {
		panic("echotest: this daemon takes no gRPC: neither a TCP listener nor a unix socket is on")
	}
	return c.conn
}

// HTTPClient is for requests to URL. It goes to the daemon directly, whatever the environment says of proxies, and the end of
// the daemon closes its idle connections.
func (c *Client) HTTPClient() *http.Client { return c.http }

// Endpoints is a client of EndpointService, over Conn.
func (c *Client) Endpoints() echov1.EndpointServiceClient {
	return echov1.NewEndpointServiceClient(c.Conn())
}

// Probes is a client of ProbeService, over Conn.
func (c *Client) Probes() echov1.ProbeServiceClient { return echov1.NewProbeServiceClient(c.Conn()) }

// Monitors is a client of MonitorService, over Conn.
func (c *Client) Monitors() echov1.MonitorServiceClient {
	return echov1.NewMonitorServiceClient(c.Conn())
}

// Sessions is a client of SessionService, over Conn. Endpoints of a session end with it: cancel the context of its Hold.
func (c *Client) Sessions() echov1.SessionServiceClient {
	return echov1.NewSessionServiceClient(c.Conn())
}

// Events is a client of EventService, over Conn.
func (c *Client) Events() echov1.EventServiceClient { return echov1.NewEventServiceClient(c.Conn()) }
