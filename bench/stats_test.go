package main

import "testing"

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		sorted []float64
		want   float64
	}{
		{[]float64{3}, 3},
		{[]float64{1, 2}, 1.5},
		{[]float64{1, 2, 100}, 2},
		{[]float64{1, 2, 4, 100}, 3},
	} {
		if got := median(test.sorted); got != test.want {
			t.Errorf("median of %v is %v, want %v", test.sorted, got, test.want)
		}
	}
}

func TestEstimate(t *testing.T) {
	values := []float64{0.97, 0.91, 0.95, 0.99, 0.93, 1.8, 0.94, 0.96, 0.92}
	got := estimate(values)
	if got.Median != 0.95 || got.N != 9 {
		t.Errorf("got %+v, want the median 0.95 of 9", got)
	}
	// The 95 % interval of the median of 9 values lies between the 2nd and the 8th, and one outlier does not widen it.
	if got.Low < 0.91 || got.Low >= 0.95 || got.High <= 0.95 || got.High > 0.99 {
		t.Errorf("got the interval [%v, %v]", got.Low, got.High)
	}
	if again := estimate(values); again != got {
		t.Errorf("the same values gave %+v, then %+v", got, again)
	}
	if values[0] != 0.97 {
		t.Error("the values were sorted in place")
	}
}

func TestEstimateOfFew(t *testing.T) {
	if got, want := estimate([]float64{2, 1}), (Estimate{Median: 1.5, Low: 1, High: 2, N: 2}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got, want := estimate([]float64{5, 5, 5}), (Estimate{Median: 5, Low: 5, High: 5, N: 3}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestEstimateQuotient(t *testing.T) {
	a, b := []float64{40, 10, 20, 20, 20, 20, 20}, []float64{10, 10, 10, 1, 10}
	got := estimateQuotient(a, b)
	if got.Median != 2 || got.N != 5 || got.Low > 2 || got.Low < 1 || got.High < 2 || got.High > 40 {
		t.Errorf("got %+v, want the median 2 of 5", got)
	}
	if a[0] != 40 || b[3] != 1 {
		t.Error("the values were sorted in place")
	}
	// Few have their range.
	want := Estimate{Median: 2, Low: 1, High: 4, N: 2}
	if got := estimateQuotient([]float64{8, 4, 6}, []float64{4, 2}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
