/* wsload: puts any chat server under load, and checks what it delivers.
 *
 * One thread with one epoll handles all clients. They connect, each joins a room, and some of them
 * send. Every message has its sender, its number and its time of sending. Deliveries are found by
 * parsing WebSocket frames, so that servers may join or split writes. For each client, a delivery
 * must have the sender's next number. A lost, repeated or reordered message ends the run.
 *
 * A `dialect` describes the differences between servers: the path, how a room is joined, and the
 * format of a message. A probe measures how many bytes the server adds to a text. Texts are padded
 * so that the messages delivered by all servers have the same size.
 *
 * The CPU time of the server's processes and of the load is read from the kernel's clocks at the
 * start and the end of the measurement. The result is one JSON object on standard output. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* In templates, $ROOM, $CLIENT, $NUMBER (of the message) and $TEXT are replaced. */
struct dialect {
    const char *name, *path;
    struct {
        const char *say;   /* sent by the client, if not NULL */
        const char *until; /* contained in the answer */
    } steps[3];
    const char *message, *refusal; /* refusal: contained in a frame that refuses something */
    const char *ping, *pong;       /* an additional heartbeat on top of WebSocket's */
};

static const struct dialect dialects[] = {
    {.name = "plain", .path = "/$ROOM", .message = "$TEXT"},
    {.name = "chat",
     .path = "/ws",
     .steps = {{"{\"type\":\"hello\",\"user\":\"user$CLIENT\"}", "\"type\":\"welcome\""},
               {"{\"type\":\"join\",\"room\":\"$ROOM\"}", "\"type\":\"joined\""}},
     .message = "{\"type\":\"send\",\"room\":\"$ROOM\",\"cid\":\"$NUMBER\",\"text\":\"$TEXT\"}",
     .refusal = "{\"type\":\"error\""},
    {.name = "socket.io",
     .path = "/socket.io/?EIO=4&transport=websocket",
     .steps = {{NULL, "0{"}, {"40", "40{"}, {"420[\"join\",\"$ROOM\"]", "430["}},
     .message = "42[\"message\",\"$TEXT\"]",
     .refusal = "44{",
     .ping = "2",
     .pong = "3"},
    {.name = "centrifuge",
     .path = "/connection/websocket",
     .steps = {{"{\"id\":1,\"connect\":{}}", "\"id\":1"},
               {"{\"id\":2,\"subscribe\":{\"channel\":\"$ROOM\"}}", "\"id\":2"}},
     .message = "{\"id\":$NUMBER,\"publish\":{\"channel\":\"$ROOM\",\"data\":\"$TEXT\"}}",
     .refusal = "\"error\":{",
     .ping = "{}",
     .pong = "{}"},
};

/* The example of RFC 6455, 1.3. All clients use this key, so that no SHA-1 is needed here. */
#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

#define SECOND 1000000000ull
#define PATIENCE (20 * SECOND) /* without any progress */
#define NAP (200 * 1000)       /* nanoseconds; the maximum error of a latency */
#define CONNECTING 64          /* parallel handshakes: fewer than any backlog */
#define READ_BYTES (256 << 10)
#define MESSAGE_BYTES 4096

enum state { HANDSHAKE, JOINING, JOINED };

struct client {
    int fd;
    enum state state;
    unsigned step;
    unsigned number, room;
    unsigned said; /* messages of this sender */
    char *rest;    /* the start of an incomplete frame */
    size_t rest_length;
};

static struct {
    const struct dialect *dialect;
    const char *host;
    unsigned clients, senders, rooms, burst, sources, size;
    unsigned window; /* undelivered messages per sender; 0: not by window */
    double rate;     /* messages per second of all senders; 0: not by rate */
    double share;    /* by the rate at which the servers use this share of a core */
    double interval, seconds, warm_up;
    unsigned ports[8], port_count;
    clockid_t servers[8], neighbours[8];
    unsigned server_count, neighbour_count;
    char **tokens; /* of the clients, in turn */
    unsigned token_count;
    bool hold;
} options = {.dialect = &dialects[0],
             .host = "127.0.0.1",
             .clients = 1000,
             .senders = 1,
             .rooms = 1,
             .burst = 1,
             .sources = 16,
             .size = 240,
             .interval = 0.05,
             .seconds = 3,
             .warm_up = 1};

static struct client *clients;
static unsigned *heard; /* [client][sender of its room]: number of the last message */
static unsigned senders_per_room;
static int poller;
static unsigned joined;
static unsigned padding;
static uint64_t said, delivered, expected, delivered_bytes;
static uint64_t delivered_size; /* of the last message, with the bytes that the server adds */

/* Latency in powers of two, each in 32 steps, of microseconds: within 3 %. */
static uint64_t histogram[40 * 32];
static bool measuring, probing;

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("wsload: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static uint64_t now(clockid_t clock) {
    struct timespec time;
    if (clock_gettime(clock, &time) != 0) fail("a server's process is gone");
    return time.tv_sec * SECOND + time.tv_nsec;
}

/* CPU time that the whole machine has spent on anything, in seconds. */
static double machine_time(void) {
    unsigned long long user, nice, system, idle, wait, irq, soft, steal;
    FILE *file = fopen("/proc/stat", "r");
    if (!file || fscanf(file, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system,
                        &idle, &wait, &irq, &soft, &steal) != 8)
        fail("/proc/stat is not as it should be");
    fclose(file);
    return (double)(user + nice + system + irq + soft + steal) / sysconf(_SC_CLK_TCK);
}

static unsigned bucket_of(uint64_t microseconds) {
    if (microseconds < 32) return microseconds;
    unsigned power = 63 - __builtin_clzll(microseconds);
    return (power - 4) * 32 + (microseconds >> (power - 5)) - 32;
}

static double milliseconds_at(double share) {
    uint64_t total = 0, seen = 0;
    for (unsigned i = 0; i < sizeof histogram / sizeof *histogram; i++) total += histogram[i];
    for (unsigned i = 0; i < sizeof histogram / sizeof *histogram; i++) {
        seen += histogram[i];
        if (total > 0 && seen >= share * total)
            return (i < 32 ? i : (uint64_t)(i % 32 + 32) << (i / 32 - 1)) / 1000.0;
    }
    return 0;
}

/* Write `template` to `out`, with its variables replaced; returns the length. */
static size_t expand(char *out, const char *template, const struct client *client,
                     const char *text) {
    char *end = out;
    for (const char *in = template; *in;) {
        if (strncmp(in, "$ROOM", 5) == 0) {
            end += sprintf(end, "room%u", client->room);
            in += 5;
        } else if (strncmp(in, "$CLIENT", 7) == 0) {
            end += sprintf(end, "%u", client->number);
            in += 7;
        } else if (strncmp(in, "$NUMBER", 7) == 0) {
            end += sprintf(end, "%u", client->said);
            in += 7;
        } else if (strncmp(in, "$TEXT", 5) == 0) {
            end = stpcpy(end, text);
            in += 5;
        } else {
            *end++ = *in++;
        }
    }
    *end = 0;
    return end - out;
}

/* Put a masked frame at `out`; returns its length, at most 8 more than `length`. */
static size_t frame(unsigned char *out, unsigned opcode, const char *payload, size_t length) {
    static uint32_t random = 2463534242;
    random ^= random << 13, random ^= random >> 17, random ^= random << 5;
    unsigned char *end = out;
    *end++ = 0x80 | opcode;
    if (length < 126) {
        *end++ = 0x80 | length;
    } else {
        *end++ = 0x80 | 126;
        *end++ = length >> 8;
        *end++ = length;
    }
    unsigned char *mask = end;
    memcpy(mask, &random, 4);
    end += 4;
    for (size_t i = 0; i < length; i++) *end++ = payload[i] ^ mask[i % 4];
    return end - out;
}

static void transmit(const struct client *client, const void *bytes, size_t length) {
    ssize_t sent = send(client->fd, bytes, length, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) fail("client %u: %s", client->number, strerror(errno));
    if (sent != (ssize_t)length)
        fail("client %u: the server does not read what is sent to it", client->number);
}

static void say(const struct client *client, unsigned opcode, const char *payload, size_t length) {
    unsigned char bytes[MESSAGE_BYTES + 8];
    transmit(client, bytes, frame(bytes, opcode, payload, length));
}

/* The marker of a message within a frame: @@, sender, number and time. */
#define MARK_DIGITS (4 + 8 + 16)
#define MARK_LENGTH (2 + MARK_DIGITS)

static uint64_t parse_hex(const unsigned char *text, unsigned length) {
    uint64_t value = 0;
    for (unsigned i = 0; i < length; i++)
        value = value << 4 | (text[i] <= '9' ? text[i] - '0' : text[i] - 'a' + 10);
    return value;
}

/* Send `count` messages of a sender in one write. */
static void speak(struct client *client, unsigned count) {
    static unsigned char bytes[256 * (MESSAGE_BYTES + 8)];
    char text[MESSAGE_BYTES], message[MESSAGE_BYTES];
    size_t length = 0;
    for (unsigned i = 0; i < count; i++) {
        client->said++;
        char *end = text + sprintf(text, "@@%04x%08x%016llx", client->number, client->said,
                                   (unsigned long long)now(CLOCK_MONOTONIC));
        memset(end, 'x', padding);
        end[padding] = 0;
        length += frame(bytes + length, 1, message,
                        expand(message, options.dialect->message, client, text));
    }
    transmit(client, bytes, length);
    said += count;
    unsigned members =
        options.clients / options.rooms + (client->room < options.clients % options.rooms);
    expected += (uint64_t)count * members;
}

static void hear(struct client *client, const unsigned char *mark, uint64_t time) {
    unsigned sender = parse_hex(mark + 2, 4), number = parse_hex(mark + 6, 8);
    if (sender >= options.senders || clients[sender].room != client->room)
        fail("client %u got a message of client %u, who is in another room", client->number,
             sender);
    unsigned *last = &heard[(size_t)client->number * senders_per_room + sender / options.rooms];
    if (number != *last + 1)
        fail("client %u got message %u of client %u after message %u", client->number, number,
             sender, *last);
    *last = number;
    delivered++;
    if (measuring) histogram[bucket_of((time - parse_hex(mark + 14, 16)) / 1000)]++;
}

static void take_step(struct client *client) {
    char message[MESSAGE_BYTES];
    if (client->step == 3 || !options.dialect->steps[client->step].until) {
        client->state = JOINED;
        joined++;
        return;
    }
    const char *template = options.dialect->steps[client->step].say;
    if (template) say(client, 1, message, expand(message, template, client, ""));
}

/* Messages that share a frame are on separate lines. */
static void note_size(const unsigned char *begin, const unsigned char *end,
                      const unsigned char *mark) {
    const unsigned char *before = memrchr(begin, '\n', mark - begin);
    const unsigned char *after = memchr(mark, '\n', end - mark);
    delivered_size = (after ? after : end) - (before ? before + 1 : begin);
}

static void on_text(struct client *client, const unsigned char *payload, size_t length,
                    uint64_t time) {
    const struct dialect *dialect = options.dialect;
    bool marked = false;
    const unsigned char *end = payload + length, *mark = payload;
    while ((mark = memmem(mark, end - mark, "@@", 2)) && end - mark >= MARK_LENGTH) {
        hear(client, mark, time);
        if (probing) note_size(payload, end, mark);
        mark += MARK_LENGTH;
        marked = true;
    }
    if (marked) {
        delivered_bytes += length;
        return;
    }
    if (dialect->refusal && memmem(payload, length, dialect->refusal, strlen(dialect->refusal)))
        fail("client %u was refused: %.*s", client->number, (int)length, (const char *)payload);
    if (dialect->ping && length == strlen(dialect->ping) &&
        !memcmp(payload, dialect->ping, length)) {
        say(client, 1, dialect->pong, strlen(dialect->pong));
        return;
    }
    if (client->state == JOINING) {
        const char *until = dialect->steps[client->step].until;
        if (memmem(payload, length, until, strlen(until))) {
            client->step++;
            take_step(client);
        }
    }
}

static void on_frame(struct client *client, unsigned first, const unsigned char *payload,
                     size_t length, uint64_t time) {
    switch (first) {
    case 0x81: on_text(client, payload, length, time); break;
    case 0x88:
        fail("client %u: the server closed the connection: %u %.*s", client->number,
             length < 2 ? 1005 : payload[0] << 8 | payload[1], (int)(length < 2 ? 0 : length - 2),
             (const char *)payload + 2);
        break;
    case 0x89: say(client, 10, (const char *)payload, length); break;
    case 0x8a: break;
    default:
        fail("client %u: a frame began with %#x, which no server here should send", client->number,
             first);
    }
}

/* Process the complete frames in `bytes`; returns their size. */
static size_t take_frames(struct client *client, const unsigned char *bytes, size_t length,
                          uint64_t time) {
    size_t taken = 0;
    while (length - taken >= 2) {
        const unsigned char *head = bytes + taken;
        size_t payload = head[1], header = 2;
        if (payload == 126) {
            header = 4;
            if (length - taken < header) break;
            payload = head[2] << 8 | head[3];
        } else if (payload == 127) {
            header = 10;
            if (length - taken < header) break;
            payload = 0;
            for (int i = 2; i < 10; i++) payload = payload << 8 | head[i];
        } else if (payload > 127) {
            fail("client %u: the server masks its frames", client->number);
        }
        if (payload > length - taken - header) break;
        on_frame(client, head[0], head + header, payload, time);
        taken += header + payload;
    }
    return taken;
}

/* Process the answer to the handshake, once it is complete; returns its size. */
static size_t take_handshake(struct client *client, const unsigned char *bytes, size_t length) {
    const unsigned char *end = memmem(bytes, length, "\r\n\r\n", 4);
    if (!end) return 0;
    size_t taken = end + 4 - bytes;
    if (strncmp((const char *)bytes, "HTTP/1.1 101", 12) != 0 ||
        !memmem(bytes, taken, ": " ACCEPT "\r\n", strlen(ACCEPT) + 4))
        fail("client %u: no WebSocket, but: %.*s", client->number, (int)taken, (const char *)bytes);
    client->state = JOINING;
    take_step(client);
    return taken;
}

static void on_readable(struct client *client) {
    static unsigned char *bytes;
    static size_t capacity;
    if (capacity < client->rest_length + READ_BYTES) {
        capacity = client->rest_length + READ_BYTES;
        bytes = realloc(bytes, capacity);
    }
    if (client->rest_length) memcpy(bytes, client->rest, client->rest_length);
    ssize_t got = recv(client->fd, bytes + client->rest_length, READ_BYTES, 0);
    if (got == 0) fail("client %u: the server ended the connection", client->number);
    if (got < 0) {
        if (errno == EAGAIN) return;
        fail("client %u: %s", client->number, strerror(errno));
    }
    size_t length = client->rest_length + got, taken = 0;
    if (client->state == HANDSHAKE) taken = take_handshake(client, bytes, length);
    if (client->state != HANDSHAKE)
        taken += take_frames(client, bytes + taken, length - taken, now(CLOCK_MONOTONIC));
    free(client->rest);
    client->rest = NULL;
    client->rest_length = length - taken;
    if (client->rest_length) {
        client->rest = malloc(client->rest_length);
        memcpy(client->rest, bytes + taken, client->rest_length);
    }
}

/* Process received data. If there is none, sleep for a moment, until `deadline` at most, instead of
 * waiting in epoll. Otherwise the server would pay for waking up the load at each send, the more
 * often the slower it is. Clients on other machines do not cost it that. */
static void pump(uint64_t deadline) {
    static const struct timespec at_once = {0};
    struct epoll_event events[256];
    int count = epoll_pwait2(poller, events, 256, &at_once, NULL);
    if (count < 0 && errno != EINTR) fail("epoll: %s", strerror(errno));
    for (int i = 0; i < count; i++) on_readable(events[i].data.ptr);
    if (count > 0) return;
    uint64_t time = now(CLOCK_MONOTONIC), left = deadline > time ? deadline - time : 0;
    struct timespec nap = {0, left < NAP ? left : NAP};
    nanosleep(&nap, NULL);
}

static void pump_until(uint64_t deadline) {
    do pump(deadline);
    while (now(CLOCK_MONOTONIC) < deadline);
}

/* Process received data until all messages are delivered. */
static void pump_until_delivered(void) {
    uint64_t before = delivered, deadline = now(CLOCK_MONOTONIC) + PATIENCE;
    while (delivered < expected) {
        pump(deadline);
        if (delivered > before) {
            before = delivered;
            deadline = now(CLOCK_MONOTONIC) + PATIENCE;
        } else if (now(CLOCK_MONOTONIC) >= deadline) {
            fail("%llu of %llu deliveries did not come", (unsigned long long)(expected - delivered),
                 (unsigned long long)expected);
        }
    }
    if (delivered > expected) fail("more was delivered than was said");
}

static void connect_client(struct client *client) {
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client->fd < 0) fail("client %u: %s", client->number, strerror(errno));
    int yes = 1, send_bytes = 1 << 20;
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(client->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    if (client->number < options.senders)
        setsockopt(client->fd, SOL_SOCKET, SO_SNDBUF, &send_bytes, sizeof send_bytes);
    struct sockaddr_in source = {.sin_family = AF_INET};
    source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + client->number % options.sources);
    struct sockaddr_in server = {.sin_family = AF_INET};
    unsigned port = options.ports[client->number % options.port_count];
    server.sin_port = htons(port);
    if (inet_pton(AF_INET, options.host, &server.sin_addr) != 1)
        fail("'%s' is no IPv4 address", options.host);
    if (bind(client->fd, (struct sockaddr *)&source, sizeof source) != 0 ||
        connect(client->fd, (struct sockaddr *)&server, sizeof server) != 0)
        fail("client %u: %s:%u: %s", client->number, options.host, port, strerror(errno));
    fcntl(client->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, client->fd, &event) != 0)
        fail("epoll: %s", strerror(errno));
    char path[256], authorization[4096] = "", request[8192];
    expand(path, options.dialect->path, client, "");
    if (options.token_count)
        snprintf(authorization, sizeof authorization, "Authorization: Bearer %s\r\n",
                 options.tokens[client->number % options.token_count]);
    int length = sprintf(request,
                         "GET %s HTTP/1.1\r\nHost: %s:%u\r\nUpgrade: websocket\r\n"
                         "Connection: Upgrade\r\nSec-WebSocket-Key: " KEY "\r\n"
                         "Sec-WebSocket-Version: 13\r\n%s\r\n",
                         path, options.host, port, authorization);
    transmit(client, request, length);
}

static void connect_all(void) {
    uint64_t deadline = now(CLOCK_MONOTONIC) + PATIENCE;
    unsigned started = 0, before = 0;
    while (joined < options.clients) {
        while (started < options.clients && started - joined < CONNECTING)
            connect_client(&clients[started++]);
        pump(deadline);
        if (joined > before) {
            before = joined;
            deadline = now(CLOCK_MONOTONIC) + PATIENCE;
        } else if (now(CLOCK_MONOTONIC) >= deadline) {
            fail("only %u of %u clients could join", joined, options.clients);
        }
    }
}

/* Measure the bytes that the server adds to a text, and pad the text to the wanted size. */
static void probe(void) {
    probing = true;
    speak(&clients[0], 1);
    pump_until_delivered();
    probing = false;
    if (delivered_size > options.size)
        fail("an empty message of this server has %llu bytes already: give --size at least that",
             (unsigned long long)delivered_size);
    padding = options.size - delivered_size;
}

/* Let the senders send in turn at a constant rate, independently of the server. */
static void speak_evenly(uint64_t end) {
    static unsigned turn;
    uint64_t start = now(CLOCK_MONOTONIC), time = start;
    for (uint64_t count = 0; time < end; time = now(CLOCK_MONOTONIC)) {
        uint64_t due = (time - start) / 1e9 * options.rate;
        for (; count < due; count++) speak(&clients[turn++ % options.senders], 1);
        uint64_t next = start + (count + 1) / options.rate * 1e9;
        pump(next < end ? next : end);
    }
}

static uint64_t time_of(const clockid_t *processes, unsigned count) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < count; i++) sum += now(processes[i]);
    return sum;
}

static uint64_t server_time(void) { return time_of(options.servers, options.server_count); }

/* CPU time of other processes on the load's core. */
static uint64_t neighbour_time(void) {
    return time_of(options.neighbours, options.neighbour_count);
}

/* Find the rate at which the servers use the wanted share of a core. This is the warm-up, in steps.
 * The rate starts low and at most doubles per step. It is halved when deliveries fall behind, so
 * that no messages pile up. */
static void find_rate(uint64_t end) {
    const uint64_t step = SECOND / 2;
    options.rate = 10;
    for (uint64_t time = now(CLOCK_MONOTONIC); time < end; time = now(CLOCK_MONOTONIC)) {
        uint64_t cpu = server_time(), wanted = expected, came = delivered;
        speak_evenly(time + step);
        double share = (double)(server_time() - cpu) / (now(CLOCK_MONOTONIC) - time);
        double factor = options.share / share;
        if (delivered - came < 0.75 * (expected - wanted) || factor < 0.5) factor = 0.5;
        options.rate *= factor > 2 ? 2 : factor;
    }
}

/* Let the senders send according to the options until `end`. */
static void speak_until(uint64_t end) {
    uint64_t time = now(CLOCK_MONOTONIC);
    if (options.window) {
        /* A sender sends its next message when it receives its own. */
        while ((time = now(CLOCK_MONOTONIC)) < end) {
            for (unsigned i = 0; i < options.senders; i++) {
                unsigned own = heard[(size_t)i * senders_per_room + i / options.rooms];
                if (clients[i].said - own < options.window)
                    speak(&clients[i], options.window - (clients[i].said - own));
            }
            pump(end);
        }
    } else if (options.rate > 0) {
        speak_evenly(end);
    } else if (options.burst) {
        /* A tick starts on schedule, but not before the previous one is delivered everywhere. */
        while (time < end) {
            uint64_t next = time + options.interval * 1e9;
            for (unsigned i = 0; i < options.senders; i++) speak(&clients[i], options.burst);
            pump_until_delivered();
            pump_until(next);
            time = now(CLOCK_MONOTONIC);
        }
    } else {
        pump_until(end);
    }
}

static void measure(void) {
    uint64_t start = now(CLOCK_MONOTONIC), warm = start + options.warm_up * 1e9;
    if (options.share > 0)
        find_rate(warm);
    else
        speak_until(warm);
    uint64_t server, load, neighbour, said_before = said, delivered_before = delivered;
    uint64_t bytes_before = delivered_bytes;
    measuring = true;
    start = now(CLOCK_MONOTONIC);
    server = server_time();
    load = now(CLOCK_PROCESS_CPUTIME_ID);
    neighbour = neighbour_time();
    double machine = machine_time();
    speak_until(start + options.seconds * 1e9);
    server = server_time() - server;
    load = now(CLOCK_PROCESS_CPUTIME_ID) - load;
    neighbour = neighbour_time() - neighbour;
    machine = machine_time() - machine;
    uint64_t length = now(CLOCK_MONOTONIC) - start;
    uint64_t messages = said - said_before, deliveries = delivered - delivered_before;
    double bytes = deliveries ? (double)(delivered_bytes - bytes_before) / deliveries : 0;
    pump_until_delivered();
    printf(
        "{\"clients\": %u, \"messages\": %llu, \"deliveries\": %llu, \"seconds\": %.6f, "
        "\"delivered_bytes\": %.1f, \"machine_cpu\": %.2f, \"load_cpu\": %.6f, "
        "\"neighbour_cpu\": %.6f, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"server_cpu\": %.6f}\n",
        options.clients, (unsigned long long)messages, (unsigned long long)deliveries, length / 1e9,
        bytes, machine, load / 1e9, neighbour / 1e9, milliseconds_at(0.50), milliseconds_at(0.99), server / 1e9);
}

static const char usage[] =
    "Usage: wsload [OPTION...] PORT...\n"
    "Clients connect to the ports in turn, and to the rooms; the first of them speak.\n"
    "  --dialect NAME    plain, chat, socket.io or centrifuge (plain)\n"
    "  --host ADDRESS    IPv4 address of the server (127.0.0.1)\n"
    "  --clients N       clients that join (1000)\n"
    "  --senders N       how many of them speak (1)\n"
    "  --rooms N         rooms they are spread over (1)\n"
    "  --size BYTES      size of a delivered message (190)\n"
    "  --burst N         messages of each sender at each tick, in one write (1); 0: silence\n"
    "  --interval S      seconds between ticks; a tick waits for the one before (0.05)\n"
    "  --rate N          instead: messages per second of all senders, evenly\n"
    "  --share SHARE     instead: evenly, so that the servers take this share of a core;\n"
    "                    the warm-up finds the rate, and needs some seconds\n"
    "  --window N        instead: messages that each sender has under way at any time\n"
    "  --warm-up S       seconds before the measured span (1)\n"
    "  --seconds S       the measured span (3)\n"
    "  --sources N       spread the clients over so many loopback addresses (16)\n"
    "  --server PID      process whose CPU time is measured; may be repeated\n"
    "  --neighbour PID   process on the load's core, whose CPU time is told, too\n"
    "  --tokens FILE     tokens that the clients bring in turn, one per line\n"
    "  --hold            say 'joined' when all have, and wait for a line before speaking\n";

static double number_of(const char *option, const char *text, double low, double high) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= low && value <= high))
        fail("--%s '%s': give a number from %g to %g", option, text, low, high);
    return value;
}

static clockid_t process_clock(const char *option, const char *text) {
    clockid_t clock;
    if (clock_getcpuclockid(number_of(option, text, 1, 1 << 22), &clock) != 0)
        fail("--%s %s: there is no such process", option, text);
    return clock;
}

static void read_tokens(const char *path) {
    FILE *file = fopen(path, "r");
    if (!file) fail("--tokens %s: %s", path, strerror(errno));
    char line[4096];
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        options.tokens = realloc(options.tokens, ++options.token_count * sizeof *options.tokens);
        options.tokens[options.token_count - 1] = strdup(line);
    }
    fclose(file);
    if (!options.token_count) fail("--tokens %s: it has none", path);
}

static void read_options(int count, char **arguments) {
    enum {
        DIALECT,
        HOST,
        CLIENTS,
        SENDERS,
        ROOMS,
        SIZE,
        BURST,
        INTERVAL,
        RATE,
        SHARE,
        WINDOW,
        WARM_UP,
        SECONDS,
        SOURCES,
        SERVER,
        NEIGHBOUR,
        TOKENS,
        HOLD,
        HELP
    };
    static const struct option known[] = {{"dialect", 1, 0, DIALECT},
                                          {"host", 1, 0, HOST},
                                          {"clients", 1, 0, CLIENTS},
                                          {"senders", 1, 0, SENDERS},
                                          {"rooms", 1, 0, ROOMS},
                                          {"size", 1, 0, SIZE},
                                          {"burst", 1, 0, BURST},
                                          {"interval", 1, 0, INTERVAL},
                                          {"rate", 1, 0, RATE},
                                          {"share", 1, 0, SHARE},
                                          {"window", 1, 0, WINDOW},
                                          {"warm-up", 1, 0, WARM_UP},
                                          {"seconds", 1, 0, SECONDS},
                                          {"sources", 1, 0, SOURCES},
                                          {"server", 1, 0, SERVER},
                                          {"neighbour", 1, 0, NEIGHBOUR},
                                          {"tokens", 1, 0, TOKENS},
                                          {"hold", 0, 0, HOLD},
                                          {"help", 0, 0, HELP},
                                          {0}};
    int choice, index = 0;
    while ((choice = getopt_long(count, arguments, "", known, &index)) != -1) {
        const char *name = choice == '?' ? "" : known[index].name;
        switch (choice) {
        case DIALECT:
            options.dialect = NULL;
            for (size_t i = 0; i < sizeof dialects / sizeof *dialects; i++)
                if (strcmp(dialects[i].name, optarg) == 0) options.dialect = &dialects[i];
            if (!options.dialect) fail("no dialect is called '%s'", optarg);
            break;
        case HOST: options.host = optarg; break;
        case CLIENTS: options.clients = number_of(name, optarg, 1, 65535); break;
        case SENDERS: options.senders = number_of(name, optarg, 1, 65535); break;
        case ROOMS: options.rooms = number_of(name, optarg, 1, 65535); break;
        case SIZE: options.size = number_of(name, optarg, 1, MESSAGE_BYTES / 2); break;
        case BURST: options.burst = number_of(name, optarg, 0, 256); break;
        case INTERVAL: options.interval = number_of(name, optarg, 0, 3600); break;
        case RATE: options.rate = number_of(name, optarg, 0, 1e6); break;
        case SHARE: options.share = options.rate = number_of(name, optarg, 0.01, 0.95); break;
        case WINDOW: options.window = number_of(name, optarg, 0, 256); break;
        case WARM_UP: options.warm_up = number_of(name, optarg, 0, 3600); break;
        case SECONDS: options.seconds = number_of(name, optarg, 0.001, 3600); break;
        case SOURCES: options.sources = number_of(name, optarg, 1, 65535); break;
        case SERVER:
            if (options.server_count == 8) fail("--server: at most 8 processes");
            options.servers[options.server_count++] = process_clock(name, optarg);
            break;
        case NEIGHBOUR:
            if (options.neighbour_count == 8) fail("--neighbour: at most 8 processes");
            options.neighbours[options.neighbour_count++] = process_clock(name, optarg);
            break;
        case TOKENS: read_tokens(optarg); break;
        case HOLD: options.hold = true; break;
        case HELP: fputs(usage, stdout); exit(0);
        default: fputs(usage, stderr); exit(2);
        }
    }
    for (; optind < count; optind++) {
        if (options.port_count == 8) fail("at most 8 ports");
        options.ports[options.port_count++] = number_of("port", arguments[optind], 1, 65535);
    }
    if (!options.port_count) fail("give the server's port");
    if (options.senders > options.clients || options.rooms > options.clients)
        fail("%u clients cannot be %u senders in %u rooms", options.clients, options.senders,
             options.rooms);
}

int main(int count, char **arguments) {
    read_options(count, arguments);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_cur < options.clients + 16)
        fail("--clients %u: the limit of open files is %llu here", options.clients,
             (unsigned long long)files.rlim_cur);
    prctl(PR_SET_TIMERSLACK, 1000);
    poller = epoll_create1(EPOLL_CLOEXEC);
    senders_per_room = (options.senders + options.rooms - 1) / options.rooms;
    clients = calloc(options.clients, sizeof *clients);
    heard = calloc((size_t)options.clients * senders_per_room, sizeof *heard);
    for (unsigned i = 0; i < options.clients; i++) {
        clients[i].number = i;
        clients[i].room = i % options.rooms;
    }
    connect_all();
    if (options.hold) {
        puts("joined");
        fflush(stdout);
        char line[16];
        if (!fgets(line, sizeof line, stdin)) return 1;
    }
    if (options.burst) probe();
    measure();
    return 0;
}
