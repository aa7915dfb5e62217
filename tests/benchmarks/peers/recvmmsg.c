/*
 * The echo server in batches: recvmmsg HOST PORT. 64 slots of 2048 bytes; what was received goes back from the same headers.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#define SLOTS 64
#define ROOM 2048

int main(int argc, char **argv)
{
    static char payloads[SLOTS][ROOM];
    static struct sockaddr_in peers[SLOTS];
    static struct iovec vectors[SLOTS];
    static struct mmsghdr messages[SLOTS];
    struct sockaddr_in address = {.sin_family = AF_INET};
    if (argc != 3 || inet_pton(AF_INET, argv[1], &address.sin_addr) != 1) {
        fprintf(stderr, "usage: recvmmsg HOST PORT\n");
        return 2;
    }
    address.sin_port = htons((unsigned short)atoi(argv[2]));
    int descriptor = socket(AF_INET, SOCK_DGRAM, 0);
    if (descriptor < 0 || bind(descriptor, (struct sockaddr *)&address, sizeof address)) {
        perror("recvmmsg");
        return 1;
    }
    for (int i = 0; i < SLOTS; i++) {
        vectors[i].iov_base = payloads[i];
        vectors[i].iov_len = ROOM;
        messages[i].msg_hdr.msg_name = &peers[i];
        messages[i].msg_hdr.msg_namelen = sizeof peers[i];
        messages[i].msg_hdr.msg_iov = &vectors[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    for (;;) {
        int count = recvmmsg(descriptor, messages, SLOTS, MSG_WAITFORONE, NULL);
        for (int i = 0; i < count; i++)
            vectors[i].iov_len = messages[i].msg_len;
        for (int done = 0; done < count;) {
            int n = sendmmsg(descriptor, messages + done, (unsigned int)(count - done), 0);
            done += n > 0 ? n : 1;
        }
        for (int i = 0; i < count; i++) {
            vectors[i].iov_len = ROOM;
            messages[i].msg_hdr.msg_namelen = sizeof peers[i];
        }
    }
}
