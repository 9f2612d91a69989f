//go:build linux

package torture_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// disk is an ext4 of its own for the state directory, in a file. Small, so that it is soon full.
type disk struct {
	dir, image string
}

const diskBytes = 24 << 20

// newDisk makes and mounts one, or says why it cannot. It goes with the mount namespace.
func newDisk(t *testing.T) (*disk, string) {
	t.Helper()
	if os.Getenv(insideVariable) == "" {
		return nil, "mounts need root"
	}
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		return nil, err.Error()
	}
	d := &disk{dir: t.TempDir(), image: filepath.Join(t.TempDir(), "disk")}
	f, err := os.Create(d.image)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(diskBytes), f.Close()); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), mkfs, "-q", "-m", "0", "-F", d.image).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := d.plug(); err != nil {
		return nil, err.Error()
	}
	t.Cleanup(func() { _ = unix.Unmount(d.dir, unix.MNT_DETACH) })
	return d, ""
}

// plug mounts the disk.
func (d *disk) plug() error {
	device, err := d.loop()
	if err != nil {
		return fmt.Errorf("no loop device: %w", err)
	}
	defer device.Close() // the mount holds it, too
	if err := unix.Mount(device.Name(), d.dir, "ext4", 0, ""); err != nil {
		return fmt.Errorf("cannot mount an ext4: %w", err)
	}
	return nil
}

// loop answers a block device that is the image, and goes when nothing holds it any more.
func (d *disk) loop() (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	back, err := os.OpenFile(d.image, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer back.Close()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, err
		}
		device, err := os.OpenFile(fmt.Sprint("/dev/loop", n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(back.Fd())}
		config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
		err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
		if err == nil {
			return device, nil
		}
		device.Close()
		if !errors.Is(err, unix.EBUSY) { // somebody else was faster
			return nil, err
		}
	}
}

// cut is a power cut: from now on nothing is written, and what was not synced is lost when the disk is plugged again.
func (d *disk) cut() error {
	f, err := os.Open(d.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	const ext4IocShutdown, noLogFlush = 0x8004587d, 2
	return unix.IoctlSetPointerInt(int(f.Fd()), ext4IocShutdown, noLogFlush)
}

// unplug unmounts it. Who has just been killed may hold it for a moment.
func (d *disk) unplug() error {
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Unmount(d.dir, 0)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
	}
}

func (d *disk) ballast() string { return filepath.Join(d.dir, "ballast") }

// fill takes all room that there is.
func (d *disk) fill() error {
	f, err := os.Create(d.ballast())
	if err != nil {
		return err
	}
	defer f.Close()
	for size := 1 << 20; size >= 1024; {
		if _, err = f.Write(make([]byte, size)); err != nil {
			if !errors.Is(err, unix.ENOSPC) {
				return err
			}
			size /= 2
		}
	}
	return f.Sync()
}

// empty gives it back, also for after a power cut.
func (d *disk) empty() error {
	f, err := os.Open(d.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return errors.Join(os.Remove(d.ballast()), unix.Syncfs(int(f.Fd())))
}

// regular is what can be copied of a directory: its sockets cannot.
func regular(dir string) fs.FS { return files{os.DirFS(dir)} }

type files struct{ fs.FS }

func (f files) ReadDir(name string) ([]fs.DirEntry, error) {
	all, err := fs.ReadDir(f.FS, name)
	var kept []fs.DirEntry
	for _, e := range all {
		if e.IsDir() || e.Type().IsRegular() {
			kept = append(kept, e)
		}
	}
	return kept, err
}
