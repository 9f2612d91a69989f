package server

import "testing"

func TestReceiveBufferWarning(t *testing.T) {
	for _, tc := range []struct {
		got, asked int
		want       string
	}{
		{212992, 1 << 20, "UDP endpoints get 208 KiB of receive buffer, not the 1024 KiB asked for, and lose datagrams sooner; raise net.core.rmem_max"},
		{1<<20 - 1, 1 << 20, "UDP endpoints get 1023 KiB of receive buffer, not the 1024 KiB asked for, and lose datagrams sooner; raise net.core.rmem_max"},
	} {
		if got := receiveBufferWarning(tc.got, tc.asked); got != tc.want {
			t.Errorf("%d of %d bytes: %q, want %q", tc.got, tc.asked, got, tc.want)
		}
	}
}
