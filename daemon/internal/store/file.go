package store

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// formatVersion says how a state file is laid out. A file of a newer one is refused, never half understood; one of format 1,
// which had no head and no checksums over keys, is read and written anew.
const formatVersion = 2

const metaKind = "meta" // what the file says of itself; no kind of records

var (
	metaBucket = []byte(metaKind)
	formatKey  = []byte("format")
	headKey    = []byte("head")
)

// guard runs what reads memory-mapped pages: a page that is damaged or cannot be read is an error then, and not the end of
// the process. What is beyond it, an endless loop or a stack that overflows, is what a child process is for.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errFault, r)
		}
	}()
	return fn()
}

// errFault says that bbolt panicked, or hit a page that cannot be read. Its locks may be held for ever.
var errFault = errors.New("the file's pages make no sense")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrDamaged, fmt.Errorf(format, args...))
}

// read reads a whole state file and believes nothing: both meta pages, the checksum of each record, their count, and the sum
// of their digests must be right. The error is ErrDamaged, ErrNewer, ErrInUse, fs.ErrNotExist, or why the file could not be read
// at all, which says nothing of it.
func read(path string) (*image, error) {
	if err := checkMetaPages(path); err != nil {
		return nil, err
	}
	m := newImage()
	err := guard(func() error { return view(path, m.load) })
	if errors.Is(err, errFault) {
		return nil, damaged("%w", err)
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// view opens a file for reading, for a moment.
func view(path string, fn func(*bbolt.Tx) error) error {
	db, err := bbolt.Open(path, 0, &bbolt.Options{ReadOnly: true, Timeout: lockWait, NoStatistics: true})
	if errors.Is(err, berrors.ErrTimeout) {
		return fmt.Errorf("%w: %s", ErrInUse, path)
	}
	if err != nil {
		return unreadable(err)
	}
	err = db.View(fn)
	return errors.Join(err, db.Close())
}

// unreadable tells what says that a file is damaged from what says nothing of it.
func unreadable(err error) error {
	for _, no := range []error{fs.ErrNotExist, fs.ErrPermission, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM} {
		if errors.Is(err, no) {
			return err
		}
	}
	return damaged("%w", err)
}

// checkMetaPages looks at both meta pages of bbolt. With one of them damaged bbolt takes the other in silence, which is the
// state before the last change. Nothing but damage makes one invalid: they are written by turns, each within one sector.
func checkMetaPages(path string) error {
	info, err := os.Stat(path) // to open a pipe would wait for whoever writes to it
	switch {
	case err != nil:
		return unreadable(err)
	case !info.Mode().IsRegular():
		return damaged("it is no file: %s", info.Mode())
	case info.Size() == 0:
		return damaged("it is empty")
	}
	f, err := os.Open(path)
	if err != nil {
		return unreadable(err)
	}
	defer func() { _ = f.Close() }() // read only
	if info, err = f.Stat(); err != nil {
		return unreadable(err)
	}
	first, err := readMetaPage(f, 0, info.Size())
	if err != nil {
		return err
	}
	second, err := readMetaPage(f, int64(first.pageSize), info.Size())
	if err != nil {
		return err
	}
	// Page 0 has the even transactions.
	newer := max(first.txid, second.txid)
	if first.pageSize != second.pageSize || first.txid%2 != 0 || newer-min(first.txid, second.txid) != 1 {
		return damaged("its meta pages do not belong together")
	}
	if needs := int64(max(first.pages, second.pages)) * int64(first.pageSize); needs > info.Size() {
		return damaged("it has %d bytes, and %d are missing", info.Size(), needs-info.Size())
	}
	return nil
}

type metaPage struct {
	pageSize uint32
	pages    uint64 // of the file
	txid     uint64
}

// readMetaPage reads bbolt's own description of a file, in its format 2: 16 bytes of page header; magic, version, page size
// and flags of 4 bytes each; root page, sequence, freelist page, number of pages, transaction and checksum of 8 each, in the
// byte order of the machine.
func readMetaPage(f *os.File, at, size int64) (metaPage, error) {
	var b [64]byte
	switch _, err := f.ReadAt(b[:], at+16); {
	case errors.Is(err, io.EOF):
		return metaPage{}, damaged("it ends after %d bytes", size)
	case err != nil:
		return metaPage{}, unreadable(err)
	}
	h := fnv.New64a()
	_, _ = h.Write(b[:56]) // never fails
	native := binary.NativeEndian
	m := metaPage{pageSize: native.Uint32(b[8:]), pages: native.Uint64(b[40:]), txid: native.Uint64(b[48:])}
	switch {
	case native.Uint32(b[0:]) != 0xED0CDAED || native.Uint32(b[4:]) != 2:
		return m, damaged("there is no meta page of bbolt at byte %d", at)
	case h.Sum64() != native.Uint64(b[56:]):
		return m, damaged("the checksum of the meta page at byte %d is wrong", at)
	case m.pages > 1<<40 || m.pageSize > 1<<24:
		return m, damaged("the meta page at byte %d makes no sense", at)
	}
	return m, nil
}

// load fills the image from a file.
func (m *image) load(tx *bbolt.Tx) error {
	head, err := readHead(tx)
	if err != nil {
		return err
	}
	room := tx.Size() // what records can come to: their lengths are in pages, which have no checksums
	err = tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
		if len(name) > maxKey {
			return damaged("it says of a kind's name that it has %d bytes", len(name))
		}
		kind := string(name)
		if kind == metaKind {
			return nil
		}
		records := map[string][]byte{}
		m.kinds[kind] = records
		return b.ForEach(func(k, sealed []byte) error {
			if len(k) > maxKey || len(sealed) > sealBytes+maxValue {
				return damaged("it says of a record that it has %d bytes", int64(len(k))+int64(len(sealed)))
			}
			if room -= int64(len(k)) + int64(len(sealed)); room < 0 {
				return damaged("it says that its records are larger than the file")
			}
			key := string(k)
			value, ok := unseal(head.Format, kind, key, sealed)
			if !ok {
				return damaged("the checksum of %s %q is wrong", kind, key)
			}
			if _, twice := records[key]; twice {
				return damaged("%s %q is there twice", kind, key)
			}
			records[key] = value
			m.head.Records++
			m.head.Sum += sum(kind, key, value)
			return nil
		})
	})
	switch {
	case err != nil && !errors.Is(err, ErrDamaged):
		return damaged("%w", err)
	case err != nil:
		return err
	case head.Format == 1: // says no more of itself
		m.head.Running = true
	case m.head.Records != head.Records:
		return damaged("it has %d records and says %d", m.head.Records, head.Records)
	case m.head.Sum != head.Sum:
		return damaged("its records are not all of the same time")
	default:
		m.head = head
	}
	return nil
}

// readHead reads what a file says of itself.
func readHead(tx *bbolt.Tx) (Summary, error) {
	b := tx.Bucket(metaBucket)
	if b == nil {
		return Summary{}, damaged("it is no state file of echod")
	}
	format := b.Get(formatKey)
	if len(format) > maxKey {
		return Summary{}, damaged("it says of its format that it has %d bytes", len(format))
	}
	version := format
	if len(format) != 4 { // as format 1 has it
		var ok bool
		if version, ok = unseal(formatVersion, metaKind, string(formatKey), format); !ok || len(version) != 4 {
			return Summary{}, damaged("its format is not readable: %.16x", format)
		}
	}
	head := Summary{Format: binary.BigEndian.Uint32(version)}
	switch {
	case head.Format > formatVersion:
		return head, fmt.Errorf("%w: it has format %d, this echod knows up to %d", ErrNewer, head.Format, formatVersion)
	case head.Format == 0 || (head.Format == 1) != (len(format) == 4):
		return head, damaged("its format makes no sense: %.16x", format)
	case head.Format == 1:
		return head, nil
	}
	sealed := b.Get(headKey)
	if len(sealed) > maxKey {
		return head, damaged("it says of its head that it has %d bytes", len(sealed))
	}
	text, ok := unseal(formatVersion, metaKind, string(headKey), sealed)
	if !ok {
		return head, damaged("its head is not readable")
	}
	if err := json.Unmarshal(text, &head); err != nil || head.Format != formatVersion {
		return head, damaged("its head makes no sense: %s", text)
	}
	return head, nil
}

// putHead writes what the file says of itself; each transaction ends with it.
func putHead(tx *bbolt.Tx, head Summary) error {
	b, err := tx.CreateBucketIfNotExists(metaBucket)
	if err != nil {
		return err
	}
	text, err := json.Marshal(head)
	if err != nil {
		return err
	}
	if err := b.Put(headKey, seal(metaKind, string(headKey), text)); err != nil {
		return err
	}
	return b.Put(formatKey, seal(metaKind, string(formatKey), binary.BigEndian.AppendUint32(nil, head.Format)))
}

// put writes a change into a transaction.
func put(tx *bbolt.Tx, c change) error {
	places := make([]place, 0, len(c.records))
	for p := range c.records {
		places = append(places, p)
	}
	// bbolt is faster in order.
	slices.SortFunc(places, func(a, b place) int { return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.key, b.key)) })
	var b *bbolt.Bucket
	for i, p := range places {
		if i == 0 || places[i-1].kind != p.kind {
			var err error
			if b, err = tx.CreateBucketIfNotExists([]byte(p.kind)); err != nil {
				return err
			}
		}
		if err := putOne(b, p, c.records[p]); err != nil {
			return fmt.Errorf("%s %q: %w", p.kind, p.key, err)
		}
	}
	return putHead(tx, c.head)
}

func putOne(b *bbolt.Bucket, p place, value []byte) error {
	if value == nil {
		return b.Delete([]byte(p.key))
	}
	return b.Put([]byte(p.key), seal(p.kind, p.key, value))
}

// writeNew writes all of an image into a new file that takes the place of the one at path: whole, read back, synced, renamed,
// and the directory synced. Whatever goes wrong before the rename leaves what was there. at is told of each step.
func writeNew(dir, path string, m *image, at func(step string) error) error {
	temporary := path + newSuffix
	if err := removeIfThere(temporary); err != nil {
		return err
	}
	err := guard(func() error { return writeFile(temporary, m, at) })
	if err == nil {
		var back *image
		if back, err = read(temporary); err == nil && back.head != m.head {
			err = fmt.Errorf("%s does not read as it was written", temporary)
		}
	}
	if err != nil {
		return errors.Join(err, removeIfThere(temporary)) // a full disk needs the room
	}
	if err := at("synced"); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	if err := at("renamed"); err != nil {
		return err
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	return at("done")
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// writeFile writes an image into a file that is not there yet, and syncs it.
func writeFile(path string, m *image, at func(step string) error) error {
	var file *os.File
	o := *options
	o.NoSync = true // once, at the end
	o.OpenFile = func(name string, flag int, mode os.FileMode) (_ *os.File, err error) {
		file, err = os.OpenFile(name, flag, mode)
		return file, err
	}
	db, err := openToWrite(path, &o)
	if err != nil {
		return err
	}
	all := change{records: map[place][]byte{}, head: m.head}
	for kind, records := range m.kinds {
		for key, value := range records {
			all.records[place{kind, key}] = value
		}
	}
	err = db.Update(func(tx *bbolt.Tx) error { return put(tx, all) })
	if err == nil {
		err = at("written")
	}
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, db.Close())
}

// options are how state files are written. The list of free pages is not kept: this process makes every file that it writes
// to, so it is never read, and what is not there cannot be damaged.
var options = &bbolt.Options{
	NoFreelistSync: true, NoStatistics: true, Timeout: lockWait, FreelistType: bbolt.FreelistMapType, InitialMmapSize: firstMap(),
}

// firstMap is for how much of a file bbolt reserves addresses at first: each time that a file outgrows them, bbolt copies all that
// a transaction has changed, which takes a third of the time of one with 10,000 records. Windows would make the file that large.
func firstMap() int {
	if runtime.GOOS == "windows" {
		return 0
	}
	return 64 << 20
}

// growBy is how much a new file grows at a time, at least. bbolt's own 16 MiB would be a file of that size for the first record.
const growBy = 16 << 10

// openToWrite has bbolt open a file, or make it.
func openToWrite(path string, o *bbolt.Options) (*bbolt.DB, error) {
	db, err := bbolt.Open(path, 0o600, o)
	if err != nil {
		return nil, err
	}
	db.AllocSize = growBy
	return db, nil
}
