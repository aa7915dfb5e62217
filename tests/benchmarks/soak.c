/*
 * A mixed load at a bounded rate, from a changing set of source ports:
 *
 *     soak HOST PORT SECONDS RATE SOURCES GSO REPORT SEED
 *
 * RATE is in datagrams a second; GSO is 1 for GSO batches (UDP_SEGMENT) among them, or 0. A source is a port of 127.0.0.1, or of
 * 127.0.0.2 and so on where there are more than a host has. Writes a line of JSON every REPORT seconds and one at the end.
 *
 * Every datagram of 16 bytes or more says its number and its size, and the rest follows from the number; a shorter one is the
 * start of what every one could be made of. So each reply is compared, byte for byte, without keeping what was sent.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef SOL_UDP
#define SOL_UDP 17
#endif
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

#define HEADER 16
#define LARGEST 65507
#define ORDINARY 1400
#define OFFSETS 4096
#define SEGMENTS 64
/* Sockets open at a time. The oldest quarter only waits for its replies. */
#define OPEN 1024
#define SENDING (OPEN * 3 / 4)
/* After so many sends the oldest socket gives way to the next source. */
#define SENDS_EACH 8
#define FIRST_PORT 10000
#define PORTS 50000

static unsigned char pool[LARGEST + OFFSETS], payload[LARGEST + 1];
static int ring[OPEN], newest, epoll;
static struct sockaddr_in peer;
static unsigned long long sent, sends, failed, replies, wrong, gsoBatches, opened, distinct, nextSource, attempted;
static unsigned char *used;
static uint64_t sequence;
static int sources;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int between(int lowest, int highest)
{
    return lowest + (int)(random() % (highest - lowest + 1));
}

static size_t fill(unsigned char *to, size_t size)
{
    if (size < HEADER) {
        memcpy(to, pool, size);
        return size;
    }
    uint32_t header[4] = {(uint32_t)sequence, (uint32_t)(sequence >> 32), (uint32_t)size, ~(uint32_t)size};
    memcpy(to, header, HEADER);
    memcpy(to + HEADER, pool + sequence % OFFSETS, size - HEADER);
    sequence++;
    return size;
}

static int right(const unsigned char *reply, size_t size)
{
    uint32_t header[4];
    if (size < HEADER)
        return !memcmp(reply, pool, size);
    memcpy(header, reply, HEADER);
    uint64_t number = header[0] | (uint64_t)header[1] << 32;
    return header[2] == size && header[3] == ~(uint32_t)size && number < sequence &&
           !memcmp(reply + HEADER, pool + number % OFFSETS, size - HEADER);
}

static void drain(int descriptor)
{
    for (;;) {
        ssize_t size = recv(descriptor, payload, sizeof payload, MSG_DONTWAIT);
        if (size < 0)
            return;
        if (right(payload, (size_t)size))
            replies++;
        else
            wrong++;
    }
}

/* The next source whose port nobody else has takes the place of the oldest. */
static void open_next(void)
{
    for (int tries = 0; tries < sources; tries++) {
        int source = (int)(nextSource++ % sources), room = 1 << 20;
        int port = FIRST_PORT + source % PORTS;
        struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
        own.sin_addr.s_addr = htonl(INADDR_LOOPBACK + source / PORTS);
        if (port == ntohs(peer.sin_port))
            continue;
        int descriptor = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (descriptor < 0 || setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &room, sizeof room)) {
            perror("soak: socket");
            exit(1);
        }
        if (bind(descriptor, (struct sockaddr *)&own, sizeof own) || connect(descriptor, (struct sockaddr *)&peer, sizeof peer)) {
            close(descriptor);
            continue;
        }
        newest = (newest + 1) % OPEN;
        if (ring[newest] >= 0) {
            drain(ring[newest]);
            close(ring[newest]);
        }
        ring[newest] = descriptor;
        struct epoll_event event = {.events = EPOLLIN, .data.fd = descriptor};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event)) {
            perror("soak: epoll_ctl");
            exit(1);
        }
        opened++;
        if (!used[source]) {
            used[source] = 1;
            distinct++;
        }
        return;
    }
    fprintf(stderr, "soak: every source port is taken\n");
    exit(1);
}

static void send_one(int descriptor, int withGSO)
{
    char space[CMSG_SPACE(sizeof(uint16_t))] __attribute__((aligned(8)));
    struct iovec vector = {payload, 0};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    int kind = between(0, 999), count = 1;
    if (kind < 3) {
        vector.iov_len = fill(payload, LARGEST);
    } else if (kind < 53 && withGSO) {
        int size = between(HEADER, ORDINARY);
        int most = LARGEST / size < SEGMENTS ? LARGEST / size : SEGMENTS;
        count = between(2, most);
        for (int i = 0; i < count; i++)
            vector.iov_len += fill(payload + vector.iov_len, (size_t)(i < count - 1 ? size : between(1, size)));
        uint16_t segment = (uint16_t)size;
        message.msg_control = space;
        message.msg_controllen = sizeof space;
        struct cmsghdr *control = CMSG_FIRSTHDR(&message);
        control->cmsg_level = SOL_UDP;
        control->cmsg_type = UDP_SEGMENT;
        control->cmsg_len = CMSG_LEN(sizeof segment);
        memcpy(CMSG_DATA(control), &segment, sizeof segment);
    } else {
        vector.iov_len = fill(payload, (size_t)between(0, ORDINARY));
    }
    attempted += count;
    if (sendmsg(descriptor, &message, MSG_DONTWAIT) < 0) {
        failed += count;
    } else {
        sent += count;
        gsoBatches += count > 1;
    }
    if (++sends % SENDS_EACH == 0)
        open_next();
}

static void hear(int timeout)
{
    struct epoll_event events[256];
    int n = epoll_wait(epoll, events, 256, timeout);
    for (int i = 0; i < n; i++)
        drain(events[i].data.fd);
}

static void report(double seconds)
{
    printf("{\"seconds\": %.3f, \"sent\": %llu, \"failed\": %llu, \"replies\": %llu, \"wrong\": %llu, \"gsoBatches\": %llu, "
           "\"opened\": %llu, \"sources\": %llu}\n",
           seconds, sent, failed, replies, wrong, gsoBatches, opened, distinct);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    peer.sin_family = AF_INET;
    if (argc != 9 || inet_pton(AF_INET, argv[1], &peer.sin_addr) != 1) {
        fprintf(stderr, "usage: soak HOST PORT SECONDS RATE SOURCES GSO REPORT SEED\n");
        return 2;
    }
    peer.sin_port = htons((uint16_t)atoi(argv[2]));
    double seconds = atof(argv[3]), rate = atof(argv[4]), every = atof(argv[7]);
    sources = atoi(argv[5]);
    int withGSO = atoi(argv[6]);
    srandom((unsigned int)atoi(argv[8]));
    used = calloc((size_t)sources, 1);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    for (size_t i = 0; i < sizeof pool; i++)
        pool[i] = (unsigned char)random();
    for (int i = 0; i < OPEN; i++)
        ring[i] = -1;
    for (int i = 0; i < OPEN; i++)
        open_next();

    double began = now(), reported = began, t;
    while ((t = now()) < began + seconds) {
        while (attempted < rate * (t - began)) {
            send_one(ring[(newest + OPEN - between(0, SENDING - 1)) % OPEN], withGSO);
            if (attempted % 32 == 0)
                hear(0);
            if (now() >= began + seconds)
                break;
        }
        hear(1);
        if (t - reported >= every) {
            reported += every;
            report(t - began);
        }
    }
    /* What is still on its way; a second without a reply is the end of it. */
    unsigned long long before;
    do {
        before = replies;
        for (double until = now() + 1; now() < until;)
            hear(10);
    } while (replies != before);
    report(now() - began);
    return 0;
}
