/* The floor: a chat that does nothing for a message but one send() per member.
 *
 * It frames a message once, keeps no queue and checks nothing, so a server that sends each message
 * by itself cannot be cheaper. The room is the path. It knows one handshake key, the load's: RFC
 * 6455's own example. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ANSWER                                                                                     \
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"            \
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"

struct room {
    char name[32];
    int *members;
    size_t count;
    struct room *next;
};

struct member {
    int fd;
    struct room *room;
    size_t length;
    unsigned char bytes[8192]; /* what came and is no whole frame yet */
};

static struct room *rooms[65536];

static void die(const char *what) {
    perror(what);
    exit(1);
}

static struct room *room_called(const char *name, size_t length) {
    unsigned hash = 0;
    for (size_t i = 0; i < length; i++) hash = hash * 31 + (unsigned char)name[i];
    struct room **place = &rooms[hash % 65536];
    for (; *place; place = &(*place)->next)
        if (strlen((*place)->name) == length && !memcmp((*place)->name, name, length))
            return *place;
    *place = calloc(1, sizeof **place);
    memcpy((*place)->name, name, length < 31 ? length : 31);
    return *place;
}

static void leave(struct member *member) {
    struct room *room = member->room;
    for (size_t i = 0; room && i < room->count; i++)
        if (room->members[i] == member->fd) room->members[i] = room->members[--room->count];
    close(member->fd);
    free(member);
}

static bool handshake(struct member *member) {
    unsigned char *end = memmem(member->bytes, member->length, "\r\n\r\n", 4);
    if (!end) return true;
    char *path = memchr(member->bytes, ' ', member->length);
    char *path_end = path ? strchr(path + 1, ' ') : NULL;
    if (!path_end || !memmem(member->bytes, end - member->bytes, KEY, strlen(KEY))) return false;
    struct room *room = room_called(path + 1, path_end - path - 1);
    if ((room->count & (room->count + 1)) == 0)
        room->members = realloc(room->members, (2 * room->count + 1) * sizeof *room->members);
    room->members[room->count++] = member->fd;
    member->room = room;
    member->length -= end + 4 - member->bytes;
    memmove(member->bytes, end + 4, member->length);
    return send(member->fd, ANSWER, strlen(ANSWER), 0) > 0;
}

/* Deliver the whole frames that have come. Short texts alone: that is what the load sends. */
static bool deliver(struct member *member) {
    size_t taken = 0;
    for (;;) {
        unsigned char *in = member->bytes + taken, out[4096];
        size_t left = member->length - taken, header = 2, length, end = 0;
        if (left < 2) break;
        if (in[0] != 0x81) return false;
        length = in[1] & 127;
        if (length == 126) {
            if (left < 4) break;
            length = in[2] << 8 | in[3];
            header = 4;
        }
        if (length > 4000) return false;
        if (left < header + 4 + length) break;
        out[end++] = 0x81;
        if (length < 126) {
            out[end++] = length;
        } else {
            out[end++] = 126;
            out[end++] = length >> 8;
            out[end++] = length;
        }
        unsigned char *mask = in + header;
        for (size_t i = 0; i < length; i++) out[end++] = mask[4 + i] ^ mask[i % 4];
        for (size_t i = 0; i < member->room->count; i++)
            send(member->room->members[i], out, end, MSG_DONTWAIT);
        taken += header + 4 + length;
    }
    member->length -= taken;
    memmove(member->bytes, member->bytes + taken, member->length);
    return true;
}

int main(int count, char **arguments) {
    int yes = 1, listener = socket(AF_INET, SOCK_STREAM, 0), poller = epoll_create1(0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    address.sin_port = htons(count > 1 ? atoi(arguments[1]) : 0);
    signal(SIGPIPE, SIG_IGN);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024))
        die("listen");
    struct epoll_event event = {.events = EPOLLIN}, events[64];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int ready = epoll_wait(poller, events, 64, -1);
        for (int i = 0; i < ready; i++) {
            struct member *member = events[i].data.ptr;
            if (!member) {
                member = calloc(1, sizeof *member);
                if ((member->fd = accept(listener, NULL, NULL)) < 0) die("accept");
                setsockopt(member->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
                event.data.ptr = member;
                epoll_ctl(poller, EPOLL_CTL_ADD, member->fd, &event);
                continue;
            }
            ssize_t got = recv(member->fd, member->bytes + member->length,
                               sizeof member->bytes - member->length, 0);
            if (got <= 0) {
                leave(member);
                continue;
            }
            member->length += got;
            if (!(member->room || handshake(member)) || (member->room && !deliver(member)))
                leave(member);
        }
    }
}
