/* Stands between a process and its files: writes down what reaches them, and has what the test asks for go wrong.
 *
 * Loaded by LD_PRELOAD. Only files beneath SHIM_ROOT matter.
 *
 * SHIM_LOG names a file that gets a record of each operation: a byte for its kind, the inode, a number, the length of what follows
 * (three native 64-bit integers), and that much data.
 *   N inode number      a file was made (1), or made empty (0)
 *   W inode offset      these bytes were written
 *   T inode length      the file was cut or extended
 *   B inode token       a sync of a file begins; the data is "fsync" or "fdatasync"
 *   L inode token       a sync of a folder begins; the data is what it holds: a line each of 'd' or 'f', inode, name
 *   E inode token       that sync has succeeded
 * A write is written down once it is done, a sync before it begins and once it is done: what stands before B is what E makes safe.
 *
 * SHIM_FAULTS names a file. While it is there, its line says what goes wrong: operations, separated by commas (write, truncate, range,
 * fsync, fdatasync; headerN and bodyN for reads of the Nth 512 KiB of a file, of 20 bytes and of more), and EIO, ENOSPC, SHORT (half is written), EINTR (every other call), HANG (for as long as the file is there), or
 * DELAY and a number of seconds. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static ssize_t (*real_pread)(int, void *, size_t, off64_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off64_t);
static ssize_t (*real_write)(int, const void *, size_t);
static int (*real_range)(int, off64_t, off64_t, unsigned);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_truncate)(int, off64_t);
static int (*real_open)(const char *, int, ...);
static const char *root, *faults;
static int record = -1;
static _Atomic unsigned long tokens, calls;

__attribute__((constructor)) static void begin(void) {
    real_pread = dlsym(RTLD_NEXT, "pread64");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_write = dlsym(RTLD_NEXT, "write");
    real_range = dlsym(RTLD_NEXT, "sync_file_range");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_truncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_open = dlsym(RTLD_NEXT, "open64");
    /* Those of processes that write down in the same file are different ones. */
    tokens = (unsigned long)getpid() << 32;
    root = getenv("SHIM_ROOT");
    faults = getenv("SHIM_FAULTS");
    const char *log = getenv("SHIM_LOG");
    if (log) record = real_open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

/* The path of an open file of ours, or 0. */
static int ours(int fd, char *path, size_t size) {
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    if (length < 0 || !root) return 0;
    path[length] = 0;
    return !strncmp(path, root, strlen(root));
}

static unsigned long inode(int fd) {
    struct stat64 stat;
    return fstat64(fd, &stat) ? 0 : stat.st_ino;
}

static void note(char kind, unsigned long file, unsigned long number, const void *data, unsigned long length) {
    if (record < 0) return;
    unsigned long numbers[3] = {file, number, length};
    struct iovec parts[3] = {{&kind, 1}, {numbers, sizeof numbers}, {(void *)data, length}};
    /* Appended whole: the file is opened with O_APPEND. */
    if (writev(record, parts, 3) != (ssize_t)(1 + sizeof numbers + length)) abort();
}

/* What is to go wrong with this operation: an error, or 0; *shorter says that only half is to be written. */
static int fault(const char *operation, int *shorter) {
    char line[128] = {0}, kind[32] = {0};
    int seconds = 0;
    int file = faults ? real_open(faults, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return 0;
    ssize_t length = read(file, line, sizeof line - 1);
    close(file);
    char *space = length > 0 ? strchr(line, ' ') : 0;
    if (!space) return 0;
    *space = 0;
    int named = 0;
    for (char *rest = line, *one; (one = strsep(&rest, ","));) named |= !strcmp(one, operation);
    if (!named || sscanf(space + 1, "%31s %d", kind, &seconds) < 1) return 0;
    if (!strcmp(kind, "EIO")) return EIO;
    if (!strcmp(kind, "ENOSPC")) return ENOSPC;
    if (!strcmp(kind, "EINTR")) return calls++ % 2 ? 0 : EINTR;
    if (!strcmp(kind, "SHORT")) *shorter = 1;
    if (!strcmp(kind, "DELAY")) sleep(seconds);
    if (!strcmp(kind, "HANG"))
        while (!access(faults, F_OK)) usleep(10000);
    return 0;
}

ssize_t pread64(int fd, void *data, size_t size, off64_t offset) {
    char path[4096], operation[32];
    int shorter = 0;
    snprintf(operation, sizeof operation, "%s%ld", size > 20 ? "body" : "header", (long)offset / (512 * 1024));
    int error = ours(fd, path, sizeof path) ? fault(operation, &shorter) : 0;
    if (error) return errno = error, -1;
    return real_pread(fd, data, size, offset);
}
ssize_t pread(int fd, void *data, size_t size, off_t offset) { return pread64(fd, data, size, offset); }

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    char path[4096];
    int shorter = 0, is_ours = ours(fd, path, sizeof path), error = is_ours ? fault("write", &shorter) : 0;
    if (error) return errno = error, -1;
    ssize_t done = real_pwrite(fd, data, shorter ? (size + 1) / 2 : size, offset);
    if (is_ours && done > 0) note('W', inode(fd), offset, data, done);
    return done;
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return pwrite64(fd, data, size, offset); }

ssize_t write(int fd, const void *data, size_t size) {
    char path[4096];
    int shorter = 0, is_ours = fd > 2 && ours(fd, path, sizeof path), error = is_ours ? fault("write", &shorter) : 0;
    if (error) return errno = error, -1;
    ssize_t done = real_write(fd, data, shorter ? (size + 1) / 2 : size);
    if (is_ours && done > 0) note('W', inode(fd), lseek64(fd, 0, SEEK_CUR) - done, data, done);
    return done;
}

int sync_file_range(int fd, off64_t offset, off64_t length, unsigned flags) {
    char path[4096];
    int shorter, error = ours(fd, path, sizeof path) ? fault("range", &shorter) : 0;
    if (error) return errno = error, -1;
    return real_range(fd, offset, length, flags);
}

static void note_folder(int fd, unsigned long token, const char *path) {
    static _Thread_local char text[1 << 16];
    int length = 0;
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder && (entry = readdir(folder));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            length += snprintf(text + length, sizeof text - length, "%c %lu %s\n", entry->d_type == DT_DIR ? 'd' : 'f',
                               (unsigned long)entry->d_ino, entry->d_name);
    if (folder) closedir(folder);
    note('L', inode(fd), token, text, length);
}

static int synced(int fd, const char *operation, int (*real)(int)) {
    char path[4096];
    struct stat64 stat;
    int shorter;
    if (!ours(fd, path, sizeof path) || fstat64(fd, &stat)) return real(fd);
    int error = fault(operation, &shorter);
    if (error) return errno = error, -1;
    unsigned long token = ++tokens;
    if (record >= 0) {
        if (S_ISDIR(stat.st_mode)) note_folder(fd, token, path);
        else note('B', stat.st_ino, token, operation, strlen(operation));
    }
    int done = real(fd);
    if (!done) note('E', stat.st_ino, token, "", 0);
    return done;
}
int fsync(int fd) { return synced(fd, "fsync", real_fsync); }
int fdatasync(int fd) { return synced(fd, "fdatasync", real_fdatasync); }

int ftruncate64(int fd, off64_t length) {
    char path[4096];
    int shorter, is_ours = ours(fd, path, sizeof path), error = is_ours ? fault("truncate", &shorter) : 0;
    if (error) return errno = error, -1;
    int done = real_truncate(fd, length);
    if (is_ours && !done) note('T', inode(fd), length, "", 0);
    return done;
}
int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

int open64(const char *name, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    struct stat64 stat;
    int is_new = (flags & O_CREAT) && stat64(name, &stat);
    int fd = real_open(name, flags, mode);
    char path[4096];
    if (fd >= 0 && record >= 0 && (is_new || (flags & O_TRUNC)) && ours(fd, path, sizeof path)) note('N', inode(fd), is_new != 0, "", 0);
    return fd;
}
