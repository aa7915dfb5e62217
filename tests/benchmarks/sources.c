/*
 * Sends datagrams, each from another source address of 127.0.0.0/8, as forged ones would come: IP_PKTINFO in ip(7) lets a socket
 * that is bound to all addresses choose one for each.
 *
 *     sources HOST PORT NUMBER RATE
 *
 * The replies find no room, and are not read. Prints a line of JSON.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define BATCH 64
#define SIZE 64

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    struct sockaddr_in peer = {.sin_family = AF_INET};
    if (argc != 5 || inet_pton(AF_INET, argv[1], &peer.sin_addr) != 1) {
        fprintf(stderr, "usage: sources HOST PORT NUMBER RATE\n");
        return 2;
    }
    peer.sin_port = htons((uint16_t)atoi(argv[2]));
    long number = atol(argv[3]);
    double rate = atof(argv[4]);
    int sock = socket(AF_INET, SOCK_DGRAM, 0), small = 1;
    struct sockaddr_in any = {.sin_family = AF_INET};
    if (sock < 0 || bind(sock, (struct sockaddr *)&any, sizeof any) < 0) {
        perror("sources: bind");
        return 1;
    }
    setsockopt(sock, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);

    static char payload[SIZE];
    static union {
        char room[CMSG_SPACE(sizeof(struct in_pktinfo))];
        struct cmsghdr header;
    } control[BATCH];
    struct iovec vector = {payload, SIZE};
    struct mmsghdr messages[BATCH];
    for (int index = 0; index < BATCH; index++) {
        memset(&messages[index], 0, sizeof messages[index]);
        messages[index].msg_hdr.msg_name = &peer;
        messages[index].msg_hdr.msg_namelen = sizeof peer;
        messages[index].msg_hdr.msg_iov = &vector;
        messages[index].msg_hdr.msg_iovlen = 1;
        messages[index].msg_hdr.msg_control = &control[index];
        messages[index].msg_hdr.msg_controllen = sizeof control[index].room;
        control[index].header.cmsg_level = IPPROTO_IP;
        control[index].header.cmsg_type = IP_PKTINFO;
        control[index].header.cmsg_len = CMSG_LEN(sizeof(struct in_pktinfo));
    }
    long sent = 0, failed = 0;
    double start = now();
    while (sent + failed < number) {
        int count = number - sent - failed < BATCH ? (int)(number - sent - failed) : BATCH;
        for (int index = 0; index < count; index++) {
            struct in_pktinfo *info = (struct in_pktinfo *)CMSG_DATA(&control[index].header);
            memset(info, 0, sizeof *info);
            info->ipi_spec_dst.s_addr = htonl(0x7f010000u + (uint32_t)((sent + failed + index) % 0xfe0000));
        }
        int done = sendmmsg(sock, messages, count, 0);
        if (done <= 0) {
            failed++;
            continue;
        }
        sent += done;
        while (now() - start < (sent + failed) / rate) {
        }
    }
    printf("{\"seconds\": %.3f, \"sent\": %ld, \"failed\": %ld}\n", now() - start, sent, failed);
    return 0;
}
