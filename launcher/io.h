/*
 * What the parts of the launcher share: texts in buffers, reading and writing in full, and errors as the CNI specification has them.
 * No memory is allocated.
 */

#ifndef IO_H
#define IO_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

enum {
    /* How long the agent may take between two signs of life. Seconds. */
    ALIVE_TIMEOUT = 15,
    /* Codes of errors: the CNI specification's for "try again later", and libcni's for internal errors. */
    TRY_AGAIN = 11,
    INTERNAL = 999,
};

/* Puts texts together piece by piece; `length` is the size of the buffer once something did not fit. */
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

/* Writes everything to a file, or to a socket, whose loss is no reason to be killed. Returns 0, or -1 with errno. */
int write_all(int fd, const char *bytes, size_t left);

/* Reads exactly that much. Returns 0, or -1 when the other side is silent, gone or broken. */
int read_all(int fd, char *bytes, size_t left);

/*
 * Prints an error as the CNI specification has it. `details` is left out if it would have to be escaped. Returns the exit code that
 * goes with it.
 */
int fail(int code, const char *message, const char *details, const char *reason);

#endif
