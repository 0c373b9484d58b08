/* A disk that fails or hangs on demand, for tests: loaded into kraken-head by LD_PRELOAD.
 *
 * $KRAKEN_TEST_FAULTS names a folder. Whoever puts a file there makes the database's log fail:
 *   flush-eio   the next flush fails once with EIO; the file is gone then
 *   write-eio   the next write fails once with EIO; the file is gone then
 *   hang        flushes do not return while the file is there
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int is_log(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    const char *name = "kraken.db-wal";
    size_t tail = strlen(name);
    return (size_t)length >= tail && strcmp(path + length - tail, name) == 0;
}

static void fault(char *out, size_t size, const char *name) {
    const char *folder = getenv("KRAKEN_TEST_FAULTS");
    snprintf(out, size, "%s/%s", folder ? folder : "/nonexistent", name);
}

static int fails_once(int fd, const char *name) {
    int before = errno;
    char path[4096];
    fault(path, sizeof path, name);
    /* Whoever takes the file away meets the fault: exactly one. */
    int met = access(path, F_OK) == 0 && is_log(fd) && unlink(path) == 0;
    errno = met ? EIO : before;
    return met;
}

static void hang(int fd) {
    int before = errno;
    char path[4096];
    fault(path, sizeof path, "hang");
    while (access(path, F_OK) == 0 && is_log(fd))
        usleep(2000);
    errno = before;
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real)
        real = dlsym(RTLD_NEXT, "fsync");
    hang(fd);
    return fails_once(fd, "flush-eio") ? -1 : real(fd);
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real)
        real = dlsym(RTLD_NEXT, "fdatasync");
    hang(fd);
    return fails_once(fd, "flush-eio") ? -1 : real(fd);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    static ssize_t (*real)(int, const void *, size_t, off_t);
    if (!real)
        real = dlsym(RTLD_NEXT, "pwrite");
    return fails_once(fd, "write-eio") ? -1 : real(fd, bytes, count, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (!real)
        real = dlsym(RTLD_NEXT, "pwrite64");
    return fails_once(fd, "write-eio") ? -1 : real(fd, bytes, count, at);
}
