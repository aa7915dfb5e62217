/*
 * The load: so many sockets, each with so many datagrams outstanding; a reply is answered with the next request.
 *
 *     load HOST PORT SOCKETS OUTSTANDING SIZE SEGMENTS SECONDS
 *
 * With SEGMENTS above 1 each socket has OUTSTANDING GSO batches of so many datagrams, each one sendmsg with UDP_SEGMENT,
 * and reads with UDP_GRO. Every datagram that comes back is compared, byte for byte, with the one that went out.
 *
 * Writes one line of JSON. Exit status 2: wrong usage; 3: the kernel has no segmentation offload; 1: anything else.
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
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef SOL_UDP
#define SOL_UDP 17
#endif
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

#define BATCH 64
#define HEADER 16
/* Seconds without a reply on a socket, after which what is outstanding on it is taken for lost. */
#define SILENCE 0.1
#define TICK_MS 10
/* With so many datagrams outstanding the server has enough to do while the load sleeps, so that it reads whole batches, and its
 * time asleep tells how much faster it could be. */
#define MANY 64
#define ENOUGH 48
#define NAP_NS 50000

/* What goes out as one: a datagram, or a GSO batch of them. `pending` marks which of its datagrams are not answered yet. */
struct unit {
    unsigned char *payload;
    uint32_t sequence;
    int left;
    unsigned char *pending;
};

struct source {
    int descriptor;
    double heard;
    struct unit *units;
};

static int outstanding, size, segments;
static unsigned long long sent, echoed, lost, late, wrong, failed;
static struct mmsghdr in[BATCH], out[BATCH];
static struct iovec inVectors[BATCH], outVectors[BATCH];
static unsigned char *inPayloads;
static char inControl[BATCH][CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
static char outControl[CMSG_SPACE(sizeof(uint16_t))] __attribute__((aligned(8)));

static double now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void fail(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* The index of the unit, of the datagram in it, and twice the number of the request: a reply that was patched together shows. */
static void stamp(struct unit *unit, uint32_t index)
{
    for (int i = 0; i < segments; i++) {
        uint32_t header[4] = {index, (uint32_t)i, unit->sequence, ~unit->sequence};
        memcpy(unit->payload + (size_t)i * size, header, HEADER);
    }
}

static void flush(struct source *source, struct unit **units, int count)
{
    int done = 0;
    while (done < count) {
        int n = sendmmsg(source->descriptor, out + done, count - done, 0);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            /* It is sent again when its socket has been silent. */
            failed += segments;
            units[done]->left = -1;
            n = 1;
        } else {
            sent += (unsigned long long)n * segments;
        }
        done += n;
    }
}

static void send_units(struct source *source, struct unit **units, int count)
{
    for (int i = 0; i < count; i++) {
        struct unit *unit = units[i];
        unit->sequence++;
        unit->left = segments;
        memset(unit->pending, 1, segments);
        stamp(unit, unit - source->units);
        outVectors[i].iov_base = unit->payload;
        outVectors[i].iov_len = (size_t)size * segments;
    }
    flush(source, units, count);
}

static void send_all(struct source *source)
{
    struct unit *units[BATCH];
    int count = 0;
    for (int i = 0; i < outstanding; i++) {
        struct unit *unit = &source->units[i];
        if (unit->left > 0)
            lost += unit->left;
        units[count++] = unit;
        if (count == BATCH || i == outstanding - 1) {
            send_units(source, units, count);
            count = 0;
        }
    }
}

/* Returns the unit that this reply completes, if it does. */
static struct unit *check(struct source *source, const unsigned char *reply, size_t length)
{
    uint32_t header[4];
    if (length != (size_t)size) {
        wrong++;
        return NULL;
    }
    memcpy(header, reply, HEADER);
    if (header[0] >= (uint32_t)outstanding || header[1] >= (uint32_t)segments || header[2] != ~header[3]) {
        wrong++;
        return NULL;
    }
    struct unit *unit = &source->units[header[0]];
    const unsigned char *request = unit->payload + (size_t)header[1] * size;
    if (memcmp(reply + HEADER, request + HEADER, size - HEADER)) {
        wrong++;
        return NULL;
    }
    if (header[2] != unit->sequence && (int32_t)(unit->sequence - header[2]) > 0) {
        late++;
        return NULL;
    }
    if (header[2] != unit->sequence || !unit->pending[header[1]]) {
        wrong++;
        return NULL;
    }
    unit->pending[header[1]] = 0;
    echoed++;
    return --unit->left == 0 ? unit : NULL;
}

static int gro_size(struct msghdr *message)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c))
        if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
            int value;
            memcpy(&value, CMSG_DATA(c), sizeof value);
            return value;
        }
    return 0;
}

/* Reads one batch, and answers what is complete if `again`. Returns how many messages there were. */
static int turn(struct source *source, int room, int again)
{
    struct unit *complete[BATCH];
    int count = 0;
    if (segments > 1)
        for (int i = 0; i < BATCH; i++)
            in[i].msg_hdr.msg_controllen = sizeof inControl[i];
    int n = recvmmsg(source->descriptor, in, BATCH, MSG_DONTWAIT, NULL);
    if (n < 0) {
        if (errno == EAGAIN || errno == EINTR || errno == ECONNREFUSED)
            return 0;
        fail("recvmmsg");
    }
    for (int i = 0; i < n; i++) {
        const unsigned char *payload = inPayloads + (size_t)i * room;
        size_t length = in[i].msg_len;
        size_t step = segments > 1 ? gro_size(&in[i].msg_hdr) : 0;
        if (in[i].msg_hdr.msg_flags & MSG_TRUNC) {
            wrong++;
            continue;
        }
        if (step == 0)
            step = length ? length : 1;
        size_t at = 0;
        do {
            size_t one = length - at < step ? length - at : step;
            struct unit *unit = check(source, payload + at, one);
            if (unit)
                complete[count++] = unit;
            if (count == BATCH && again) {
                send_units(source, complete, count);
                count = 0;
            }
            if (count == BATCH)
                count = 0;
            at += step;
        } while (at < length);
    }
    if (count && again)
        send_units(source, complete, count);
    return n;
}

static int in_flight(struct source *sources, int sockets)
{
    for (int s = 0; s < sockets; s++)
        for (int i = 0; i < outstanding; i++)
            if (sources[s].units[i].left > 0)
                return 1;
    return 0;
}

static void open_source(struct source *source, struct sockaddr_in *peer, int epoll, int index)
{
    int room = 4 << 20, one = 1;
    source->descriptor = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (source->descriptor < 0)
        fail("socket");
    setsockopt(source->descriptor, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    if (segments > 1 && setsockopt(source->descriptor, SOL_UDP, UDP_GRO, &one, sizeof one)) {
        fprintf(stderr, "load: this kernel has no UDP_GRO: %s\n", strerror(errno));
        exit(3);
    }
    /* Connected: a reply from any other address than the one that was asked never comes up, and is lost. */
    if (connect(source->descriptor, (struct sockaddr *)peer, sizeof *peer))
        fail("connect");
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)index};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, source->descriptor, &event))
        fail("epoll_ctl");
    source->units = calloc(outstanding, sizeof *source->units);
    for (int i = 0; i < outstanding; i++) {
        struct unit *unit = &source->units[i];
        unit->payload = malloc((size_t)size * segments);
        unit->pending = malloc(segments);
        for (int b = 0; b < size * segments; b++)
            unit->payload[b] = (unsigned char)random();
    }
}

static int number(const char *text, int lowest, int highest, const char *name)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (*end || end == text || value < lowest || value > highest) {
        fprintf(stderr, "load: %s is a whole number from %d to %d, not %s\n", name, lowest, highest, text);
        exit(2);
    }
    return (int)value;
}

int main(int argc, char **argv)
{
    if (argc != 8) {
        fprintf(stderr, "usage: load HOST PORT SOCKETS OUTSTANDING SIZE SEGMENTS SECONDS\n");
        return 2;
    }
    struct sockaddr_in peer = {.sin_family = AF_INET};
    if (inet_pton(AF_INET, argv[1], &peer.sin_addr) != 1) {
        fprintf(stderr, "load: HOST is an IPv4 address, not %s\n", argv[1]);
        return 2;
    }
    peer.sin_port = htons((uint16_t)number(argv[2], 1, 65535, "PORT"));
    int sockets = number(argv[3], 1, 1024, "SOCKETS");
    outstanding = number(argv[4], 1, 4096, "OUTSTANDING");
    size = number(argv[5], HEADER, 65507, "SIZE");
    segments = number(argv[6], 1, 64, "SEGMENTS");
    double seconds = atof(argv[7]);
    if (size * segments > 65507) {
        fprintf(stderr, "load: a GSO batch has 65507 bytes at the most, not %d\n", size * segments);
        return 2;
    }

    int room = segments > 1 ? 65536 : size + 1;
    inPayloads = malloc((size_t)BATCH * room);
    struct cmsghdr *control = (struct cmsghdr *)outControl;
    control->cmsg_level = SOL_UDP;
    control->cmsg_type = UDP_SEGMENT;
    control->cmsg_len = CMSG_LEN(sizeof(uint16_t));
    uint16_t step = (uint16_t)size;
    memcpy(CMSG_DATA(control), &step, sizeof step);
    for (int i = 0; i < BATCH; i++) {
        inVectors[i] = (struct iovec){inPayloads + (size_t)i * room, (size_t)room};
        in[i].msg_hdr.msg_iov = &inVectors[i];
        in[i].msg_hdr.msg_iovlen = 1;
        out[i].msg_hdr.msg_iov = &outVectors[i];
        out[i].msg_hdr.msg_iovlen = 1;
        if (segments > 1) {
            in[i].msg_hdr.msg_control = inControl[i];
            out[i].msg_hdr.msg_control = outControl;
            out[i].msg_hdr.msg_controllen = sizeof outControl;
        }
    }

    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct source *sources = calloc(sockets, sizeof *sources);
    for (int s = 0; s < sockets; s++)
        open_source(&sources[s], &peer, epoll, s);

    struct epoll_event events[BATCH];
    double idle = 0, cpu = now(CLOCK_PROCESS_CPUTIME_ID), began = now(CLOCK_MONOTONIC), t = began, looked = began;
    for (int s = 0; s < sockets; s++) {
        sources[s].heard = began;
        send_all(&sources[s]);
    }
    int patient = segments == 1 && sockets * outstanding >= MANY, read = ENOUGH;
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    while (t < began + seconds) {
        if (patient && read < ENOUGH) {
            struct timespec nap = {.tv_nsec = NAP_NS};
            double before = now(CLOCK_MONOTONIC);
            nanosleep(&nap, NULL);
            idle += now(CLOCK_MONOTONIC) - before;
        }
        read = 0;
        int n = epoll_wait(epoll, events, BATCH, 0);
        if (n == 0) {
            double before = now(CLOCK_MONOTONIC);
            n = epoll_wait(epoll, events, BATCH, TICK_MS);
            idle += now(CLOCK_MONOTONIC) - before;
        }
        t = now(CLOCK_MONOTONIC);
        for (int e = 0; e < n; e++) {
            struct source *source = &sources[events[e].data.u32];
            int messages = turn(source, room, 1);
            if (messages)
                source->heard = t;
            read += messages;
        }
        if (t - looked >= TICK_MS / 1e3) {
            looked = t;
            for (int s = 0; s < sockets; s++)
                if (t - sources[s].heard >= SILENCE) {
                    sources[s].heard = t;
                    send_all(&sources[s]);
                }
        }
    }
    double elapsed = t - began;
    cpu = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    unsigned long long inTime = echoed;

    /* What is still on its way is counted, but not in the rate, and does not disturb whoever comes next. */
    double heard = t;
    while (in_flight(sources, sockets) && (t = now(CLOCK_MONOTONIC)) - heard < SILENCE) {
        int n = epoll_wait(epoll, events, BATCH, TICK_MS);
        for (int e = 0; e < n; e++)
            if (turn(&sources[events[e].data.u32], room, 0))
                heard = now(CLOCK_MONOTONIC);
    }
    for (int s = 0; s < sockets; s++)
        for (int i = 0; i < outstanding; i++)
            if (sources[s].units[i].left > 0)
                lost += sources[s].units[i].left;
    printf("{\"sent\": %llu, \"echoed\": %llu, \"echoedInTime\": %llu, \"lost\": %llu, \"late\": %llu, \"wrong\": %llu, "
           "\"failed\": %llu, \"seconds\": %.6f, \"cpu\": %.6f, \"idle\": %.6f}\n",
           sent, echoed, inTime, lost, late, wrong, failed, elapsed, cpu, idle);
    return 0;
}
