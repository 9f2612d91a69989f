package store

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// These tests mount file systems, in a mount namespace of a process of their own, so that nothing is left of them.

const insideVariable = "STORE_TEST_INSIDE"

// inside says that this is that process. Where it is not, it runs the test there.
func inside(t *testing.T) bool {
	t.Helper()
	if os.Getenv(insideVariable) == t.Name() {
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("mounts need root")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), insideVariable+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		t.Skip("no mount namespaces here")
	}
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(out), "--- SKIP") {
		t.SkipNow()
	}
	return false
}

func mount(t *testing.T, source, dir, kind string, flags uintptr, data string) {
	t.Helper()
	if err := unix.Mount(source, dir, kind, flags, data); err != nil {
		t.Skipf("cannot mount %s: %v", kind, err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// fill takes all room of a file system but for less than a page, and answers how to give it back.
func fill(t *testing.T, dir string) func() {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	must(t, err)
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	must(t, f.Close())
	return func() { must(t, os.Remove(path)) }
}

func TestAFullDisk(t *testing.T) {
	if !inside(t) {
		return
	}
	dir := t.TempDir()
	mount(t, "tmpfs", dir, "tmpfs", 0, "size=1m")
	s := open(t, dir, Options{retry: time.Millisecond})
	want := map[string]string{}
	grow := func(upTo int) (n int, err error) {
		for n = range upTo {
			key := fmt.Sprintf("%04d", len(want))
			if err = s.Put("k", key, record); err != nil {
				return n, err
			}
			want[key] = string(record)
		}
		return n, nil
	}
	_, err := grow(20)
	must(t, err)
	for round := range 3 {
		empty := fill(t, dir)
		if n, err := grow(5000); !errors.Is(err, ErrNotWritable) || !errors.Is(err, unix.ENOSPC) {
			t.Errorf("round %d: the disk is full, and after %d calls: %v", round, n, err)
		}
		wantRecords(t, s, "k", want)
		if round == 1 { // a start while the disk is full, after a crash
			abandon(t, s)
			s = open(t, dir, Options{retry: time.Millisecond})
			wantRecords(t, s, "k", want)
			if err := s.Health(); !errors.Is(err, unix.ENOSPC) {
				t.Errorf("a start with a full disk: %v", err)
			}
			if err := s.Put("k", "x", nil); !errors.Is(err, unix.ENOSPC) {
				t.Errorf("a start with a full disk: %v", err)
			}
		}
		empty()
		soon(t, "the disk is found to have room", func() bool { return s.Health() == nil })
		_, err = grow(20)
		must(t, err)
	}
	must(t, s.Close())
	s = open(t, dir, inChild(t))
	wantRecords(t, s, "k", want)
	if r := s.Report(); len(r.Warnings()) > 0 || r.Last != Stopped {
		t.Errorf("report: %+v", r)
	}
}

func TestADiskThatBecomesReadOnly(t *testing.T) {
	if !inside(t) {
		return
	}
	dir := t.TempDir()
	mount(t, "tmpfs", dir, "tmpfs", 0, "size=4m")
	must(t, os.Mkdir(filepath.Join(dir, "state"), 0o700))
	f := &faults{}
	s := open(t, filepath.Join(dir, "state"), Options{at: f.at, retry: time.Millisecond})
	must(t, s.Put("k", "a", []byte("1")))
	abandon(t, s)
	readOnly := func(flag uintptr) { must(t, unix.Mount("", dir, "", unix.MS_REMOUNT|flag, "")) }
	readOnly(unix.MS_RDONLY)
	// A start: what is there is served.
	s = open(t, filepath.Join(dir, "state"), Options{retry: time.Millisecond})
	wantRecords(t, s, "k", map[string]string{"a": "1"})
	for range 2 {
		if err := s.Put("k", "b", []byte("2")); !errors.Is(err, ErrNotWritable) || !errors.Is(err, unix.EROFS) {
			t.Errorf("Put: %v", err)
		}
	}
	if err := s.Health(); !errors.Is(err, unix.EROFS) {
		t.Errorf("health: %v", err)
	}
	readOnly(0)
	soon(t, "the disk is found to be writable", func() bool { return s.Health() == nil })
	must(t, s.Put("k", "c", []byte("3")), s.Close())
	s = open(t, filepath.Join(dir, "state"), Options{})
	wantRecords(t, s, "k", map[string]string{"a": "1", "c": "3"})
}

// TestAPowerCut shuts an ext4 down without writing its journal, which is what a power cut leaves, while calls are kept: what was
// acknowledged is there after it is mounted again.
func TestAPowerCut(t *testing.T) {
	if !inside(t) {
		return
	}
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		t.Skip("no mkfs.ext4")
	}
	image := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(image)
	must(t, err, f.Truncate(32<<20), f.Close())
	if out, err := exec.CommandContext(t.Context(), mkfs, "-q", "-F", image).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	dir := t.TempDir()
	plug := func() { mount(t, loop(t, image), dir, "ext4", 0, "") }
	plug()
	acked := map[string]string{}
	for cut := range 4 {
		f := &faults{}
		if cut == 0 { // right after the first start: only the sync of the directories keeps the file's name
			f.fail(map[string]error{"copy.written": unix.EIO})
		}
		s := open(t, filepath.Join(dir, "new", "state"), Options{CopyInterval: time.Millisecond, Patience: patience, at: f.at})
		before := records(t, s, "k")
		for key, value := range acked {
			if before[key] != value {
				t.Errorf("cut %d: %s was acknowledged as %q and is %q", cut, key, value, before[key])
			}
		}
		if r := s.Report(); len(r.Warnings()) > 0 || cut > 0 && r.Last != Crashed {
			t.Errorf("cut %d: report: %+v", cut, r)
		}
		acked = before // an unacknowledged one may be there, and stays
		for i := range 5 * cut {
			key := fmt.Sprintf("%d-%d", cut, i)
			must(t, s.Put("k", key, record[:50]))
			acked[key] = string(record[:50])
		}
		shutdown(t, dir)
		// Nothing is acknowledged from here on.
		if err := s.Put("k", "late", nil); err == nil {
			t.Error("a call was acknowledged after the power was cut")
		}
		_ = s.Close()
		must(t, unix.Unmount(dir, 0))
		plug()
	}
}

// loop answers a block device that is the file.
func loop(t *testing.T, path string) string {
	t.Helper()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no loop devices: ", err)
	}
	defer control.Close()
	back, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer back.Close()
	for range 100 { // somebody else may be faster
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		must(t, err)
		device := fmt.Sprint("/dev/loop", n)
		d, err := os.OpenFile(device, os.O_RDWR, 0)
		if err != nil {
			t.Skip("no loop devices: ", err)
		}
		config := unix.LoopConfig{Fd: uint32(back.Fd())}
		config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
		err = unix.IoctlLoopConfigure(int(d.Fd()), &config)
		if errors.Is(err, unix.EBUSY) {
			must(t, d.Close())
			continue
		}
		must(t, err)
		t.Cleanup(func() { d.Close() }) // the mount holds it, too
		return device
	}
	t.Skip("no free loop device")
	return ""
}

// shutdown is EXT4_IOC_SHUTDOWN without flushing the journal.
func shutdown(t *testing.T, dir string) {
	t.Helper()
	d, err := os.Open(dir)
	must(t, err)
	defer d.Close()
	const ext4IocShutdown, noLogFlush = 0x8004587d, 2
	if err := unix.IoctlSetPointerInt(int(d.Fd()), ext4IocShutdown, noLogFlush); err != nil {
		t.Skip("ext4 cannot be shut down: ", err)
	}
}
