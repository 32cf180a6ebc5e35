/*
 * What the parts of the launcher share: texts in buffers, reading and writing in full, and errors in the form
 * that the CNI specification demands. No memory is allocated.
 */

#ifndef IO_H
#define IO_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

enum {
    /* How long the reader of the output may leave a full pipe as it is, in seconds. */
    OUTPUT_TIMEOUT = 15,
    /* The CNI specification's codes for I/O failures and "try again later", libcni's for internal errors. */
    IO_FAILURE = 5,
    TRY_AGAIN = 11,
    INTERNAL = 999,
};

/* A text put together piece by piece; `length` is the size of the buffer once something did not fit. */
struct text {
    char bytes[2 * PATH_MAX];
    size_t length;
};

void append(struct text *text, const char *piece);
void append_number(struct text *text, uintmax_t number);
int is_full(const struct text *text);

/* Whether a text begins with one of some prefixes, the last of which is a null pointer. */
int has_prefix(const char *text, const char *const *prefixes);

/*
 * Waits until a descriptor that a runtime made non-blocking is ready. Returns 0 when it is, else -1.
 *
 * @param milliseconds how long at most; -1 waits without end.
 */
int wait_for(int fd, short events, int milliseconds);

/* Writes everything to standard output, standard error or a file. Returns 0, or -1 with errno. */
int write_all(int fd, const char *bytes, size_t left);

/* Sends everything on a socket, without SIGPIPE. Returns 0, or -1 with errno: EAGAIN once the socket's timeout is over. */
int send_all(int fd, const char *bytes, size_t left);

/*
 * Reads exactly `left` bytes from a socket. Returns 0, or -1 with errno: EAGAIN once the socket's timeout is
 * over, ECONNRESET when the other side has ended.
 */
int read_all(int fd, char *bytes, size_t left);

/*
 * Prints an error in the form that the CNI specification demands, before this process ends. `details` is
 * replaced if it would have to be escaped. Returns the exit code that goes with it.
 */
int fail(int code, const char *message, const char *details, const char *reason);

#endif
