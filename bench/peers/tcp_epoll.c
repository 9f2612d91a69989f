// A TCP echo server: one thread, level-triggered epoll, one read and one write an event.
//
//	tcp_epoll ADDRESS READ_BYTES
//
// It listens on a free port of ADDRESS (IPv4) and prints it. What a peer does not take is kept, and nothing more is read
// from that peer until it is gone. It ends by itself after half an hour.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { MAX_FDS = 65536, MAX_EVENTS = 256, MAX_SECONDS = 1800 };

// What is still to be written to a peer.
struct rest { char *bytes; size_t len, done; };

static struct rest rests[MAX_FDS];
static int epoll_fd;

static void fail(const char *what) { perror(what); exit(1); }

static void watch(int op, int fd, unsigned events) {
	struct epoll_event event = {.events = events, .data.fd = fd};
	if (epoll_ctl(epoll_fd, op, fd, &event) < 0) fail("epoll_ctl");
}

static void drop(int fd) {
	free(rests[fd].bytes);
	rests[fd] = (struct rest){0};
	close(fd);
}

static void take_new(int listener) {
	int fd, on = 1;
	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
		if (fd >= MAX_FDS) { close(fd); continue; }
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		watch(EPOLL_CTL_ADD, fd, EPOLLIN);
	}
}

static void echo(int fd, char *buf, size_t size) {
	ssize_t n = read(fd, buf, size);
	if (n < 0 && errno == EAGAIN) return;
	if (n <= 0) { drop(fd); return; }
	ssize_t written = write(fd, buf, n);
	if (written < 0 && errno != EAGAIN) { drop(fd); return; }
	if (written < 0) written = 0;
	if (written == n) return;
	struct rest *r = &rests[fd];
	if (!(r->bytes = malloc(n - written))) fail("malloc");
	memcpy(r->bytes, buf + written, n - written);
	r->len = n - written;
	r->done = 0;
	watch(EPOLL_CTL_MOD, fd, EPOLLOUT);
}

static void write_rest(int fd) {
	struct rest *r = &rests[fd];
	ssize_t n = write(fd, r->bytes + r->done, r->len - r->done);
	if (n < 0 && errno == EAGAIN) return;
	if (n < 0) { drop(fd); return; }
	r->done += n;
	if (r->done < r->len) return;
	free(r->bytes);
	*r = (struct rest){0};
	watch(EPOLL_CTL_MOD, fd, EPOLLIN);
}

int main(int argc, char **argv) {
	if (argc != 3) { fprintf(stderr, "usage: tcp_epoll ADDRESS READ_BYTES\n"); return 2; }
	size_t size = strtoul(argv[2], NULL, 10);
	char *buf = malloc(size);
	struct sockaddr_in addr = {.sin_family = AF_INET};
	socklen_t len = sizeof addr;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (!buf || size == 0 || !inet_aton(argv[1], &addr.sin_addr)) { fprintf(stderr, "bad argument\n"); return 2; }
	if (bind(listener, (struct sockaddr *)&addr, len) < 0) fail("bind");
	if (listen(listener, 4096) < 0) fail("listen");
	if (getsockname(listener, (struct sockaddr *)&addr, &len) < 0) fail("getsockname");
	if ((epoll_fd = epoll_create1(0)) < 0) fail("epoll_create1");
	watch(EPOLL_CTL_ADD, listener, EPOLLIN);
	printf("%s:%d\n", inet_ntoa(addr.sin_addr), ntohs(addr.sin_port));
	fflush(stdout);
	signal(SIGPIPE, SIG_IGN); // a peer that is gone is an error of write
	alarm(MAX_SECONDS);

	struct epoll_event events[MAX_EVENTS];
	for (;;) {
		int n = epoll_wait(epoll_fd, events, MAX_EVENTS, -1);
		for (int i = 0; i < n; i++) {
			int fd = events[i].data.fd;
			if (fd == listener) take_new(fd);
			else if (rests[fd].bytes) write_rest(fd);
			else echo(fd, buf, size);
		}
	}
}
