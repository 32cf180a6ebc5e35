/*
 * Faults in what the kernel answers by netlink, for a program that has this library loaded before the C
 * library.
 *
 * One request among those that are sent together is refused: in its place the kernel is sent one that it only
 * acknowledges (NLMSG_NOOP), in the same order, and the number of the error is put into the acknowledgement.
 * All other requests of the datagram are carried out. Of a batch of nfnetlink nothing is carried out. A dump is
 * marked as interrupted, and lacks entries if it can be read again, or ends with an error. Sources:
 * linux/netlink.h, netlink_rcv_skb() and netlink_dump_done() in
 * net/netlink/af_netlink.c, nfnetlink_rcv_skb_batch() in net/netfilter/nfnetlink.c.
 *
 * In the environment:
 *
 *     NETLINK_LOG      file to which a line is added for each request that can have a fault, and each fault
 *     NETLINK_FAULT    "EFFECT PROTOCOL TYPE NTH TIMES ERRNO": the NTH request of that type, and TIMES - 1 more
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum effect { NOTHING, REFUSE = 'r', INTERRUPT = 'i', BREAK = 'b' };

/* Of linux/netfilter/nfnetlink.h. */
enum { BATCH_BEGIN = 16, CONNTRACK = 1 };

/* So many times that no list is ever read without an interruption. */
enum { FOR_EVER = 1000000 };

static struct {
    char effect;
    int protocol, type, nth, times, error;
} fault;
static int seen;
static int log_fd = -1;

/* Requests whose answers are to be changed. */
static struct pending {
    int fd;
    uint32_t sequence;
    enum effect effect;
} pendings[64];

static ssize_t (*real_send)(int, const void *, size_t, int);
static ssize_t (*real_recvfrom)(int, void *, size_t, int, struct sockaddr *, socklen_t *);
static ssize_t (*real_write)(int, const void *, size_t);

/* The program may write before this library's turn to be initialised has come. */
static void prepare(void)
{
    if (real_write)
        return;
    real_send = dlsym(RTLD_NEXT, "send");
    real_recvfrom = dlsym(RTLD_NEXT, "recvfrom");
    real_write = dlsym(RTLD_NEXT, "write");
    const char *path = getenv("NETLINK_LOG");
    if (path)
        log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    const char *text = getenv("NETLINK_FAULT");
    if (text && sscanf(text, "%c%*s %d %d %d %d %d", &fault.effect, &fault.protocol, &fault.type, &fault.nth,
               &fault.times, &fault.error) != 6)
        abort();
}

static void note(const char *what, int protocol, const struct nlmsghdr *message)
{
    char line[80];
    int length = snprintf(line, sizeof line, "%s %d %d %d %u\n", what, protocol, message->nlmsg_type,
                  message->nlmsg_flags, message->nlmsg_len);
    if (log_fd >= 0 && real_write(log_fd, line, length) != length)
        abort();
}

/* The protocol of a netlink socket; -1 for anything else. */
static int protocol_of(int fd)
{
    int domain, protocol;
    socklen_t size = sizeof domain;
    int before = errno;
    int found = !getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) && domain == AF_NETLINK &&
            !getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size);
    errno = before;
    return found ? protocol : -1;
}

enum kind { LOOKUP, CHANGE, DUMP };

static enum kind kind_of(int protocol, const struct nlmsghdr *message)
{
    int is_get, type = message->nlmsg_type;
    if (protocol == NETLINK_ROUTE)
        is_get = (type & 3) == 2;
    else
        /* Whatever nf_tables changes is in a batch. */
        is_get = type >> 8 != CONNTRACK || (type & 0xff) % 2 == 1;
    if (!is_get)
        return CHANGE;
    return (message->nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP ? DUMP : LOOKUP;
}

static void expect(int fd, uint32_t sequence, enum effect effect)
{
    for (size_t i = 0; i < sizeof pendings / sizeof *pendings; i++)
        if (pendings[i].effect == NOTHING) {
            pendings[i] = (struct pending){fd, sequence, effect};
            return;
        }
    abort();
}

/* Whether it is this request's turn to have the fault. */
static int is_met(int protocol, const struct nlmsghdr *message)
{
    if (fault.effect == NOTHING || protocol != fault.protocol || message->nlmsg_type != fault.type)
        return 0;
    seen++;
    if (seen < fault.nth || seen - fault.nth >= fault.times)
        return 0;
    note("met", protocol, message);
    return 1;
}

/* Has the kernel only acknowledge a request. */
static void empty(int fd, struct nlmsghdr *message)
{
    message->nlmsg_type = NLMSG_NOOP;
    message->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    expect(fd, message->nlmsg_seq, REFUSE);
}

/* Looks at a datagram, and changes it where it has the fault. Returns the length that is to be sent. */
static size_t tamper(int fd, int protocol, char *data, size_t length)
{
    struct nlmsghdr *message = (struct nlmsghdr *)data;
    if (protocol == NETLINK_NETFILTER && message->nlmsg_type == BATCH_BEGIN) {
        note("batch", protocol, message);
        if (!is_met(protocol, message))
            return length;
        /* A wrong generation is said of the batch, all else of a request in it. */
        if (fault.error != ERESTART)
            message->nlmsg_seq++;
        message->nlmsg_len = NLMSG_HDRLEN;
        empty(fd, message);
        return NLMSG_HDRLEN;
    }
    for (int left = length; NLMSG_OK(message, left); message = NLMSG_NEXT(message, left)) {
        enum kind kind = kind_of(protocol, message);
        if (kind == LOOKUP)
            continue;
        note(kind == DUMP ? "dump" : "change", protocol, message);
        if ((kind == DUMP) == (fault.effect == REFUSE) || !is_met(protocol, message))
            continue;
        if (kind == DUMP)
            expect(fd, message->nlmsg_seq, fault.effect);
        else
            empty(fd, message);
    }
    return length;
}

static ssize_t send_tampered(int fd, int protocol, const void *data, size_t length, int flags)
{
    char *copy = malloc(length);
    if (!copy)
        abort();
    memcpy(copy, data, length);
    size_t wanted = tamper(fd, protocol, copy, length);
    ssize_t sent = real_send(fd, copy, wanted, flags);
    free(copy);
    return sent < 0 ? sent : (ssize_t)length;
}

ssize_t send(int fd, const void *data, size_t length, int flags)
{
    prepare();
    int protocol = protocol_of(fd);
    return protocol < 0 ? real_send(fd, data, length, flags)
                : send_tampered(fd, protocol, data, length, flags);
}

ssize_t write(int fd, const void *data, size_t length)
{
    prepare();
    int protocol = protocol_of(fd);
    return protocol < 0 ? real_write(fd, data, length) : send_tampered(fd, protocol, data, length, 0);
}

/*
 * Changes one message of an answer. Returns 1 for an entry that is to be left out, as some are that come or go
 * while a list is read: a list that is read again in the end is read without any until then.
 */
static int change_answer(struct pending *one, struct nlmsghdr *message)
{
    int is_last = message->nlmsg_type == NLMSG_DONE || message->nlmsg_type == NLMSG_ERROR;
    enum effect effect = one->effect;
    if (effect == INTERRUPT)
        message->nlmsg_flags |= NLM_F_DUMP_INTR;
    else if (is_last)
        *(int32_t *)NLMSG_DATA(message) = -fault.error;
    if (is_last)
        one->effect = NOTHING;
    return effect == INTERRUPT && fault.times < FOR_EVER && !is_last;
}

static struct pending *find_pending(int fd, uint32_t sequence)
{
    for (size_t i = 0; i < sizeof pendings / sizeof *pendings; i++)
        if (pendings[i].effect != NOTHING && pendings[i].fd == fd && pendings[i].sequence == sequence)
            return &pendings[i];
    return NULL;
}

ssize_t recvfrom(int fd, void *data, size_t size, int flags, __SOCKADDR_ARG from, socklen_t *from_size)
{
    prepare();
    for (;;) {
        ssize_t length = real_recvfrom(fd, data, size, flags, from.__sockaddr__, from_size);
        if (length <= 0)
            return length;
        char *at = data, *to = data;
        while (at < (char *)data + length) {
            struct nlmsghdr *message = (struct nlmsghdr *)at;
            int left = (char *)data + length - at;
            size_t step = left;
            int is_left_out = 0;
            if (NLMSG_OK(message, left)) {
                if (NLMSG_ALIGN(message->nlmsg_len) < step)
                    step = NLMSG_ALIGN(message->nlmsg_len);
                struct pending *one = find_pending(fd, message->nlmsg_seq);
                is_left_out = one && change_answer(one, message);
            }
            if (!is_left_out) {
                memmove(to, at, step);
                to += step;
            }
            at += step;
        }
        if (to > (char *)data)
            return to - (char *)data;
    }
}
