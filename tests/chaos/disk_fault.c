/* Preloaded into a node: fsync, fdatasync and reads of blobs do what the file named by
 * CHAOS_DISK_FAULT says. No file: as always. "eio": syncs fail with EIO. "unreadable": every read
 * of a blob file does. A number: syncs succeed, that many milliseconds later. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

/* The first letters of what the file says; empty without one. */
static void look(char text[16]) {
    const char *path = getenv("CHAOS_DISK_FAULT");
    int file, kept = errno;
    memset(text, 0, 16);
    if (path && (file = open(path, O_RDONLY | O_CLOEXEC)) >= 0) {
        if (read(file, text, 15) < 0)
            text[0] = 0;
        close(file);
    }
    errno = kept;
}

static int fault(void) {
    char text[16];
    look(text);
    if (text[0] == 'e') {
        errno = EIO;
        return -1;
    }
    if (text[0] >= '0' && text[0] <= '9')
        usleep((useconds_t)atoi(text) * 1000);
    return 0;
}

static int is_unreadable(int file) {
    char text[16], link[64], path[4096];
    look(text);
    if (text[0] != 'u')
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0)
        return 0;
    path[length] = 0;
    return strstr(path, "/chunks/blobs/") != NULL;
}

ssize_t pread64(int file, void *buffer, size_t size, off64_t offset) {
    static ssize_t (*real)(int, void *, size_t, off64_t);
    if (!real)
        real = (ssize_t(*)(int, void *, size_t, off64_t))dlsym(RTLD_NEXT, "pread64");
    if (is_unreadable(file)) {
        errno = EIO;
        return -1;
    }
    return real(file, buffer, size, offset);
}

ssize_t pread(int file, void *buffer, size_t size, off_t offset) {
    return pread64(file, buffer, size, offset);
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
