/* A clock of one process's own: the machine's, and as many seconds more as the file in CLOCK_OFFSET says now. Preloaded (LD_PRELOAD). Only the time of
 * day is another; what timers and timeouts go by is not. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* Whatever cannot be read ends the process: no test may pass for having seen the true time. The file is replaced and never written to, so each call
 * opens it; nothing is shared by threads. */
static long offset(void)
{
    static const char words[] = "clock.c: CLOCK_OFFSET names no file with a number\n";
    const char *path = getenv("CLOCK_OFFSET");
    char text[32] = "", *end = text;
    int file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = file < 0 ? -1 : read(file, text, sizeof text - 1);
    long seconds = length > 0 ? strtol(text, &end, 10) : 0;
    if (end == text) {
        (void)!write(STDERR_FILENO, words, sizeof words - 1);
        abort();
    }
    close(file);
    return seconds;
}

int clock_gettime(clockid_t id, struct timespec *now)
{
    int failed = (int)syscall(SYS_clock_gettime, id, now);
    if (failed == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
        now->tv_sec += offset();
    }
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    (void)zone;
    struct timespec precise;
    int failed = clock_gettime(CLOCK_REALTIME, &precise);
    if (failed == 0) {
        *now = (struct timeval){.tv_sec = precise.tv_sec, .tv_usec = precise.tv_nsec / 1000};
    }
    return failed;
}

time_t time(time_t *now)
{
    struct timespec precise;
    time_t seconds = clock_gettime(CLOCK_REALTIME, &precise) == 0 ? precise.tv_sec : (time_t)-1;
    if (now != NULL) {
        *now = seconds;
    }
    return seconds;
}
