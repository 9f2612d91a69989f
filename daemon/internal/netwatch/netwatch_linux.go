package netwatch

import (
	"errors"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/echod/echod/daemon/internal/netns"
)

// follower is what is open to follow the network.
type follower struct {
	links   map[string]*link // by namespace
	names   *os.File         // inotify; nil: not begun
	folders []int            // its watches
	over    *os.File         // readable when the watch has ended; nil: nobody waits for that
	ending  *os.File         // makes it so
}

// link is a socket that the kernel tells of links and addresses.
type link struct {
	in     netns.ID
	socket *os.File
}

func (w *Watch) follow(links, names []string) {
	if w.links == nil {
		w.links = map[string]*link{}
	}
	wanted := map[string]bool{}
	for _, namespace := range links[:min(len(links), MaxNamespaces)] {
		wanted[namespace] = true
		w.followLink(namespace)
	}
	for namespace := range w.links {
		if !wanted[namespace] {
			w.dropLink(namespace)
		}
	}
	w.followNames(names)
}

// followLink has a namespace followed, the one that the name leads to now. A socket holds its namespace: that of one which has
// lost its name is given up.
func (w *Watch) followLink(namespace string) {
	id, err := netns.Identify(namespace)
	now := w.links[namespace]
	if now != nil && err == nil && now.in == id {
		return
	}
	w.dropLink(namespace)
	if err != nil {
		return
	}
	var fd int
	err = netns.Do(namespace, func() (err error) {
		fd, err = linkSocket()
		return err
	})
	if err != nil {
		return
	}
	l := &link{in: id, socket: os.NewFile(uintptr(fd), "netlink")}
	w.links[namespace] = l
	w.readers.Go(func() { read(l.socket, func() { w.linksChanged(namespace) }) })
	w.linksChanged(namespace)
}

func (w *Watch) dropLink(namespace string) {
	if l := w.links[namespace]; l != nil {
		_ = l.socket.Close() // its reader leaves
		delete(w.links, namespace)
	}
}

// linkSocket makes a socket that gets a message when a link or an address changes where the thread is.
func linkSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return 0, err
	}
	groups := &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR}
	if err := unix.Bind(fd, groups); err != nil {
		_ = unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

// read calls changed for whatever comes, until the file is closed or broken. What it says does not matter, and so it may be
// cut off, and may be too much for the kernel to keep (ENOBUFS).
func read(file *os.File, changed func()) {
	buffer := make([]byte, 4<<10)
	for {
		if _, err := file.Read(buffer); err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
			return
		}
		changed()
	}
}

// followNames has the folders followed in which the files of namespaces with these names are, and the table of mounts: such a
// file is made first, and only then a namespace mounted on it.
func (w *Watch) followNames(names []string) {
	if len(names) == 0 && w.names == nil || w.names == nil && !w.beginNames() {
		return
	}
	var folders []int
	for _, folder := range foldersOf(names) {
		if watch, ok := w.followFolder(folder); ok {
			folders = append(folders, watch)
			if !slices.Contains(w.folders, watch) {
				w.namesChanged() // it may have before
			}
		}
	}
	for _, watch := range w.folders {
		if !slices.Contains(folders, watch) {
			_ = w.control(func(fd int) { _, _ = unix.InotifyRmWatch(fd, uint32(watch)) }) // it may have gone with its folder
		}
	}
	w.folders = folders
}

// foldersOf answers the folders of all files that the names may mean, each once.
func foldersOf(names []string) (folders []string) {
	for _, name := range names {
		for _, path := range netns.Paths(name) {
			if folder := filepath.Dir(path); !slices.Contains(folders, folder) && len(folders) < MaxFolders {
				folders = append(folders, folder)
			}
		}
	}
	return folders
}

// followFolder has a folder followed; where there is none, the nearest above it: it may be made.
func (w *Watch) followFolder(folder string) (watch int, ok bool) {
	const what = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR
	for {
		var err error
		if controlErr := w.control(func(fd int) { watch, err = unix.InotifyAddWatch(fd, folder, what) }); controlErr != nil {
			return 0, false
		}
		above := filepath.Dir(folder)
		if err == nil || above == folder {
			return watch, err == nil
		}
		folder = above
	}
}

// control calls f with the descriptor of inotify.
func (w *Watch) control(f func(fd int)) error {
	raw, err := w.names.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { f(int(fd)) })
}

// beginNames opens what names are followed by.
func (w *Watch) beginNames() bool {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return false
	}
	w.names = os.NewFile(uintptr(fd), "inotify")
	w.readers.Go(func() { read(w.names, w.namesChanged) })
	w.followMounts()
	return true
}

// followMounts has a goroutine tell when a file system is mounted or unmounted (proc_pid_mountinfo(5)). Where that cannot be
// had, folders tell almost as much.
func (w *Watch) followMounts() {
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return
	}
	over, ending, err := os.Pipe()
	if err != nil {
		_ = mounts.Close()
		return
	}
	w.over, w.ending = over, ending
	w.readers.Go(func() {
		defer func() { _ = mounts.Close() }()
		wait := []unix.PollFd{{Fd: int32(mounts.Fd()), Events: unix.POLLPRI}, {Fd: int32(over.Fd()), Events: unix.POLLIN}}
		for {
			n, err := unix.Poll(wait, -1)
			if err != nil && !errors.Is(err, unix.EINTR) || wait[1].Revents != 0 {
				return
			}
			if n > 0 {
				w.namesChanged()
			}
		}
	})
}

func (w *Watch) stop() {
	for namespace := range w.links {
		w.dropLink(namespace)
	}
	if w.names != nil {
		_ = w.names.Close()
	}
	if w.ending != nil {
		_ = w.ending.Close() // which the reader of mounts sees, and leaves
		w.readers.Wait()
		_ = w.over.Close()
	}
}

// Look answers what sockets would stand on that were made now in a namespace, bound to the interfaces of those names; an empty
// one is none. The error says why there is no such namespace.
func Look(namespace string, interfaces [2]string) (Sight, error) {
	var there *netns.Namespace
	if namespace != "" {
		var err error
		if there, err = netns.Open(namespace); err != nil {
			return Sight{}, err
		}
		defer func() { _ = there.Close() }() // It was opened to be looked at.
	}
	id, err := there.ID()
	seen := Sight{Namespace: id}
	if err != nil || interfaces == [2]string{} {
		return seen, err
	}
	err = there.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		for i, name := range interfaces {
			seen.Indexes[i] = index(fd, name)
		}
		return nil
	})
	return seen, err
}

// index answers the number of an interface where the socket is; 0: there is none.
func index(fd int, name string) uint32 {
	request, err := unix.NewIfreq(name)
	if err != nil || name == "" || unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request) != nil {
		return 0
	}
	return request.Uint32()
}
