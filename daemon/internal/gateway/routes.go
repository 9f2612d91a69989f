package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/api/annotations"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// route is one row of the contract as REST has it.
type route struct {
	method   string          // "POST"
	template string          // "/v1/endpoints/{name}:stop"
	path     *regexp.Regexp  // what the template matches
	body     string          // the field that is the body; "*": all that the path has not; empty: there is none
	stream   bool            // what is answered comes bit by bit
	query    map[string]bool // the query parameters it takes, in lowerCamelCase and snake_case
}

type routeTable []route

// variable is a template's {name}: one path segment, of any text, so that what is wrong with it is said by the contract.
var variable = regexp.MustCompile(`\\\{[^/{}]+\\\}`)

// contractRoutes reads the http rules of every service of the contract.
func contractRoutes() (routeTable, error) {
	var table routeTable
	for _, file := range []protoreflect.FileDescriptor{
		echov1.File_echo_v1_endpoint_proto, echov1.File_echo_v1_probe_proto, echov1.File_echo_v1_ledger_proto,
		echov1.File_echo_v1_monitor_proto, echov1.File_echo_v1_event_proto,
		echov1.File_echo_v1_daemon_proto, echov1.File_echo_v1_session_proto,
	} {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				r, err := newRoute(methods.Get(j))
				if err != nil {
					return nil, err
				}
				table = append(table, r)
			}
		}
	}
	return table, nil
}

func newRoute(method protoreflect.MethodDescriptor) (route, error) {
	rule, _ := proto.GetExtension(method.Options(), annotations.E_Http).(*annotations.HttpRule)
	var r route
	switch {
	case rule.GetGet() != "":
		r.method, r.template = http.MethodGet, rule.GetGet()
	case rule.GetPost() != "":
		r.method, r.template = http.MethodPost, rule.GetPost()
	case rule.GetPatch() != "":
		r.method, r.template = http.MethodPatch, rule.GetPatch()
	case rule.GetDelete() != "":
		r.method, r.template = http.MethodDelete, rule.GetDelete()
	default:
		return r, fmt.Errorf("method %s has no http rule that the gateway knows", method.FullName())
	}
	pattern := variable.ReplaceAllString(regexp.QuoteMeta(r.template), `[^/]+`)
	r.path = regexp.MustCompile("^" + pattern + "$")
	r.body, r.stream = rule.GetBody(), method.IsStreamingServer()
	r.query = queryParameters(method.Input(), r.template, r.body)
	return r, nil
}

// queryParameters answers what is left of a request's fields when path and body have taken theirs.
func queryParameters(request protoreflect.MessageDescriptor, template, body string) map[string]bool {
	taken := map[string]bool{}
	if body == "*" {
		return taken
	}
	for i := range request.Fields().Len() {
		field := request.Fields().Get(i)
		if name := string(field.Name()); name != body && !strings.Contains(template, "{"+name+"}") {
			taken[name], taken[field.JSONName()] = true, true
		}
	}
	return taken
}

// checkQuery refuses query parameters that the method does not have; grpc-gateway would pass them over.
func (t routeTable) checkQuery(next runtime.HandlerFunc) runtime.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request, params map[string]string) {
		if allowed := t.verbTaken(r); allowed != "" {
			writeNotAllowed(w, r, []string{allowed})
			return
		}
		row := t.find(r)
		if row == nil {
			next(w, r, params) // matched by grpc-gateway alone; the table's test keeps this from happening
			return
		}
		if refused := row.checkBody(r, params); refused != nil {
			writeStatus(w, http.StatusBadRequest, refused)
			return
		}
		values, err := parseQuery(r)
		if err != nil {
			writeStatus(w, http.StatusBadRequest, badValue("query", "cannot be read: "+err.Error()))
			return
		}
		for name, given := range values {
			if !row.query[name] {
				writeStatus(w, http.StatusBadRequest, badValue(shorten(name), "is no query parameter of "+row.method+" "+row.template+knownParameters(row)))
				return
			}
			if len(given) > 1 {
				writeStatus(w, http.StatusBadRequest, badValue(name, "is given more than once"))
				return
			}
		}
		next(w, r, params)
	}
}

// checkBody refuses a body where there is none to be, and one whose name is not the path's: grpc-gateway would pass over
// the one and overrule the other.
func (row *route) checkBody(r *http.Request, params map[string]string) *spb.Status {
	if row.body == "" && r.ContentLength > 0 {
		return badValue("body", "is not taken by "+row.method+" "+row.template+knownParameters(row))
	}
	if row.body != "*" || params["name"] == "" || r.ContentLength == 0 {
		return nil
	}
	text, err := io.ReadAll(r.Body) // it is in memory already
	if err != nil {
		return badValue("body", "cannot be read")
	}
	r.Body = io.NopCloser(bytes.NewReader(text))
	var named struct{ Name *string }
	if json.Unmarshal(text, &named) == nil && named.Name != nil && *named.Name != params["name"] {
		return badValue("name", fmt.Sprintf("is %q in the body and %q in the path", shorten(*named.Name), shorten(params["name"])))
	}
	return nil // what is no JSON at all is refused when it is really read
}

func knownParameters(row *route) string {
	var names []string
	for name := range row.query {
		if !strings.Contains(name, "_") {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ", which takes none"
	}
	slices.Sort(names)
	return "; it takes " + strings.Join(names, ", ")
}

// find answers the row that grpc-gateway has matched.
func (t routeTable) find(r *http.Request) *route {
	pattern, _ := runtime.HTTPPattern(r.Context())
	for i := range t {
		if t[i].method == r.Method && t[i].template == templateOf(pattern) {
			return &t[i]
		}
	}
	return nil
}

// streams says whether a path answers GET with a stream.
func (t routeTable) streams(r *http.Request) bool {
	return slices.ContainsFunc(t, func(row route) bool {
		return row.stream && row.method == http.MethodGet && row.path.MatchString(r.URL.Path)
	})
}

// templateOf writes a pattern as the contract has it: grpc-gateway says {name=*} for {name}.
func templateOf(p runtime.Pattern) string { return strings.ReplaceAll(p.String(), "=*}", "}") }

// verbTaken answers the method that a path like /v1/endpoints/web-1:stop is for, when r came with another one:
// grpc-gateway takes GET of that for a get of "web-1:stop".
func (t routeTable) verbTaken(r *http.Request) string {
	for _, row := range t {
		if verb := row.template[strings.LastIndexByte(row.template, '/'):]; strings.Contains(verb, "}:") &&
			row.method != r.Method && row.path.MatchString(r.URL.Path) {
			return row.method
		}
	}
	return ""
}

// writeRoutingError says why no method of the contract is called.
func (t routeTable) writeRoutingError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, code int) {
	if code != http.StatusMethodNotAllowed {
		notFound(w, r)
		return
	}
	var allowed []string
	for _, row := range t {
		if row.path.MatchString(r.URL.Path) && !slices.Contains(allowed, row.method) {
			allowed = append(allowed, row.method)
		}
	}
	writeNotAllowed(w, r, allowed)
}

func writeNotAllowed(w http.ResponseWriter, r *http.Request, allowed []string) {
	slices.Sort(allowed)
	list := strings.Join(allowed, ", ")
	w.Header().Set("Allow", list)
	writeStatus(w, http.StatusMethodNotAllowed, newStatus(codes.Unimplemented, "METHOD_NOT_ALLOWED",
		fmt.Sprintf("%s is not for %s; use %s", shorten(r.Method), shorten(r.URL.Path), list)))
}
