// A UDP echo server: one thread, one recvmmsg and one sendmmsg for up to 64 datagrams.
//
//	udp_mmsg ADDRESS [pktinfo] [tos] [ttl] [gro]
//
// It binds a free port of ADDRESS (IPv4) and prints it. Answers are sent
//	pktinfo   from the address that was asked (IP_PKTINFO)
//	tos       with the request's DSCP, its ECN bits cleared (IP_RECVTOS)
//	ttl       with a TTL of min(64, received - 1), but no less than 1 (IP_RECVTTL)
//	gro       in trains, as they came (UDP_GRO, UDP_SEGMENT)
// The control messages that came are edited in place and sent back. A datagram over 2 KiB is cut unless gro is asked for:
// the benchmark sends none. It ends by itself after half an hour.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#define UDP_GRO 104
#endif

enum { BATCH = 64, TRAINS = 16, DATAGRAM = 2048, TRAIN = 65536, CONTROL = 128, SOCKET_BYTES = 1 << 20, MAX_SECONDS = 1800 };

static void fail(const char *what) { perror(what); exit(1); }

static void ask(int fd, int level, int option) {
	int on = 1;
	if (setsockopt(fd, level, option, &on, sizeof on) < 0) fail("setsockopt");
}

// Turns what was received with a datagram into what its answer is to be sent with.
static void turn(struct msghdr *m) {
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
			struct in_pktinfo *info = (struct in_pktinfo *)CMSG_DATA(c);
			info->ipi_spec_dst = info->ipi_addr;
			info->ipi_ifindex = 0;
		} else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS) {
			*(uint8_t *)CMSG_DATA(c) &= 0xfc;
		} else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TTL) {
			int *ttl = (int *)CMSG_DATA(c);
			*ttl = *ttl > 64 ? 64 : *ttl > 1 ? *ttl - 1 : 1;
		} else if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) {
			uint16_t size = *(int *)CMSG_DATA(c);
			c->cmsg_type = UDP_SEGMENT;
			c->cmsg_len = CMSG_LEN(sizeof size);
			memcpy(CMSG_DATA(c), &size, sizeof size);
		}
	}
}

int main(int argc, char **argv) {
	struct sockaddr_in addr = {.sin_family = AF_INET};
	socklen_t len = sizeof addr;
	int fd = socket(AF_INET, SOCK_DGRAM, 0), bytes = SOCKET_BYTES, batch = BATCH, control = 0;
	size_t size = DATAGRAM;
	if (argc < 2 || !inet_aton(argv[1], &addr.sin_addr)) {
		fprintf(stderr, "usage: udp_mmsg ADDRESS [pktinfo] [tos] [ttl] [gro]\n");
		return 2;
	}
	for (int i = 2; i < argc; i++) {
		control = CONTROL;
		if (!strcmp(argv[i], "pktinfo")) ask(fd, IPPROTO_IP, IP_PKTINFO);
		else if (!strcmp(argv[i], "tos")) ask(fd, IPPROTO_IP, IP_RECVTOS);
		else if (!strcmp(argv[i], "ttl")) ask(fd, IPPROTO_IP, IP_RECVTTL);
		else if (!strcmp(argv[i], "gro")) { ask(fd, IPPROTO_UDP, UDP_GRO); batch = TRAINS; size = TRAIN; }
		else { fprintf(stderr, "unknown option %s\n", argv[i]); return 2; }
	}
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
	if (bind(fd, (struct sockaddr *)&addr, len) < 0) fail("bind");
	if (getsockname(fd, (struct sockaddr *)&addr, &len) < 0) fail("getsockname");
	printf("%s:%d\n", inet_ntoa(addr.sin_addr), ntohs(addr.sin_port));
	fflush(stdout);
	alarm(MAX_SECONDS);

	static struct mmsghdr messages[BATCH];
	static struct iovec parts[BATCH];
	static struct sockaddr_in peers[BATCH];
	static char controls[BATCH][CONTROL] __attribute__((aligned(8)));
	char *space = malloc(batch * size);
	if (!space) fail("malloc");
	for (;;) {
		for (int i = 0; i < batch; i++) {
			parts[i] = (struct iovec){space + i * size, size};
			messages[i].msg_hdr = (struct msghdr){&peers[i], sizeof peers[i], &parts[i], 1, controls[i], control, 0};
		}
		int n = recvmmsg(fd, messages, batch, MSG_WAITFORONE, NULL);
		for (int i = 0; i < n; i++) {
			parts[i].iov_len = messages[i].msg_len;
			turn(&messages[i].msg_hdr);
		}
		for (int sent = 0; sent < n;) {
			int k = sendmmsg(fd, messages + sent, n - sent, 0);
			sent += k > 0 ? k : 1; // one that cannot be sent is left out
		}
	}
}
