package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
)

const (
	// maxBodyBytes is the largest body; the same holds for a gRPC message.
	maxBodyBytes = 8 << 20
	// bodyTime is how long a body may take to arrive. It ends with the body: streams that are answered last longer.
	bodyTime = 30 * time.Second
)

// checkHost refuses requests that are addressed to a name which is not ours.
func checkHost(allowed []string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !hostAllowed(r.Host, allowed) {
			writeStatus(w, http.StatusMisdirectedRequest, newStatus(codes.PermissionDenied, "HOST_NOT_ALLOWED", fmt.Sprintf(
				"requests addressed to %q are not answered: use an IP address or localhost, or allow the name with --http-allow-host",
				shorten(r.Host))))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// denyCrossOrigin answers a change that a page of somebody else's made a browser ask for.
func denyCrossOrigin(w http.ResponseWriter, r *http.Request) {
	writeStatus(w, http.StatusForbidden, newStatus(codes.PermissionDenied, "CROSS_ORIGIN",
		fmt.Sprintf("a browser sent this for a page of another origin (%s); such pages may not change anything", shorten(r.Header.Get("Origin")))))
}

// hostAllowed takes an IP address, localhost, and the names allowed, each with or without a port.
func hostAllowed(host string, allowed []string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	bare := strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if _, err := netip.ParseAddr(bare); err == nil {
		return true
	}
	name := strings.TrimSuffix(strings.ToLower(host), ".")
	return name == "localhost" || slices.Contains(allowed, name)
}

// checkBody reads a body as a whole, within its limit, and refuses one that does not call itself JSON. A form that some
// page posts is no JSON.
func checkBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Not every ResponseWriter has deadlines (a test's has none); then the body is only bounded in size.
		control := http.NewResponseController(w)
		_ = control.SetReadDeadline(time.Now().Add(bodyTime))
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
		_ = control.SetReadDeadline(time.Time{})
		var tooLarge *http.MaxBytesError
		switch {
		case errors.As(err, &tooLarge):
			writeStatus(w, http.StatusRequestEntityTooLarge, newStatus(codes.InvalidArgument, "BODY_TOO_LARGE",
				fmt.Sprintf("the body has more than %d bytes (8 MiB)", maxBodyBytes)))
			return
		case err != nil:
			writeStatus(w, http.StatusBadRequest, newStatus(codes.InvalidArgument, "BODY_UNREADABLE", "the body cannot be read to its end"))
			return
		}
		if media := r.Header.Get("Content-Type"); (len(body) > 0 || media != "") && !isJSON(media) {
			w.Header().Set("Accept", "application/json")
			writeStatus(w, http.StatusUnsupportedMediaType, newStatus(codes.InvalidArgument, "NOT_JSON", fmt.Sprintf(
				"a body must be JSON and say so, not %q; with curl: --json '{...}', or -H 'Content-Type: application/json'", shorten(media))))
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}

func isJSON(media string) bool {
	kind, _, err := mime.ParseMediaType(media)
	return err == nil && kind == "application/json"
}

func parseQuery(r *http.Request) (url.Values, error) { return url.ParseQuery(r.URL.RawQuery) }

// shorten keeps what a caller sent from filling the answer.
func shorten(s string) string {
	const most = 64
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}
