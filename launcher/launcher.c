/*
 * What the plugin directory holds under every plugin's name: a static program that runs the suite's executable through the loader and
 * the libraries that were installed with it, so that the host needs neither Node.js nor a C library of a certain kind or age.
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
 * BUILD and LOADER are set by the build. No memory is allocated, and nothing is read but the path of this program.
 */

#define _GNU_SOURCE

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#define PRIVATE_DIRECTORY "/.cni-plugins-" BUILD "/"

extern char **environ;

/* Room for the options of the loader, the arguments of the operators' command, and the final null pointer. */
enum { MAX_ARGUMENTS = 1024, LOADER_ARGUMENTS = 8 };

/* A path that is put together piece by piece; `length` is over PATH_MAX once something did not fit. */
struct path {
    char text[PATH_MAX];
    size_t length;
};

static void append(struct path *path, const char *text)
{
    size_t length = strlen(text);
    if (path->length + length >= sizeof path->text) {
        path->length = sizeof path->text;
        return;
    }
    memcpy(path->text + path->length, text, length + 1);
    path->length += length;
}

static void print(const char *text)
{
    size_t left = strlen(text);
    while (left > 0) {
        ssize_t written = write(STDOUT_FILENO, text, left);
        if (written < 0 && errno != EINTR)
            return;
        if (written > 0) {
            text += written;
            left -= (size_t)written;
        }
    }
}

/* Prints an error as the CNI specification has it, with a path that is left out if it would have to be escaped. */
static int fail(const char *message, const char *path)
{
    print("{\n    \"code\": 999,\n    \"msg\": \"");
    print(message);
    print("\",\n    \"details\": \"");
    int is_plain = 1;
    for (const char *c = path; *c; c++)
        if (*c == '"' || *c == '\\' || (unsigned char)*c < 0x20)
            is_plain = 0;
    print(is_plain ? path : "(a path with special characters)");
    print(": ");
    print(strerror(errno));
    print("\"\n}\n");
    return 1;
}

/* Variables that would make the executable load or write files of somebody else's choice. */
static int is_forbidden(const char *variable)
{
    static const char *const prefixes[] = {"NODE_", "LD_", "GLIBC_TUNABLES=", "OPENSSL_", "SSL_CERT_", "UV_", "MALLOC_"};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (strncmp(variable, prefixes[i], strlen(prefixes[i])) == 0)
            return 1;
    return 0;
}

static void clean_environment(void)
{
    char **kept = environ;
    for (char **variable = environ; *variable; variable++)
        if (!is_forbidden(*variable))
            *kept++ = *variable;
    *kept = NULL;
}

/* Runtimes give plugins no arguments. Only the operators' command and the DHCP daemon take some. */
static int takes_arguments(const char *name, int argc, char **argv)
{
    return strcmp(name, "cni") == 0 || (strcmp(name, "dhcp") == 0 && argc > 1 && strcmp(argv[1], "daemon") == 0);
}

int main(int argc, char **argv)
{
    static struct path self, directory, loader, executable;
    static char *arguments[MAX_ARGUMENTS];

    ssize_t length = readlink("/proc/self/exe", self.text, sizeof self.text - 1);
    if (length <= 0)
        return fail("Cannot find the directory of this plugin. Mount /proc on the host", "/proc/self/exe");
    char *slash = memrchr(self.text, '/', (size_t)length);
    if (!slash)
        return fail("Cannot find the directory of this plugin. Install it again", self.text);

    /* The name is what it was called by, as all names are links of one file. */
    char *name = argc > 0 ? strrchr(argv[0], '/') : NULL;
    name = name ? name + 1 : argc > 0 ? argv[0] : slash + 1;

    char first = slash[0];
    slash[0] = '\0';
    append(&directory, self.text);
    slash[0] = first;
    append(&directory, PRIVATE_DIRECTORY);
    append(&loader, directory.text);
    append(&loader, LOADER);
    append(&executable, directory.text);
    append(&executable, "cni-plugins");
    if (directory.length >= PATH_MAX || loader.length >= PATH_MAX || executable.length >= PATH_MAX) {
        errno = ENAMETOOLONG;
        return fail("The path of this plugin is too long. Install the suite elsewhere", directory.text);
    }

    int count = 0;
    char *const options[LOADER_ARGUMENTS] = {
        loader.text, "--library-path", directory.text, "--argv0", name, executable.text,
        /* Ends the options of Node.js, which would otherwise look for some of its own in what follows. */
        "--", self.text,
    };
    for (int i = 0; i < LOADER_ARGUMENTS; i++)
        arguments[count++] = options[i];
    if (takes_arguments(name, argc, argv)) {
        if (argc + count > MAX_ARGUMENTS) {
            errno = E2BIG;
            return fail("There are too many arguments. Give fewer", self.text);
        }
        for (int i = 1; i < argc; i++)
            arguments[count++] = argv[i];
    }
    arguments[count] = NULL;

    clean_environment();
    execve(loader.text, arguments, environ);
    return fail("The private directory of the CNI plugins is missing or incomplete. Install the suite again", loader.text);
}
