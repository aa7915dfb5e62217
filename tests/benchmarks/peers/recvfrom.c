/*
 * The plain echo server: recvfrom HOST PORT.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    static char payload[65536];
    struct sockaddr_in address = {.sin_family = AF_INET}, peer;
    if (argc != 3 || inet_pton(AF_INET, argv[1], &address.sin_addr) != 1) {
        fprintf(stderr, "usage: recvfrom HOST PORT\n");
        return 2;
    }
    address.sin_port = htons((unsigned short)atoi(argv[2]));
    int descriptor = socket(AF_INET, SOCK_DGRAM, 0);
    if (descriptor < 0 || bind(descriptor, (struct sockaddr *)&address, sizeof address)) {
        perror("recvfrom");
        return 1;
    }
    for (;;) {
        socklen_t length = sizeof peer;
        ssize_t size = recvfrom(descriptor, payload, sizeof payload, 0, (struct sockaddr *)&peer, &length);
        if (size >= 0)
            (void)!sendto(descriptor, payload, (size_t)size, 0, (struct sockaddr *)&peer, length);
    }
}
