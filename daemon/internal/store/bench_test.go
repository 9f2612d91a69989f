package store

import (
	"errors"
	"fmt"
	"sync"
	"testing"
)

// record is about as large as that of an endpoint.
var record = make([]byte, 600)

// BenchmarkTenThousand keeps 10,000 records on an empty state file: in one call, and one a call by so many clients.
func BenchmarkTenThousand(b *testing.B) {
	const records = 10_000
	begin := func(b *testing.B) *Store {
		b.StopTimer()
		s, err := Open(b.TempDir(), Options{})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		return s
	}
	end := func(b *testing.B, s *Store) {
		b.StopTimer()
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.Run("batch", func(b *testing.B) {
		puts := map[string][]byte{}
		for i := range records {
			puts[fmt.Sprintf("endpoint-%05d", i)] = record
		}
		for b.Loop() {
			s := begin(b)
			if err := s.Write("endpoint", puts, nil); err != nil {
				b.Fatal(err)
			}
			end(b, s)
		}
	})
	for _, clients := range []int{1, 50} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			for b.Loop() {
				s := begin(b)
				errs := make([]error, clients)
				var all sync.WaitGroup
				for c := range clients {
					all.Go(func() {
						for i := c; i < records; i += clients {
							errs[c] = errors.Join(errs[c], s.Put("endpoint", fmt.Sprintf("endpoint-%05d", i), record))
						}
					})
				}
				all.Wait()
				if err := errors.Join(errs...); err != nil {
					b.Fatal(err)
				}
				end(b, s)
			}
		})
	}
}
