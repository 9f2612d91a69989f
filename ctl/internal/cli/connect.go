package cli

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// Where a daemon is looked for when nobody says.
const (
	defaultServer = "127.0.0.1:7007"
	defaultPort   = "7007"
	rootSocket    = "/run/echod/echod.sock"
	userSocket    = "echod.sock" // in $XDG_RUNTIME_DIR
)

// maxMessageBytes bounds an answer: a page of 1,000 endpoints with all the labels they may have stays below it.
const maxMessageBytes = 64 << 20

// connectTimeout bounds each attempt to connect, the HTTP/2 greeting included.
const connectTimeout = 5 * time.Second

// A daemon that vanishes during a call (a probe may be silent for an hour) is noticed by a ping after so long a silence
// and by its answer that does not come. echod allows a ping every 10 seconds.
const (
	pingAfter   = 30 * time.Second
	pingTimeout = 10 * time.Second
)

// server is where the daemon is.
type server struct {
	network string // tcp or unix
	address string
}

// String is the address as --server takes it.
func (s server) String() string {
	if s.network == "unix" {
		return "unix:" + s.address
	}
	return s.address
}

// parseServer reads "HOST:PORT", "HOST" (with the default port), "unix:PATH" or "unix:///PATH".
func parseServer(text string) (server, error) {
	if path, ok := strings.CutPrefix(text, "unix:"); ok {
		if strings.HasPrefix(path, "///") {
			path = path[2:]
		}
		if path == "" {
			return server{}, usagef("server %q: say unix:PATH", text)
		}
		return server{"unix", path}, nil
	}
	if strings.ContainsAny(text, "/ ") || text == "" {
		return server{}, usagef("server %q: say HOST:PORT or unix:PATH", text)
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		// A name, an IPv4 address or an IPv6 address, in brackets or not, without a port.
		bare := text
		if strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]") {
			bare = text[1 : len(text)-1]
		}
		if strings.ContainsAny(bare, "[]") || strings.Count(bare, ":") == 1 {
			return server{}, usagef("server %q: say HOST:PORT or unix:PATH", text)
		}
		return server{"tcp", net.JoinHostPort(bare, defaultPort)}, nil
	}
	if host == "" || port == "" {
		return server{}, usagef("server %q: say HOST:PORT or unix:PATH", text)
	}
	return server{"tcp", text}, nil
}

// server finds out where to connect: the flag, the environment, the unix socket if there is one, the default port.
func (a *app) server() (server, error) {
	if a.options.server != "" {
		return parseServer(a.options.server)
	}
	if s := a.getenv("ECHOCTL_SERVER"); s != "" {
		return parseServer(s)
	}
	if path := a.socketPath(); isSocket(path) {
		return server{"unix", path}, nil
	}
	return server{"tcp", defaultServer}, nil
}

// socketPath is where this user's daemon has its socket; empty when there is no such place.
func (a *app) socketPath() string {
	if a.env.Root {
		return rootSocket
	}
	if dir := a.getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, userSocket)
	}
	return ""
}

func isSocket(path string) bool {
	info, err := os.Stat(path)
	return path != "" && err == nil && info.Mode()&os.ModeSocket != 0
}

// peer is the daemon as the dialer sees it. gRPC reports every trouble on the way as UNAVAILABLE with a text made for
// its developers; what is kept here tells the user in plain words what happened.
type peer struct {
	server server

	mu        sync.Mutex
	dialErr   error  // the last attempt's; nil before the first has ended and when it succeeded
	connected bool   // whether the last attempt succeeded
	greeting  []byte // the first bytes that came back on the last connection
}

// greetingBytes reach to the type in the header of an HTTP/2 server's first frame, which must be SETTINGS
// (RFC 9113, section 3.4).
const (
	greetingBytes     = 4
	settingsFrameType = 0x04
)

func dial(p *peer) (*grpc.ClientConn, error) {
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(p.dial),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: connectTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter, Timeout: pingTimeout}),
		grpc.WithUserAgent("echoctl/" + Version),
		grpc.WithUnaryInterceptor(throughUpgrades),
	}
	if p.server.network == "unix" {
		// A path is no authority (RFC 9110, section 7.2).
		options = append(options, grpc.WithAuthority("localhost"))
	}
	return grpc.NewClient("passthrough:///"+p.server.address, options...)
}

func (p *peer) dial(ctx context.Context, _ string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, p.server.network, p.server.address)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dialErr, p.connected, p.greeting = err, err == nil, nil
	if err != nil {
		return nil, err
	}
	return &greetedConn{Conn: conn, peer: p}, nil
}

// greetedConn notes the first bytes that the server sends.
type greetedConn struct {
	net.Conn
	peer *peer
}

func (c *greetedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.peer.mu.Lock()
	defer c.peer.mu.Unlock()
	if missing := greetingBytes - len(c.peer.greeting); missing > 0 {
		c.peer.greeting = append(c.peer.greeting, b[:min(n, missing)]...)
	}
	return n, err
}
