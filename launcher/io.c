#define _GNU_SOURCE

#include "io.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void append(struct text *text, const char *piece)
{
    size_t length = strlen(piece);
    if (text->length + length >= sizeof text->bytes) {
        text->length = sizeof text->bytes;
        return;
    }
    memcpy(text->bytes + text->length, piece, length + 1);
    text->length += length;
}

void append_number(struct text *text, uintmax_t number)
{
    char digits[24] = {0};
    size_t at = sizeof digits - 1;
    do
        digits[--at] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    append(text, digits + at);
}

int is_full(const struct text *text)
{
    return text->length >= sizeof text->bytes;
}

int has_prefix(const char *text, const char *const *prefixes)
{
    for (; *prefixes; prefixes++)
        if (strncmp(text, *prefixes, strlen(*prefixes)) == 0)
            return 1;
    return 0;
}

int wait_for(int fd, short events, int milliseconds)
{
    struct pollfd descriptor = {.fd = fd, .events = events};
    return poll(&descriptor, 1, milliseconds) > 0 ? 0 : -1;
}

int write_all(int fd, const char *bytes, size_t left)
{
    while (left > 0) {
        ssize_t written = write(fd, bytes, left);
        if (written < 0 && errno == EAGAIN && wait_for(fd, POLLOUT, OUTPUT_TIMEOUT * 1000) == 0)
            continue;
        if (written < 0 && errno != EINTR)
            return -1;
        if (written > 0) {
            bytes += written;
            left -= (size_t)written;
        }
    }
    return 0;
}

int send_all(int fd, const char *bytes, size_t left)
{
    while (left > 0) {
        ssize_t sent = send(fd, bytes, left, MSG_NOSIGNAL);
        if (sent < 0 && errno != EINTR)
            return -1;
        if (sent > 0) {
            bytes += sent;
            left -= (size_t)sent;
        }
    }
    return 0;
}

int read_all(int fd, char *bytes, size_t left)
{
    while (left > 0) {
        ssize_t got = read(fd, bytes, left);
        if (got == 0)
            errno = ECONNRESET;
        if (got == 0 || (got < 0 && errno != EINTR))
            return -1;
        if (got > 0) {
            bytes += got;
            left -= (size_t)got;
        }
    }
    return 0;
}

static void print(const char *text)
{
    (void)write_all(STDOUT_FILENO, text, strlen(text));
}

int fail(int code, const char *message, const char *details, const char *reason)
{
    /* If nobody reads the error, the exit code still reports it. */
    (void)signal(SIGPIPE, SIG_IGN);
    struct text number = {0};
    append_number(&number, (uintmax_t)code);
    print("{\n    \"code\": ");
    print(number.bytes);
    print(",\n    \"msg\": \"");
    print(message);
    print("\",\n    \"details\": \"");
    int is_plain = 1;
    for (const char *c = details; *c; c++)
        if (*c == '"' || *c == '\\' || (unsigned char)*c < 0x20)
            is_plain = 0;
    print(is_plain ? details : "(a path with special characters)");
    print(": ");
    print(reason);
    print("\"\n}\n");
    return 1;
}
