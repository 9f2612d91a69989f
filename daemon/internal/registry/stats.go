package registry

import (
	"maps"

	"github.com/echod/echod/daemon/echo"
)

// sum adds what an endpoint counted before its last stop to what it counts now.
func sum(past, now echo.Stats) echo.Stats {
	total := now // ConnectionsOpen is of now
	total.ConnectionsTotal += past.ConnectionsTotal
	total.BytesIn += past.BytesIn
	total.BytesOut += past.BytesOut
	total.DatagramsIn += past.DatagramsIn
	total.DatagramsOut += past.DatagramsOut
	total.Drops = sumByKey(past.Drops, now.Drops)
	total.Errors = sumByKey(past.Errors, now.Errors)
	if total.LastActivity.Before(past.LastActivity) {
		total.LastActivity = past.LastActivity
	}
	return total
}

func sumByKey(a, b map[string]uint64) map[string]uint64 {
	if len(a) == 0 {
		return b
	}
	total := maps.Clone(a)
	for key, n := range b {
		total[key] += n
	}
	return total
}
