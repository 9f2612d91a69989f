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
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
)

const (
	// maxBodyBytes is the largest body; the same holds for a gRPC message.
	maxBodyBytes = 8 << 20
	// bodyTime is how long a body may take to arrive, unless the configuration says otherwise. It ends with the body: streams
	// that are answered last longer.
	bodyTime = 30 * time.Second
	// writeTime is how long a client may take to take what is written to it, unless the configuration says otherwise.
	writeTime = 30 * time.Second
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
	return name == "localhost" || slices.ContainsFunc(allowed, func(a string) bool { return strings.EqualFold(a, name) })
}

// checkBody reads a body as a whole, within its limit, and refuses one that does not call itself JSON. A form that some
// page posts is no JSON.
func checkBody(patience time.Duration, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Not every ResponseWriter has deadlines (a test's has none); then the body is only bounded in size.
		control := http.NewResponseController(w)
		_ = control.SetReadDeadline(time.Now().Add(patience))
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
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		next.ServeHTTP(w, r)
	})
}

func isJSON(media string) bool {
	kind, _, err := mime.ParseMediaType(media)
	return err == nil && kind == "application/json"
}

func parseQuery(r *http.Request) (url.Values, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err == nil && !utf8.ValidString(fmt.Sprint(values)) {
		err = errors.New("it is not UTF-8")
	}
	return values, err
}

// checkPath refuses paths that are not written as ours are, so that there is one spelling of each, and lets HEAD be a
// GET whose body net/http keeps back. A stream has no HEAD: it would never end.
func (t routeTable) checkPath(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !utf8.ValidString(r.URL.Path) || path.Clean(r.URL.Path) != r.URL.Path {
			notFound(w, r)
			return
		}
		if r.Method == http.MethodHead && t.streams(r) {
			writeNotAllowed(w, r, []string{http.MethodGet})
			return
		}
		if r.Method == http.MethodHead {
			get := *r
			get.Method = http.MethodGet
			r = &get
		}
		next.ServeHTTP(w, r)
	})
}

// getOnly answers every other method than GET with 405.
func getOnly(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			writeNotAllowed(w, r, []string{http.MethodGet})
			return
		}
		next(w, r)
	}
}

// shorten keeps what a caller sent from filling the answer, or from making it unreadable.
func shorten(s string) string {
	const most = 64
	if len(s) > most {
		s = s[:most] + "..."
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// patientWriter bounds how long each write may take: a client that reads no more must not hold its handler for ever.
type patientWriter struct {
	http.ResponseWriter
	patience time.Duration
}

func withWriteTime(patience time.Duration, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := patientWriter{w, patience}
		p.extend() // the connection may still have the deadline of the request before
		next.ServeHTTP(p, r)
	})
}

func (p patientWriter) Write(b []byte) (int, error) {
	p.extend()
	return p.ResponseWriter.Write(b)
}

// extend does nothing where there are no deadlines, as in a test.
func (p patientWriter) extend() {
	_ = http.NewResponseController(p.ResponseWriter).SetWriteDeadline(time.Now().Add(p.patience))
}

// Unwrap lets http.ResponseController find the connection.
func (p patientWriter) Unwrap() http.ResponseWriter { return p.ResponseWriter }
