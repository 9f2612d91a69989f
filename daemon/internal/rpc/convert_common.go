package rpc

import (
	"net/netip"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// timestamp writes a point in time; none is absent.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// addressText writes an address; none is empty.
func addressText(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// hostText writes the host of an address; none is empty.
func hostText(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.Addr().String()
}

// durationOr answers a duration, or what stands for an absent one.
func durationOr(d *durationpb.Duration, absent time.Duration) time.Duration {
	if d == nil {
		return absent
	}
	return d.AsDuration()
}

// asDuration reads a message that is a google.protobuf.Duration.
func asDuration(m protoreflect.Message) (time.Duration, bool) {
	d, ok := m.Interface().(*durationpb.Duration)
	return d.AsDuration(), ok
}
