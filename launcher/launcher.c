/*
 * What the plugin directory holds under every plugin's name: a static program that has the suite's agent do the call, or, where there
 * is none, runs the suite's executable through the loader and the libraries that were installed with it. So the host needs neither
 * Node.js nor a C library of a certain kind or age.
 *
 * The installed tree:
 *
 *     DIR/bridge, DIR/host-local, DIR/cni, ...     hard links of this program
 *     DIR/.cni-plugins-BUILD/cni-plugins           the executable
 *     DIR/.cni-plugins-BUILD/LOADER, lib*.so.*     its loader and libraries
 *
 * The executable gets an environment without the variables by which Node.js, OpenSSL and the C library are told to load or to write
 * files, and no arguments unless it is one of the two programs that take some: nothing but what the CNI specification names decides
 * on what a plugin does.
 *
 * The agent is asked first. It answers whether the call is its own, before it is told what the runtime wants, and begins once it has
 * all of the input; until then, whatever goes wrong means that the executable does the call, with the input kept for it. Afterwards
 * nothing is tried twice: if the agent dies, the runtime is told. See agent/protocol.ts for what is said on the socket.
 *
 * BUILD and LOADER are set by the build. No memory is allocated.
 */

#define _GNU_SOURCE

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef AGENT_SOCKET
#define AGENT_SOCKET "/run/cni/agent.sock"
#endif
/* How long the agent may take to say whether the call is its own. Seconds. */
#ifndef ACCEPT_TIMEOUT
#define ACCEPT_TIMEOUT 2
#endif
#define PRIVATE_DIRECTORY "/.cni-plugins-" BUILD "/"

extern char **environ;

enum {
    /* Room for the options of the loader, the arguments of the operators' command, and the final null pointer. */
    MAX_ARGUMENTS = 1024,
    LOADER_ARGUMENTS = 8,
    /* How long the agent may take between two signs of life. Seconds. */
    ALIVE_TIMEOUT = 15,
    /* What neither the agent nor the executable takes more of, in bytes. */
    LONGEST_INPUT = 16 * 1024 * 1024,
    /* Code of the CNI specification for "try again later". */
    TRY_AGAIN = 11,
    INTERNAL = 999,
};

/* Puts texts together piece by piece; `length` is the size of the buffer once something did not fit. */
struct text {
    char bytes[2 * PATH_MAX];
    size_t length;
};

static void append(struct text *text, const char *piece)
{
    size_t length = strlen(piece);
    if (text->length + length >= sizeof text->bytes) {
        text->length = sizeof text->bytes;
        return;
    }
    memcpy(text->bytes + text->length, piece, length + 1);
    text->length += length;
}

static void append_number(struct text *text, uintmax_t number)
{
    char digits[24] = {0};
    size_t at = sizeof digits - 1;
    do
        digits[--at] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    append(text, digits + at);
}

static int is_full(const struct text *text)
{
    return text->length >= sizeof text->bytes;
}

/* Waits until a descriptor that a runtime made non-blocking is ready. Returns 0 if it is within so many milliseconds, -1 for ever. */
static int wait_for(int fd, short events, int milliseconds)
{
    struct pollfd descriptor = {.fd = fd, .events = events};
    return poll(&descriptor, 1, milliseconds) > 0 ? 0 : -1;
}

/* Writes everything to a file, or to a socket, whose loss is no reason to be killed. Returns 0, or -1 with errno. */
static int write_all(int fd, const char *bytes, size_t left)
{
    while (left > 0) {
        ssize_t written = send(fd, bytes, left, MSG_NOSIGNAL);
        if (written < 0 && errno == ENOTSOCK)
            written = write(fd, bytes, left);
        if (written < 0 && errno == EAGAIN && wait_for(fd, POLLOUT, ALIVE_TIMEOUT * 1000) == 0)
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

/* Reads exactly that much. Returns 0, or -1 when the other side is silent, gone or broken. */
static int read_all(int fd, char *bytes, size_t left)
{
    while (left > 0) {
        ssize_t got = read(fd, bytes, left);
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

/* Prints an error as the CNI specification has it. `details` is left out if it would have to be escaped. */
static int fail(int code, const char *message, const char *details, const char *reason)
{
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

static int has_prefix(const char *text, const char *const *prefixes)
{
    for (; *prefixes; prefixes++)
        if (strncmp(text, *prefixes, strlen(*prefixes)) == 0)
            return 1;
    return 0;
}

/* Removes variables that would make the executable load or write files of somebody else's choice. */
static void clean_environment(void)
{
    static const char *const forbidden[] = {
        "NODE_", "LD_", "GLIBC_TUNABLES=", "OPENSSL_", "SSL_CERT_", "UV_", "MALLOC_", NULL,
    };
    char **kept = environ;
    for (char **variable = environ; *variable; variable++)
        if (!has_prefix(*variable, forbidden))
            *kept++ = *variable;
    *kept = NULL;
}

/* Runtimes give plugins no arguments. Only the operators' command and the DHCP daemon take some. */
static int takes_arguments(const char *name, int argc, char **argv)
{
    return strcmp(name, "cni") == 0 || (strcmp(name, "dhcp") == 0 && argc > 1 && strcmp(argv[1], "daemon") == 0);
}

/* Runs the executable in place of this process. Returns only when it cannot. */
static int run_directly(const char *self, const char *directory, char *name, int argc, char **argv)
{
    static struct text private, loader, executable;
    static char *arguments[MAX_ARGUMENTS];

    append(&private, directory);
    append(&private, PRIVATE_DIRECTORY);
    append(&loader, private.bytes);
    append(&loader, LOADER);
    append(&executable, private.bytes);
    append(&executable, "cni-plugins");
    if (is_full(&private) || is_full(&loader) || is_full(&executable))
        return fail(INTERNAL, "The path of this plugin is too long. Install the suite elsewhere", self, strerror(ENAMETOOLONG));

    char *const options[LOADER_ARGUMENTS] = {
        loader.bytes, "--library-path", private.bytes, "--argv0", name, executable.bytes,
        /* Ends the options of Node.js, which would otherwise look for some of its own in what follows. */
        "--", (char *)self,
    };
    int count = 0;
    for (; count < LOADER_ARGUMENTS; count++)
        arguments[count] = options[count];
    if (takes_arguments(name, argc, argv)) {
        if (argc + count > MAX_ARGUMENTS)
            return fail(INTERNAL, "There are too many arguments. Give fewer", self, strerror(E2BIG));
        for (int i = 1; i < argc; i++)
            arguments[count++] = argv[i];
    }
    arguments[count] = NULL;

    clean_environment();
    execve(loader.bytes, arguments, environ);
    return fail(INTERNAL, "The private directory of the CNI plugins is missing or incomplete. Install the suite again",
                loader.bytes, strerror(errno));
}

static void set_timeout(int fd, int option, time_t seconds)
{
    struct timeval timeout = {.tv_sec = seconds};
    (void)setsockopt(fd, SOL_SOCKET, option, &timeout, sizeof timeout);
}

/* Connects to the agent. Returns a socket, or -1 when there is no agent, or one that is not of this user or of root. */
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

static int append_namespace(struct text *header, const char *path)
{
    struct stat status;
    if (stat(path, &status) != 0)
        return -1;
    append_number(header, status.st_dev);
    append(header, ":");
    append_number(header, status.st_ino);
    header->length++; /* Keeps the final NUL. */
    return 0;
}

static int send_string(int fd, const char *text)
{
    return write_all(fd, text, strlen(text) + 1);
}

/* Tells the agent whose call this is, and asks whether it is the agent's own. Returns 0 if so. */
static int offer_call(int fd, const char *name)
{
    static const char *const passed[] = {"CNI_", "NODENAME=", "PATH=", "TRACEPARENT=", "TRACESTATE=", "BAGGAGE=", NULL};
    struct text header = {0};
    append(&header, BUILD);
    header.length++;
    if (append_namespace(&header, "/proc/self/ns/mnt") != 0 || append_namespace(&header, "/proc/self/ns/net") != 0)
        return -1;
    append(&header, name);
    header.length++;
    if (is_full(&header) || write_all(fd, header.bytes, header.length) != 0)
        return -1;
    for (char **variable = environ; *variable; variable++)
        if (has_prefix(*variable, passed) && send_string(fd, *variable) != 0)
            return -1;
    char verdict;
    return send_string(fd, "") == 0 && read_all(fd, &verdict, 1) == 0 && verdict == 'Y' ? 0 : -1;
}

static void put_length(unsigned char bytes[4], size_t length)
{
    for (int i = 0; i < 4; i++)
        bytes[i] = (unsigned char)(length >> 8 * i);
}

/* Some commands need no input, and whoever asks may not end it. */
static int needs_input(void)
{
    const char *command = getenv("CNI_COMMAND");
    return command && *command && strcmp(command, "VERSION") != 0;
}

/* Reads standard input into a file in memory. Returns its descriptor, or -1. */
static int keep_input(void)
{
    static char piece[65536];
    int kept = memfd_create("cni-input", MFD_CLOEXEC);
    for (size_t size = 0; kept >= 0 && size <= LONGEST_INPUT;) {
        ssize_t got = read(STDIN_FILENO, piece, sizeof piece);
        if (got == 0)
            break;
        if (got < 0 && (errno == EINTR || (errno == EAGAIN && wait_for(STDIN_FILENO, POLLIN, -1) == 0)))
            continue;
        if (got < 0 || write_all(kept, piece, (size_t)got) != 0) {
            close(kept);
            return -1;
        }
        size += (size_t)got;
    }
    return kept;
}

/* Hands the input to the agent: pieces behind their lengths, then a length of 0. Without that, the agent does nothing. */
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
        if (write_all(fd, (char *)length, sizeof length) != 0 || write_all(fd, piece, (size_t)got) != 0)
            return -1;
        if (got == 0)
            return 0;
    }
}

/* Copies that much from the agent to a file descriptor. Returns 0, -1 when the agent is gone, or 1 when nobody reads. */
static int copy(int from, int to, size_t left)
{
    static char piece[65536];
    int is_unread = 0;
    while (left > 0) {
        size_t part = left < sizeof piece ? left : sizeof piece;
        if (read_all(from, piece, part) != 0)
            return -1;
        /* What nobody reads is taken from the agent all the same: more may follow. */
        if (!is_unread && write_all(to, piece, part) != 0)
            is_unread = 1;
        left -= part;
    }
    return is_unread;
}

/* Waits until the agent has undone a call whose result nobody has, which it tells by closing the connection. */
static void wait_for_end(int fd)
{
    char ignored[64];
    (void)shutdown(fd, SHUT_WR);
    while (read(fd, ignored, sizeof ignored) > 0)
        ;
}

/*
 * Passes on what the agent answers: 'E' with standard error, 'H' as a sign of life, and at last 'R' with the exit code and standard
 * output. That this has been written is acknowledged, as the agent undoes an ADD whose result nobody got.
 */
static int receive_answer(int fd)
{
    set_timeout(fd, SO_RCVTIMEO, ALIVE_TIMEOUT);
    for (;;) {
        unsigned char frame[6];
        if (read_all(fd, (char *)frame, sizeof frame) != 0)
            return -1;
        size_t length = frame[2] | (size_t)frame[3] << 8 | (size_t)frame[4] << 16 | (size_t)frame[5] << 24;
        if (frame[0] == 'E') {
            if (copy(fd, STDERR_FILENO, length) < 0)
                return -1;
        } else if (frame[0] == 'R') {
            int outcome = copy(fd, STDOUT_FILENO, length);
            if (outcome < 0)
                return -1;
            /* An agent that has given up meanwhile undoes what the result tells of, too. */
            if (outcome > 0 || (write_all(fd, "A", 1) != 0 && frame[1] == 0 && length > 0)) {
                wait_for_end(fd);
                return 1;
            }
            return frame[1];
        } else if (frame[0] != 'H' || length != 0) {
            return -1;
        }
    }
}

int main(int argc, char **argv)
{
    static char self[PATH_MAX], directory[PATH_MAX];

    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    char *slash = length > 0 ? memrchr(self, '/', (size_t)length) : NULL;
    if (!slash)
        return fail(INTERNAL, "Cannot find the directory of this plugin. Mount /proc", "/proc/self/exe", strerror(errno));
    memcpy(directory, self, (size_t)(slash - self));

    /* The name is what it was called by, as all names are links of one file. */
    char *called = argc > 0 ? argv[0] : slash;
    char *name = strrchr(called, '/');
    name = name ? name + 1 : called;

    if (!takes_arguments(name, argc, argv) && strcmp(name, "cni") != 0) {
        int agent = connect_to_agent();
        if (agent >= 0 && offer_call(agent, name) == 0) {
            int is_needed = needs_input();
            int input = is_needed ? keep_input() : -1;
            if ((is_needed && input < 0) || send_input(agent, input) != 0) {
                /* It gives up waiting for the input of a slow runtime, and has done nothing. */
                close(agent);
                if (input >= 0 && (lseek(input, 0, SEEK_SET) != 0 || dup2(input, STDIN_FILENO) < 0))
                    return fail(INTERNAL, "Cannot hand over the configuration. Try again", self, strerror(errno));
                return run_directly(self, directory, name, argc, argv);
            }
            (void)signal(SIGPIPE, SIG_IGN);
            int code = receive_answer(agent);
            if (code >= 0)
                return code;
            return fail(TRY_AGAIN, "The CNI agent ended in the middle of this call. Try again; what the call has done is undone by DEL",
                        AGENT_SOCKET, errno ? strerror(errno) : "no answer");
        }
        if (agent >= 0)
            close(agent);
    }
    return run_directly(self, directory, name, argc, argv);
}
