#define _GNU_SOURCE

#include "agent.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "io.h"

#ifndef AGENT_SOCKET
#define AGENT_SOCKET "/run/cni/agent.sock"
#endif
/*
 * How long the agent may take to say whether it takes the call, or to accept more of the input, and after
 * that between two signs of life. In seconds. "Times" in agent/protocol.ts explains how these relate to the
 * agent's own timeouts.
 */
#ifndef ACCEPT_TIMEOUT
#define ACCEPT_TIMEOUT 5
#endif
#ifndef ALIVE_TIMEOUT
#define ALIVE_TIMEOUT 15
#endif

extern char **environ;

enum {
    /* The most input that the agent accepts, in bytes; the executable does a call with more. */
    LONGEST_INPUT = 16 * 1024 * 1024,
    /*
     * In bytes. Less than the kernel's buffer for a socket (net.core.wmem_default, 212992), so that sending
     * an offer never waits for the agent: an agent that hangs costs ACCEPT_TIMEOUT only once.
     */
    LONGEST_OFFER = 128 * 1024,
};

static void set_timeout(int fd, int option, time_t seconds)
{
    struct timeval timeout = {.tv_sec = seconds};
    (void)setsockopt(fd, SOL_SOCKET, option, &timeout, sizeof timeout);
}

/* Connects to the agent. Returns a socket, or -1 if there is no agent that root or this user runs. */
static int connect_to_agent(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = AGENT_SOCKET};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    set_timeout(fd, SO_SNDTIMEO, ACCEPT_TIMEOUT);
    set_timeout(fd, SO_RCVTIMEO, ACCEPT_TIMEOUT);
    struct ucred peer;
    socklen_t size = sizeof peer;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && (peer.uid == 0 || peer.uid == geteuid()))
        return fd;
    close(fd);
    return -1;
}

/* Strings that are sent together, each terminated by NUL. */
struct strings {
    char bytes[LONGEST_OFFER];
    size_t length;
};

/* Returns 0, or -1 when there is no room for a string. */
static int add_string(struct strings *strings, const char *text)
{
    size_t size = strlen(text) + 1;
    if (size > sizeof strings->bytes - strings->length)
        return -1;
    memcpy(strings->bytes + strings->length, text, size);
    strings->length += size;
    return 0;
}

static int add_namespace(struct strings *strings, const char *path)
{
    struct stat status;
    if (stat(path, &status) != 0)
        return -1;
    struct text text = {0};
    append_number(&text, status.st_dev);
    append(&text, ":");
    append_number(&text, status.st_ino);
    return add_string(strings, text.bytes);
}

/* Tells the agent whose call this is, and asks whether the agent takes it. Returns 0 if so. */
static int offer_call(int fd, const char *name)
{
    static struct strings offer;
    if (add_string(&offer, BUILD) != 0 || add_namespace(&offer, "/proc/self/ns/mnt") != 0 ||
        add_namespace(&offer, "/proc/self/ns/net") != 0 || add_string(&offer, name) != 0)
        return -1;
    for (char **variable = environ; *variable; variable++)
        if (strchr(*variable, '=') && add_string(&offer, *variable) != 0)
            return -1;
    char verdict;
    return add_string(&offer, "") == 0 && send_all(fd, offer.bytes, offer.length) == 0 && read_all(fd, &verdict, 1) == 0 &&
                   verdict == 'Y'
               ? 0
               : -1;
}

static void put_length(unsigned char bytes[4], size_t length)
{
    for (int i = 0; i < 4; i++)
        bytes[i] = (unsigned char)(length >> 8 * i);
}

/* Some commands need no input, and a caller of these may never end it. */
static int needs_input(void)
{
    const char *command = getenv("CNI_COMMAND");
    return command && *command && strcmp(command, "VERSION") != 0;
}

/*
 * Reads standard input into a file in memory. Returns its descriptor, or -1 with errno; then `taken` tells
 * how many bytes are gone from standard input.
 */
static int keep_input(size_t *taken)
{
    static char piece[65536];
    int kept = memfd_create("cni-input", MFD_CLOEXEC);
    while (kept >= 0) {
        ssize_t got = read(STDIN_FILENO, piece, sizeof piece);
        if (got == 0)
            break;
        if (got < 0 && (errno == EINTR || (errno == EAGAIN && wait_for(STDIN_FILENO, POLLIN, -1) == 0)))
            continue;
        if (got > 0)
            *taken += (size_t)got;
        if (got < 0 || write_all(kept, piece, (size_t)got) != 0) {
            int error = errno;
            close(kept);
            errno = error;
            return -1;
        }
    }
    return kept;
}

/*
 * Sends the input to the agent: pieces, each after its length, then a length of 0. Until that arrives, the
 * agent does nothing.
 */
static int send_input(int fd, int input)
{
    static char piece[65536];
    if (input >= 0 && lseek(input, 0, SEEK_SET) != 0)
        return -1;
    for (;;) {
        ssize_t got = input >= 0 ? read(input, piece, sizeof piece) : 0;
        if (got < 0)
            return -1;
        unsigned char length[4];
        put_length(length, (size_t)got);
        if (send_all(fd, (char *)length, sizeof length) != 0 || send_all(fd, piece, (size_t)got) != 0)
            return -1;
        if (got == 0)
            return 0;
    }
}

/*
 * Passes on the next `left` bytes that the agent sends. What cannot be written is read from the agent all the
 * same, as more may follow, and `is_written` is set to 0. Returns 0, or -1 with errno when the agent is gone.
 */
static int pass_on(int agent, int to, size_t left, int *is_written)
{
    static char piece[65536];
    *is_written = 1;
    while (left > 0) {
        size_t part = left < sizeof piece ? left : sizeof piece;
        if (read_all(agent, piece, part) != 0)
            return -1;
        if (*is_written && write_all(to, piece, part) != 0)
            *is_written = 0;
        left -= part;
    }
    return 0;
}

/* Waits until the agent has undone a call whose result nobody got, upon which it closes the connection. */
static void wait_for_end(int fd)
{
    char ignored[64];
    (void)shutdown(fd, SHUT_WR);
    while (read(fd, ignored, sizeof ignored) > 0)
        ;
}

/*
 * Passes on what the agent answers: 'E' with standard error, 'H' as a sign of life, and finally 'R' with the
 * exit code and standard output. Acknowledges once this has been written, as the agent undoes an ADD whose
 * result nobody got. Returns the exit code, or -1 with errno when the agent has not answered.
 */
static int receive_answer(int fd)
{
    set_timeout(fd, SO_RCVTIMEO, ALIVE_TIMEOUT);
    for (;;) {
        unsigned char frame[6];
        if (read_all(fd, (char *)frame, sizeof frame) != 0)
            return -1;
        size_t length = frame[2] | (size_t)frame[3] << 8 | (size_t)frame[4] << 16 | (size_t)frame[5] << 24;
        int is_written;
        if (frame[0] == 'E') {
            if (pass_on(fd, STDERR_FILENO, length, &is_written) != 0)
                return -1;
        } else if (frame[0] == 'R') {
            if (pass_on(fd, STDOUT_FILENO, length, &is_written) != 0)
                return -1;
            /* An agent that has given up waiting undoes a successful ADD, too. */
            if (!is_written || (send_all(fd, "A", 1) != 0 && frame[1] == 0 && length > 0)) {
                wait_for_end(fd);
                return 1;
            }
            return frame[1];
        } else if (frame[0] != 'H' || length != 0) {
            errno = EPROTO;
            return -1;
        }
    }
}

/* Why there is no answer, and what to do, from the error of receive_answer. */
static const char *describe_loss(int error)
{
    switch (error) {
    case ECONNRESET:
        return "The agent ended, or dropped the call, before it answered. Look for the reason with journalctl --unit cni-agent";
    case EAGAIN:
        return "The agent runs but gives no sign of life. End it with systemctl kill --signal=KILL cni-agent.service";
    default:
        return strerror(error);
    }
}

int call_agent(const char *name, const char *self)
{
    int agent = connect_to_agent();
    if (agent < 0)
        return -1;
    if (offer_call(agent, name) != 0) {
        close(agent);
        return -1;
    }
    int is_needed = needs_input();
    size_t taken = 0;
    int input = is_needed ? keep_input(&taken) : -1;
    if (is_needed && input < 0) {
        int error = errno;
        close(agent);
        /* The executable would get only the rest of the input. */
        return taken > 0 ? fail(IO_FAILURE, "Cannot read the configuration to its end. Try again", self, strerror(error)) : -1;
    }
    if (taken > LONGEST_INPUT || send_input(agent, input) != 0) {
        /* The agent has not got all of it, perhaps as it gave up waiting for a slow runtime, and has done nothing. */
        close(agent);
        if (input >= 0 && (lseek(input, 0, SEEK_SET) != 0 || dup2(input, STDIN_FILENO) < 0))
            return fail(IO_FAILURE, "Cannot hand over the configuration. Try again", self, strerror(errno));
        return -1;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    int code = receive_answer(agent);
    if (code >= 0)
        return code;
    return fail(TRY_AGAIN, "The CNI agent did not finish this call. Try again; what the call has done is undone by DEL", AGENT_SOCKET,
                describe_loss(errno));
}
