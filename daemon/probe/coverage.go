package probe

// Coverage answers how likely it is that so many flows take every one of so many paths, when each flow takes one of them
// at random, all alike and independent of one another: what a hash over the source port does for an ECMP group or a
// link aggregate. It is 0 when there are fewer flows than paths, or no path.
func Coverage(flows, paths int) float64 {
	if paths < 1 || flows < paths {
		return 0
	}
	// taken[k] is how likely it is that the flows so far take k different paths.
	taken := make([]float64, paths+1)
	taken[0] = 1
	for range flows {
		for k := paths; k > 0; k-- {
			taken[k] = taken[k]*float64(k)/float64(paths) + taken[k-1]*float64(paths-k+1)/float64(paths)
		}
		taken[0] = 0
	}
	return taken[paths]
}
