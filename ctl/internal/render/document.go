package render

import (
	"bytes"
	"encoding/json"
	"fmt"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// documentWriter is what JSON and YAML have in common: each value becomes a JSON text first, with the fields that REST
// answers, and emit writes it in its format.
type documentWriter struct {
	emit func(doc []byte) error
	line func(doc []byte) error // the same, for one of many that come one by one
}

// asREST writes zero values, too, and leaves unknown ones out.
var asREST = protojson.MarshalOptions{EmitDefaultValues: true}

// marshal makes the JSON text of a message as REST answers it.
func marshal(m proto.Message) ([]byte, error) { return marshalAs(asREST, m) }

func marshalAs(o protojson.MarshalOptions, m proto.Message) ([]byte, error) {
	doc, err := o.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("cannot write a %s: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	return doc, nil
}

func emitEach[M proto.Message](d *documentWriter, list []M) error {
	for _, m := range list {
		doc, err := marshal(m)
		if err != nil {
			return err
		}
		if err := d.emit(doc); err != nil {
			return err
		}
	}
	return nil
}

// emitList writes {"KEY": [...]}. The response message would say nextPageToken too, which a list of all has no use for.
func emitList[M proto.Message](d *documentWriter, key string, list []M) error {
	return emitListAs(d, asREST, key, list)
}

func emitListAs[M proto.Message](d *documentWriter, o protojson.MarshalOptions, key string, list []M) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "{%q:[", key)
	for i, m := range list {
		doc, err := marshalAs(o, m)
		if err != nil {
			return err
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(doc)
	}
	b.WriteString("]}")
	return d.emit(b.Bytes())
}

func (d *documentWriter) emitValue(v any) error {
	doc, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return d.emit(doc)
}

func (d *documentWriter) EndpointList(l []*echov1.Endpoint) error      { return emitList(d, "endpoints", l) }
func (d *documentWriter) Endpoints(l []*echov1.Endpoint) error         { return emitEach(d, l) }
func (d *documentWriter) DescribeEndpoints(l []*echov1.Endpoint) error { return emitEach(d, l) }

func (d *documentWriter) ProbeList(l []*echov1.Probe) error      { return emitList(d, "probes", l) }
func (d *documentWriter) Probes(l []*echov1.Probe) error         { return emitEach(d, l) }
func (d *documentWriter) DescribeProbes(l []*echov1.Probe) error { return emitEach(d, l) }

func (d *documentWriter) MonitorList(l []*echov1.Monitor) error      { return emitList(d, "monitors", l) }
func (d *documentWriter) Monitors(l []*echov1.Monitor) error         { return emitEach(d, l) }
func (d *documentWriter) DescribeMonitors(l []*echov1.Monitor) error { return emitEach(d, l) }
func (d *documentWriter) MonitorRuns(l []*echov1.MonitorRun) error   { return emitList(d, "runs", l) }

func (d *documentWriter) ProbeBegin(*echov1.Probe) error        { return nil }
func (d *documentWriter) Sample(*echov1.Sample) error           { return nil }
func (d *documentWriter) Aggregate(*echov1.Aggregate) error     { return nil }
func (d *documentWriter) Reports(l []*echov1.ProbeReport) error { return emitEach(d, l) }

func (d *documentWriter) Info(i *echov1.Info, _ *echov1.Readiness) error {
	return emitEach(d, []*echov1.Info{i})
}
func (d *documentWriter) Upgraded(u *echov1.UpgradeDaemonResponse, _ bool) error {
	return emitEach(d, []*echov1.UpgradeDaemonResponse{u})
}
func (d *documentWriter) Version(v Version) error { return d.emitValue(v) }

func (d *documentWriter) Changes(l []*echov1.EndpointChange) error { return emitList(d, "changes", l) }
func (d *documentWriter) Purged(r *echov1.PurgeEndpointsResponse) error {
	return emitEach(d, []*echov1.PurgeEndpointsResponse{r})
}

// Deleted writes the count and the names, as a purge answers them.
func (d *documentWriter) Deleted(names []string) error {
	return d.emitValue(struct {
		Count int      `json:"count"`
		Names []string `json:"names"`
	}{len(names), append([]string{}, names...)})
}
