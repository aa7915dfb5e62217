/*
 * The echo server in batches, with segmentation offload both ways (udp(7), UDP_GRO and UDP_SEGMENT): offload HOST PORT.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#ifndef SOL_UDP
#define SOL_UDP 17
#endif
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

#define SLOTS 64
#define ROOM 65536

static char payloads[SLOTS][ROOM];
static struct sockaddr_in peers[SLOTS];
static struct iovec vectors[SLOTS];
static struct mmsghdr messages[SLOTS];
static char controls[SLOTS][CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));

static void prepare(int i)
{
    struct msghdr *header = &messages[i].msg_hdr;
    vectors[i] = (struct iovec){payloads[i], ROOM};
    header->msg_name = &peers[i];
    header->msg_namelen = sizeof peers[i];
    header->msg_iov = &vectors[i];
    header->msg_iovlen = 1;
    header->msg_control = controls[i];
    header->msg_controllen = sizeof controls[i];
}

/* What came as a GRO batch goes back as one, in pieces of the same size. */
static void answer(int i)
{
    struct msghdr *header = &messages[i].msg_hdr;
    struct cmsghdr *control = CMSG_FIRSTHDR(header);
    int size = 0;
    if (control && control->cmsg_level == SOL_UDP && control->cmsg_type == UDP_GRO)
        memcpy(&size, CMSG_DATA(control), sizeof size);
    vectors[i].iov_len = messages[i].msg_len;
    header->msg_flags = 0;
    header->msg_controllen = 0;
    if (size && (unsigned int)size < messages[i].msg_len) {
        uint16_t segment = (uint16_t)size;
        header->msg_controllen = CMSG_SPACE(sizeof segment);
        control->cmsg_type = UDP_SEGMENT;
        control->cmsg_len = CMSG_LEN(sizeof segment);
        memcpy(CMSG_DATA(control), &segment, sizeof segment);
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    int one = 1;
    if (argc != 3 || inet_pton(AF_INET, argv[1], &address.sin_addr) != 1) {
        fprintf(stderr, "usage: offload HOST PORT\n");
        return 2;
    }
    address.sin_port = htons((unsigned short)atoi(argv[2]));
    int descriptor = socket(AF_INET, SOCK_DGRAM, 0);
    if (descriptor < 0 || setsockopt(descriptor, SOL_UDP, UDP_GRO, &one, sizeof one) ||
        bind(descriptor, (struct sockaddr *)&address, sizeof address)) {
        perror("offload");
        return 1;
    }
    for (int i = 0; i < SLOTS; i++)
        prepare(i);
    for (;;) {
        int count = recvmmsg(descriptor, messages, SLOTS, MSG_WAITFORONE, NULL);
        for (int i = 0; i < count; i++)
            answer(i);
        for (int done = 0; done < count;) {
            int n = sendmmsg(descriptor, messages + done, (unsigned int)(count - done), 0);
            done += n > 0 ? n : 1;
        }
        for (int i = 0; i < count; i++)
            prepare(i);
    }
}
