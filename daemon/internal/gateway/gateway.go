// Package gateway serves the contract as REST: grpc-gateway over a channel to our own services, and around it what makes
// HTTP strict (hosts, media types, sizes, query parameters, methods). It also serves /healthz, /readyz and /openapi.json.
// It knows the generated code and nothing of the domain; whatever it refuses, it refuses with a google.rpc.Status.
package gateway

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"github.com/echod/echod/gen/openapi"
)

// Config is what a gateway stands on.
type Config struct {
	// Channel reaches the services, with all their interceptors and streams; grpc.health.v1 among them.
	Channel grpc.ClientConnInterface
	// Alive answers at once, with an error when the process should be started anew; nil: as long as it answers, it lives.
	Alive func() error
	// AllowedHosts are host names that requests may be addressed to, besides IP addresses and localhost. A page of
	// somebody else's that a browser was lured to (DNS rebinding) is addressed to a name, and so gets nowhere.
	AllowedHosts []string
	// BodyTime is how long the body of a request may take to come; 0: 30 s. It is no bound of what is answered.
	BodyTime time.Duration
	// WriteTime is how long a client may take to take what is written to it at once; 0: 30 s. A stream may last for ever,
	// a client that does not read may not.
	WriteTime time.Duration
}

// New makes the handler of the HTTP listener.
func New(ctx context.Context, c Config) (http.Handler, error) {
	routes, err := contractRoutes()
	if err != nil {
		return nil, err
	}
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, newJSON()),
		runtime.WithIncomingHeaderMatcher(noHeaders),
		runtime.WithOutgoingHeaderMatcher(noHeaders),
		runtime.WithOutgoingTrailerMatcher(noHeaders),
		runtime.WithErrorHandler(writeCallError),
		runtime.WithRoutingErrorHandler(routes.writeRoutingError),
		runtime.WithMiddlewares(routes.checkQuery, dropTimeoutHeader),
		// A form that is posted is not a GET, and no header changes the method.
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
	)
	for _, register := range []func() error{
		func() error {
			return echov1.RegisterEndpointServiceHandlerClient(ctx, mux, echov1.NewEndpointServiceClient(c.Channel))
		},
		func() error {
			return echov1.RegisterSessionServiceHandlerClient(ctx, mux, echov1.NewSessionServiceClient(c.Channel))
		},
		func() error {
			return echov1.RegisterProbeServiceHandlerClient(ctx, mux, echov1.NewProbeServiceClient(c.Channel))
		},
		func() error {
			return echov1.RegisterLedgerServiceHandlerClient(ctx, mux, echov1.NewLedgerServiceClient(c.Channel))
		},
		func() error {
			return echov1.RegisterMonitorServiceHandlerClient(ctx, mux, echov1.NewMonitorServiceClient(c.Channel))
		},
		func() error {
			return echov1.RegisterEventServiceHandlerClient(ctx, mux, echov1.NewEventServiceClient(c.Channel))
		},
		func() error {
			return echov1.RegisterDaemonServiceHandlerClient(ctx, mux, echov1.NewDaemonServiceClient(c.Channel))
		},
	} {
		if err := register(); err != nil {
			return nil, fmt.Errorf("cannot register a service with the gateway: %w", err)
		}
	}
	top := http.NewServeMux()
	top.Handle("/v1/", checkBody(cmp.Or(c.BodyTime, bodyTime), mux))
	top.HandleFunc("/healthz", getOnly(healthz(c.Alive)))
	top.HandleFunc("/readyz", getOnly(readyz(echov1.NewDaemonServiceClient(c.Channel))))
	top.HandleFunc("/openapi.json", getOnly(serveOpenAPI))
	top.HandleFunc("/", notFound)
	ownPages := http.NewCrossOriginProtection()
	ownPages.SetDenyHandler(http.HandlerFunc(denyCrossOrigin))
	return withWriteTime(cmp.Or(c.WriteTime, writeTime), checkHost(c.AllowedHosts, ownPages.Handler(routes.checkPath(top)))), nil
}

// noHeaders lets nothing of HTTP's headers become gRPC metadata, or the other way round: whoever could set metadata could
// claim to be somebody.
func noHeaders(string) (string, bool) { return "", false }

// dropTimeoutHeader keeps a caller from setting deadlines by a header of gRPC's.
func dropTimeoutHeader(next runtime.HandlerFunc) runtime.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request, params map[string]string) {
		r.Header.Del("Grpc-Timeout")
		next(w, r, params)
	}
}

func serveOpenAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(openapi.JSON) // a client that went away is told nothing
}

func notFound(w http.ResponseWriter, r *http.Request) {
	hint := "see /openapi.json for what there is"
	if strings.HasPrefix(r.URL.Path, "/v") {
		hint = "the contract is under /v1/, see /openapi.json"
	}
	writeStatus(w, http.StatusNotFound, notFoundStatus(r.URL.Path, hint))
}
