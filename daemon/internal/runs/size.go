package runs

import (
	"unsafe"

	"github.com/echod/echod/daemon/probe"
)

// bytes is about how much memory a run takes in the log of events: most of it is its report, which may have many parts.
func (r Run) bytes() int {
	report := r.Report
	n := int(unsafe.Sizeof(r)) + len(r.Name) + len(r.UID) + sizeOf(r.Plan.Sizes) + sizeOf(report.Outages) + sizeOf(report.Flows) +
		sizeOf(report.Sizes) + sizeOf(report.Errors)
	for _, text := range r.Target.Expect.Texts() {
		n += len(text)
	}
	for _, e := range report.Errors {
		n += len(e.Reason) + len(e.Message)
	}
	all := []*probe.Distribution{report.RTT, report.ApplicationRTT, report.Connect, report.IPDV}
	if report.Schedule != nil {
		all = append(all, report.Schedule.Error)
	}
	for _, f := range report.Flows {
		all = append(all, f.RTT)
	}
	for _, s := range report.Sizes {
		all = append(all, s.RTT)
	}
	for _, d := range all {
		if d != nil {
			n += int(unsafe.Sizeof(*d)) + sizeOf(d.Buckets)
		}
	}
	return n
}

func sizeOf[T any](all []T) int {
	var one T
	return len(all) * int(unsafe.Sizeof(one))
}
