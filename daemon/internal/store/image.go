package store

import (
	"encoding/binary"
	"hash/crc32"
	"hash/fnv"
	"maps"
	"slices"
	"time"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Summary is what a state file says of itself, in the same transaction as its records.
type Summary struct {
	Format     uint32    `json:"format"`
	Generation uint64    `json:"generation"` // how many changes were kept, from the first on; a group of calls is one
	Records    int       `json:"records"`
	Sum        uint64    `json:"sum"`     // of the digests of all records: a page that is older than the others is found by it
	Running    bool      `json:"running"` // a daemon has the file, or had it and did not close it
	Changed    time.Time `json:"changed"` // when the last change was kept
	// Flaws is what bbolt finds wrong with the pages of a file whose records are all right; only Check says it.
	Flaws string `json:"flaws,omitempty"`
}

// same says whether two files hold the same records.
func (s Summary) same(o Summary) bool {
	return s.Generation == o.Generation && s.Records == o.Records && s.Sum == o.Sum
}

// image is all records in memory, as they were acknowledged. They are small, so that it can stand in for the file whenever
// the file cannot be trusted. Values are never changed once they are in it.
type image struct {
	kinds map[string]map[string][]byte
	head  Summary
}

func newImage() *image {
	return &image{kinds: map[string]map[string][]byte{}, head: Summary{Format: formatVersion}}
}

// clone copies the image, not the values.
func (m *image) clone() *image {
	c := &image{kinds: make(map[string]map[string][]byte, len(m.kinds)), head: m.head}
	for kind, records := range m.kinds {
		c.kinds[kind] = maps.Clone(records)
	}
	return c
}

// keys are the keys of a kind in order.
func (m *image) keys(kind string) []string { return slices.Sorted(maps.Keys(m.kinds[kind])) }

// place is where a record stands.
type place struct{ kind, key string }

// change is what a group of calls comes to: the last word on each record, nil for one that is deleted; and the head after it.
type change struct {
	records map[place][]byte
	head    Summary
}

// plan says what calls come to, one after the other, on top of the image. It changes nothing.
func (m *image) plan(calls []*call, now time.Time) change {
	c := change{records: map[place][]byte{}, head: m.head}
	set := func(p place, value []byte) {
		old, known := c.records[p]
		if !known {
			old = m.kinds[p.kind][p.key]
		}
		if old != nil {
			c.head.Records--
			c.head.Sum -= sum(p.kind, p.key, old)
		}
		if value != nil {
			c.head.Records++
			c.head.Sum += sum(p.kind, p.key, value)
		}
		c.records[p] = value
	}
	for _, call := range calls {
		for _, key := range call.deletes {
			set(place{call.kind, key}, nil)
		}
		for key, value := range call.puts {
			set(place{call.kind, key}, append([]byte{}, value...)) // never nil
		}
	}
	c.head.Generation++
	c.head.Changed = now.Round(0).UTC()
	return c
}

func (m *image) apply(c change) {
	for p, value := range c.records {
		if value == nil {
			delete(m.kinds[p.kind], p.key)
			continue
		}
		if m.kinds[p.kind] == nil {
			m.kinds[p.kind] = map[string][]byte{}
		}
		m.kinds[p.kind][p.key] = value
	}
	m.head = c.head
}

// framed is a record with its place, told apart by lengths: a checksum over it also finds a flipped bit in a key.
func framed(kind, key string, value []byte) []byte {
	b := make([]byte, 0, len(kind)+len(key)+len(value)+8)
	b = append(binary.BigEndian.AppendUint32(b, uint32(len(kind))), kind...)
	b = append(binary.BigEndian.AppendUint32(b, uint32(len(key))), key...)
	return append(b, value...)
}

func sum(kind, key string, value []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(framed(kind, key, value)) // never fails
	return h.Sum64()
}

// sealBytes are what seal adds to a value.
const sealBytes = 4

// seal puts a checksum before a value.
func seal(kind, key string, value []byte) []byte {
	sealed := make([]byte, sealBytes, sealBytes+len(value))
	binary.BigEndian.PutUint32(sealed, crc32.Checksum(framed(kind, key, value), castagnoli))
	return append(sealed, value...)
}

// unseal answers a copy of the value, and whether it is what was sealed for that place.
func unseal(format uint32, kind, key string, sealed []byte) ([]byte, bool) {
	if len(sealed) < sealBytes {
		return nil, false
	}
	value := append([]byte{}, sealed[sealBytes:]...)
	checked := value // format 1 did not check the place
	if format > 1 {
		checked = framed(kind, key, value)
	}
	return value, binary.BigEndian.Uint32(sealed) == crc32.Checksum(checked, castagnoli)
}
