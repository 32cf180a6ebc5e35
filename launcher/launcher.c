/*
 * What the plugin directory holds under every plugin's name: a static program that has the suite's agent do
 * the call or, where there is none, runs the suite's executable through the loader and the libraries that
 * were installed with it. So the host needs neither Node.js nor a C library of a certain kind or age.
 *
 * The installed tree:
 *
 *     DIR/bridge, DIR/host-local, DIR/cni, ...     hard links to this program
 *     DIR/.cni-plugins-BUILD/cni-plugins           the executable
 *     DIR/.cni-plugins-BUILD/LOADER, lib*.so.*     its loader and libraries
 *
 * The runtime's environment must not be able to make the executable load or write files: variables that
 * Node.js, OpenSSL and the C library obey are set aside for the delegates and programs that it runs, which
 * get everything that the runtime set. The executable gets no arguments, unless it was started as one of the
 * two programs that take some.
 *
 * The agent is asked first. It answers whether it takes the call before it is sent the input, and begins once
 * it has all of the input; until then, whatever goes wrong means that the executable does the call, with the
 * input that was kept for it. After that, nothing is tried twice: if the agent dies, the runtime is told. See
 * agent.h.
 *
 * BUILD and LOADER are set by the build. No memory is allocated.
 */

#define _GNU_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "agent.h"
#include "io.h"

#define PRIVATE_DIRECTORY "/.cni-plugins-" BUILD "/"
/* The beginning of the names of variables that are set aside: see launch.ts. */
#define SET_ASIDE "CNI_FOR_CHILDREN_"

extern char **environ;

enum {
    /* Room for the options of the loader, the arguments of the operators' command, and the final null pointer. */
    MAX_ARGUMENTS = 1024,
    LOADER_ARGUMENTS = 8,
    /* Room for variables that are set aside, in bytes. Variables that do not fit are left out. */
    LONGEST_SET_ASIDE = 1024 * 1024,
};

/* Sets aside variables that would make the executable load or write files of somebody else's choice. */
static void clean_environment(void)
{
    static const char *const forbidden[] = {
        "NODE_", "LD_", "GLIBC_TUNABLES=", "OPENSSL_", "SSL_CERT_", "UV_", "MALLOC_", NULL,
    };
    static char aside[LONGEST_SET_ASIDE];
    const size_t prefix = strlen(SET_ASIDE);
    size_t used = 0;
    char **kept = environ;
    for (char **variable = environ; *variable; variable++) {
        if (!has_prefix(*variable, forbidden)) {
            *kept++ = *variable;
            continue;
        }
        size_t size = strlen(*variable) + 1;
        if (prefix + size > sizeof aside - used)
            continue;
        char *copy = aside + used;
        memcpy(copy, SET_ASIDE, prefix);
        memcpy(copy + prefix, *variable, size);
        used += prefix + size;
        *kept++ = copy;
    }
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

/* What is opened later, such as the agent's socket, must not become a standard stream that the runtime has closed. */
static void open_standard_streams(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

int main(int argc, char **argv)
{
    static char self[PATH_MAX], directory[PATH_MAX];

    open_standard_streams();

    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    char *slash = length > 0 ? memrchr(self, '/', (size_t)length) : NULL;
    if (!slash)
        return fail(INTERNAL, "Cannot find the directory of this plugin. Mount /proc", "/proc/self/exe", strerror(errno));
    memcpy(directory, self, (size_t)(slash - self));

    /* The plugin's name is the one that this was called by, as all names are links to one file. */
    char *called = argc > 0 ? argv[0] : slash;
    char *name = strrchr(called, '/');
    name = name ? name + 1 : called;

    if (!takes_arguments(name, argc, argv)) {
        int code = call_agent(name, self);
        if (code >= 0)
            return code;
    }
    return run_directly(self, directory, name, argc, argv);
}
