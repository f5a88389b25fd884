/* Preloaded into a node: fsync and fdatasync do what the file named by CHAOS_DISK_FAULT says.
 * No file: as always. "eio": fail with EIO. A number: succeed, that many milliseconds later. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static int fault(void) {
    const char *path = getenv("CHAOS_DISK_FAULT");
    char text[16] = {0};
    int file, kept = errno;
    if (!path || (file = open(path, O_RDONLY | O_CLOEXEC)) < 0) {
        errno = kept;
        return 0;
    }
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    errno = kept;
    if (length > 0 && text[0] == 'e') {
        errno = EIO;
        return -1;
    }
    if (length > 0)
        usleep((useconds_t)atoi(text) * 1000);
    return 0;
}

int fsync(int file) {
    static int (*real)(int);
    if (!real)
        real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return fault() ? -1 : real(file);
}

int fdatasync(int file) {
    static int (*real)(int);
    if (!real)
        real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return fault() ? -1 : real(file);
}
