package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// bootScript makes the root of systemd's namespaces and becomes systemd: the programs of this machine, to read only, and nothing
// else of it. None of its units is started but those of the test.
const bootScript = `set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$TEST_ROOT"
cd "$TEST_ROOT"
mkdir -p usr etc/systemd/system proc sys dev run tmp var/lib var/tmp srv root old
mount --bind /usr usr
mount -o remount,bind,ro usr
for d in bin sbin lib lib64; do
  if [ -L "/$d" ]; then ln -s "$(readlink "/$d")" "$d"; elif [ -d "/$d" ]; then mkdir "$d"; mount --bind "/$d" "$d"; fi
done
cp /etc/passwd /etc/group etc/
echo 0123456789abcdef0123456789abcdef > etc/machine-id
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/full c 1 7
mknod -m 666 dev/random c 1 8
mknod -m 666 dev/urandom c 1 9
mknod -m 666 dev/tty c 5 0
ln -s /proc/self/fd dev/fd
mount --bind "$TEST_FILES" srv
for unit in usr/lib/systemd/system/*.wants/*; do
  case "$unit" in */*.target) ;; *) ln -sf /dev/null "etc/systemd/system/${unit##*/}" ;; esac
done
cp -r srv/units/. etc/systemd/system/
pivot_root . old
umount -l /old
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=test.target --log-target=console --show-status=0
`

// booted is a systemd that is process 1 of namespaces of its own. It has the network of the test.
type booted struct {
	t     *testing.T
	pid   int
	files string // /srv inside
}

// boot starts systemd with units, by their names under /etc/systemd/system. Files are there as /srv. It skips where that is not
// possible.
func boot(t *testing.T, files string, units map[string]string) *booted {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to have systemd be process 1 of a namespace")
	}
	for _, path := range []string{"/lib/systemd/systemd", "/bin/systemctl", "/usr/bin/nsenter"} {
		if _, err := os.Stat(path); err != nil {
			t.Skipf("systemd cannot be tried here: %v", err)
		}
	}
	units["test.target"] = "[Unit]\nDescription=All of the test\n" + units["test.target"]
	for name, text := range units {
		path := filepath.Join(files, "units", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	var console bytes.Buffer
	c := exec.Command("/bin/sh", "-c", bootScript)
	c.Env = append(os.Environ(), "TEST_ROOT="+t.TempDir(), "TEST_FILES="+files)
	c.Stdout, c.Stderr = &console, &console
	group := ownGroup(t)
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWCGROUP,
		UseCgroupFD: true, CgroupFD: int(group.Fd()), Pdeathsig: syscall.SIGKILL,
	}
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		// Pdeathsig is about the thread that starts it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.Start()
		started <- err
		if err == nil {
			_ = c.Wait()
		}
		close(ended)
	}()
	if err := <-started; err != nil {
		t.Skipf("systemd cannot be tried here: %v", err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill() // and with it all in its namespace
		<-ended
		removeGroup(t, group.Name())
	})
	b := &booted{t, c.Process.Pid, files}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		// Degraded is one of which a unit does not start here, which need not be ours.
		if text, _ := b.try("is-system-running"); strings.TrimSpace(text) == "running" || strings.TrimSpace(text) == "degraded" {
			return b
		}
		select {
		case <-ended:
			t.Skipf("systemd cannot be tried here, it ends:\n%s", console.String())
		default:
		}
		if time.Now().After(deadline) {
			text, _ := b.try("list-units", "--all", "--no-pager")
			_ = c.Process.Kill()
			<-ended
			t.Fatalf("systemd does not come up:\n%s\n%s", text, console.String())
		}
	}
}

// ownGroup makes a control group for a systemd.
func ownGroup(t *testing.T) *os.File {
	t.Helper()
	var kind syscall.Statfs_t
	const cgroup2 = 0x63677270
	for _, where := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if err := syscall.Statfs(where, &kind); err != nil || kind.Type != cgroup2 {
			continue
		}
		path, err := os.MkdirTemp(where, "echod-test-")
		if err != nil {
			t.Skipf("systemd cannot be tried here: %v", err)
		}
		group, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { group.Close() })
		return group
	}
	t.Skip("systemd cannot be tried here: no cgroup2 is mounted")
	return nil
}

// removeGroup removes a control group and all in it, once their processes are gone.
func removeGroup(t *testing.T, path string) {
	var all []string
	_ = filepath.WalkDir(path, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			all = append(all, path)
		}
		return nil
	})
	slices.Reverse(all)
	for _, one := range all {
		err := os.Remove(one)
		for deadline := time.Now().Add(patience); errors.Is(err, syscall.EBUSY) && time.Now().Before(deadline); err = os.Remove(one) {
			time.Sleep(5 * time.Millisecond)
		}
		if err != nil {
			t.Errorf("a control group is left: %v", err)
		}
	}
}

// write writes a file of a unit while systemd runs.
func (b *booted) write(name, text string) {
	b.t.Helper()
	path := filepath.Join("/proc", strconv.Itoa(b.pid), "root/etc/systemd/system", name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

func (b *booted) try(args ...string) (string, error) {
	c := exec.Command("nsenter", append([]string{"-t", strconv.Itoa(b.pid), "-m", "-p", "systemctl"}, args...)...)
	out, err := c.CombinedOutput()
	return string(out), err
}

// systemctl runs one, which must go well.
func (b *booted) systemctl(args ...string) {
	b.t.Helper()
	if out, err := b.try(args...); err != nil {
		b.t.Fatalf("systemctl %v: %v\n%s\n%s", args, err, out, b.log())
	}
}

// show answers properties of a unit.
func (b *booted) show(unit string, properties ...string) map[string]string {
	b.t.Helper()
	out, err := b.try("show", unit, "-p", strings.Join(properties, ","))
	if err != nil {
		b.t.Fatalf("systemctl show %s: %v\n%s", unit, err, out)
	}
	values := map[string]string{}
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		values[name] = value
	}
	return values
}

// await waits until a property of a unit is what it should be.
func (b *booted) await(unit, property string, want func(string) bool) {
	b.t.Helper()
	last := ""
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if last = b.show(unit, property)[property]; want(last) {
			return
		}
	}
	b.t.Fatalf("%s of %s stays %q\n%s", property, unit, last, b.log())
}

// log is what the daemon has written.
func (b *booted) log() string {
	text, err := os.ReadFile(filepath.Join(b.files, "log"))
	if err != nil {
		return fmt.Sprint(err)
	}
	return string(text)
}
