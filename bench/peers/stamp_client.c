// A client that times round trips to an echo server, at a fixed rate and whether or not earlier ones have come back: one
// thread, an absolute timer (timerfd_create(2)), poll, and the kernel's times of what leaves and what comes
// (SO_TIMESTAMPING).
//
//	stamp_client udp|tcp ADDRESS PORT BYTES COUNT INTERVAL_NS
//
// The address is IPv4, BYTES is 8 and up; a payload begins with the number of its round trip, in this machine's order. It
// prints a line for each round trip: its number from 0 and, in ns, what the kernel saw of it ("-" if it missed a packet), what this
// process saw of it, and how much later than its time it left. The last line is "sent N". It waits for what is missing for a
// fifth of a second, and ends by itself after half an hour.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { MAX_COUNT = 1000000, MAX_BYTES = 65507, CONTROL = 512, WAIT_NS = 200000000, SECOND = 1000000000, MAX_SECONDS = 1800 };

// What is known of a round trip: the times of this process by the monotonic clock, those of the kernel by the wall clock.
struct round { int64_t due, sent, got, left, came; };

static struct round rounds[MAX_COUNT];
static int fd, tcp;
static int64_t size, sent, answered;
static char buf[MAX_BYTES], control[CONTROL] __attribute__((aligned(8)));

static void fail(const char *what) { perror(what); exit(1); }

static int64_t nanos(struct timespec t) { return (int64_t)t.tv_sec * SECOND + t.tv_nsec; }

static int64_t now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return nanos(t);
}

// Receives from the socket or its error queue, and takes the time and the number of the packet out of the control messages.
static ssize_t receive(char *to, size_t room, int flags, int64_t *when, uint32_t *number) {
	struct iovec part = {to, room};
	struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	ssize_t n = recvmsg(fd, &m, flags | MSG_DONTWAIT);
	*when = 0;
	*number = UINT32_MAX;
	if (n < 0) return n;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_TIMESTAMPING)
			*when = nanos(((struct scm_timestamping *)CMSG_DATA(c))->ts[0]);
		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_RECVERR) {
			struct sock_extended_err *e = (struct sock_extended_err *)CMSG_DATA(c);
			if (e->ee_origin == SO_EE_ORIGIN_TIMESTAMPING) *number = e->ee_data;
		}
	}
	return n;
}

// Takes in what has left: UDP numbers datagrams, TCP the last byte of what was written.
static void take_left(void) {
	int64_t when;
	uint32_t number;
	while (receive(NULL, 0, MSG_ERRQUEUE, &when, &number) >= 0) {
		int64_t k = tcp ? ((int64_t)number + 1) / size - 1 : number;
		if (k >= 0 && k < sent && !rounds[k].left) rounds[k].left = when;
	}
}

static void take_datagrams(void) {
	int64_t when, n, k;
	uint32_t number;
	while ((n = receive(buf, sizeof buf, 0, &when, &number)) >= 0) {
		int64_t got = now();
		memcpy(&k, buf, sizeof k);
		if (n != size || k < 0 || k >= sent || rounds[k].got) continue;
		rounds[k].got = got;
		rounds[k].came = when;
		answered++;
	}
}

// Reads no further than to the end of an answer, so that each has a time of its own.
static void take_stream(void) {
	static int64_t there;
	int64_t when, n;
	uint32_t number;
	while ((n = receive(buf, size - there, 0, &when, &number)) > 0) {
		there += n;
		if (there < size) continue;
		there = 0;
		rounds[answered].got = now();
		rounds[answered].came = when;
		answered++;
	}
	if (n == 0) { fprintf(stderr, "the server has closed\n"); exit(1); }
}

static void send_one(int64_t due) {
	memcpy(buf, &sent, sizeof sent);
	rounds[sent].due = due;
	rounds[sent].sent = now();
	if (send(fd, buf, size, 0) != size) fail("send");
	sent++;
}

int main(int argc, char **argv) {
	struct sockaddr_in addr = {.sin_family = AF_INET};
	int on = 1, flags = SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE |
		SOF_TIMESTAMPING_OPT_ID | SOF_TIMESTAMPING_OPT_TSONLY;
	if (argc != 7 || !inet_aton(argv[2], &addr.sin_addr)) {
		fprintf(stderr, "usage: stamp_client udp|tcp ADDRESS PORT BYTES COUNT INTERVAL_NS\n");
		return 2;
	}
	tcp = !strcmp(argv[1], "tcp");
	addr.sin_port = htons(atoi(argv[3]));
	size = atoll(argv[4]);
	int64_t count = atoll(argv[5]), interval = atoll(argv[6]);
	if (size < 8 || size > MAX_BYTES || count < 1 || count > MAX_COUNT || interval < 1) {
		fprintf(stderr, "bad argument\n");
		return 2;
	}
	alarm(MAX_SECONDS);
	if ((fd = socket(AF_INET, tcp ? SOCK_STREAM : SOCK_DGRAM, 0)) < 0) fail("socket");
	if (connect(fd, (struct sockaddr *)&addr, sizeof addr) < 0) fail("connect");
	if (tcp && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0) fail("TCP_NODELAY");
	if (setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &flags, sizeof flags) < 0) fail("SO_TIMESTAMPING");

	int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
	int64_t start = now() + interval;
	struct itimerspec when = {{interval / SECOND, interval % SECOND}, {start / SECOND, start % SECOND}};
	if (timer < 0 || timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL) < 0) fail("timerfd");
	struct pollfd both[] = {{fd, POLLIN, 0}, {timer, POLLIN, 0}};
	while (sent < count || (answered < sent && now() < rounds[sent - 1].due + WAIT_NS)) {
		if (poll(both, 2, sent < count ? -1 : WAIT_NS / 1000000) < 0 && errno != EINTR) fail("poll");
		if (both[0].revents) {
			take_left();
			if (tcp) take_stream(); else take_datagrams();
		}
		uint64_t ticks = 0;
		if (both[1].revents && read(timer, &ticks, sizeof ticks) < 0) ticks = 0;
		for (; ticks > 0 && sent < count; ticks--) send_one(start + sent * interval);
	}
	take_left();
	for (int64_t k = 0; k < sent; k++) {
		struct round *r = &rounds[k];
		if (!r->got) continue;
		printf("%lld ", (long long)k);
		if (r->left && r->came) printf("%lld", (long long)(r->came - r->left)); else printf("-");
		printf(" %lld %lld\n", (long long)(r->got - r->sent), (long long)(r->sent - r->due));
	}
	printf("sent %lld\n", (long long)sent);
	return 0;
}
