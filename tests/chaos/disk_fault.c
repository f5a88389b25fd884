/* Preloaded into a node: its disk does what the file named by CHAOS_DISK_FAULT says.
 *
 *   no file             as always
 *   eio [PART]          fsync and fdatasync fail with EIO
 *   enospc [PART]       writes to files fail with ENOSPC
 *   erofs [PART]        writes to files fail with EROFS: a disk that was remounted read-only
 *   unreadable [PART]   positioned reads fail with EIO
 *   a number            fsync and fdatasync succeed, that many milliseconds later
 *
 * PART: only files whose path contains it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The word that is in force for this file; 0: none is. */
static int fault_of(int file, char word[16]) {
    const char *told = getenv("CHAOS_DISK_FAULT");
    char text[128] = {0}, link[64], path[4096] = {0};
    char part[64] = {0};
    int opened, kept = errno, found = 0;
    if (!told || (opened = open(told, O_RDONLY | O_CLOEXEC)) < 0) {
        errno = kept;
        return 0;
    }
    ssize_t length = read(opened, text, sizeof text - 1);
    close(opened);
    if (length > 0 && sscanf(text, "%15s %63s", word, part) >= 1) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", file);
        found = !part[0] || (readlink(link, path, sizeof path - 1) > 0 && strstr(path, part));
    }
    errno = kept;
    return found;
}

static int sync_fault(int file) {
    char word[16] = {0};
    if (!fault_of(file, word))
        return 0;
    if (!strcmp(word, "eio")) {
        errno = EIO;
        return -1;
    }
    if (word[0] >= '0' && word[0] <= '9')
        usleep((useconds_t)atoi(word) * 1000);
    return 0;
}

static int write_fault(int file) {
    char word[16] = {0};
    struct stat status;
    int kept = errno;
    if (fstat(file, &status) || !S_ISREG(status.st_mode) || !fault_of(file, word)) {
        errno = kept;
        return 0;
    }
    if (strcmp(word, "enospc") && strcmp(word, "erofs"))
        return 0;
    errno = strcmp(word, "enospc") ? EROFS : ENOSPC;
    return -1;
}

static int read_fault(int file) {
    char word[16] = {0};
    if (!fault_of(file, word) || strcmp(word, "unreadable"))
        return 0;
    errno = EIO;
    return -1;
}

#define REAL(name, type)                                                                          \
    static type real;                                                                             \
    if (!real)                                                                                    \
        real = (type)dlsym(RTLD_NEXT, name)

typedef int (*sync_call)(int);
typedef ssize_t (*write_call)(int, const void *, size_t);
typedef ssize_t (*pread_call)(int, void *, size_t, off64_t);
typedef ssize_t (*pwrite_call)(int, const void *, size_t, off64_t);

int fsync(int file) {
    REAL("fsync", sync_call);
    return sync_fault(file) ? -1 : real(file);
}

int fdatasync(int file) {
    REAL("fdatasync", sync_call);
    return sync_fault(file) ? -1 : real(file);
}

ssize_t write(int file, const void *data, size_t length) {
    REAL("write", write_call);
    return write_fault(file) ? -1 : real(file, data, length);
}

ssize_t pread(int file, void *data, size_t length, off_t place) {
    REAL("pread", pread_call);
    return read_fault(file) ? -1 : real(file, data, length, place);
}

ssize_t pread64(int file, void *data, size_t length, off64_t place) {
    REAL("pread64", pread_call);
    return read_fault(file) ? -1 : real(file, data, length, place);
}

ssize_t pwrite(int file, const void *data, size_t length, off_t place) {
    REAL("pwrite", pwrite_call);
    return write_fault(file) ? -1 : real(file, data, length, place);
}

ssize_t pwrite64(int file, const void *data, size_t length, off64_t place) {
    REAL("pwrite64", pwrite_call);
    return write_fault(file) ? -1 : real(file, data, length, place);
}
