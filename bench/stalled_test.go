//go:build linux

package main

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// In a synctest bubble, time is exact.
func TestAwaitSettled(t *testing.T) {
	for _, test := range []struct {
		name  string
		read  func(time.Duration) int64
		want  bool
		after time.Duration
	}{
		{"nothing", func(time.Duration) int64 { return 0 }, true, settledFor},
		{"steady but for a little", func(at time.Duration) int64 { return 1000 + int64(at/settleStep%10) }, true, settledFor},
		{"grows and stays", func(at time.Duration) int64 { return 1000 + min(int64(at/time.Millisecond), 1000) },
			true, time.Second + settledFor},
		{"grows on", func(at time.Duration) int64 { return int64(at) }, false, settleWithin},
	} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			got, err := awaitSettled(t.Context(), func() (int64, error) { return test.read(time.Since(began)), nil })
			took := time.Since(began)
			if got != test.want || err != nil || took < test.after-settleStep || took > test.after+settleStep {
				t.Errorf("%s: %v, %v after %v, want %v after %v", test.name, got, err, took, test.want, test.after)
			}
		})
	}
}

func TestAwaitSettledEnds(t *testing.T) {
	unreadable := errors.New("cannot read it")
	if got, err := awaitSettled(t.Context(), func() (int64, error) { return 0, unreadable }); got || !errors.Is(err, unreadable) {
		t.Errorf("got %v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := awaitSettled(ctx, func() (int64, error) { return 0, nil }); got || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestFelt(t *testing.T) {
	failed := sample{err: errors.New("nothing came back")}
	without := []sample{turn(1, 0, time.Millisecond), turn(1, 0, time.Millisecond), turn(1, 0, time.Millisecond)}
	with := []sample{turn(1, 0, 2*time.Millisecond), failed, turn(1, 0, 2*time.Millisecond), turn(1, 0, 2*time.Millisecond)}
	for _, test := range []struct {
		with []sample
		want []string
	}{
		{with, []string{"1 ms", "2 ms", "1 ms", "2 ms", "2.00 [2.00-2.00]"}},
		{[]sample{failed}, []string{"1 ms", "-", "1 ms", "-", "-"}},
	} {
		if diff := cmp.Diff(test.want, feltBy(without, test.with)); diff != "" {
			t.Error(diff)
		}
	}
}
