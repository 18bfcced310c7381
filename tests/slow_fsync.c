/* Preloaded into the daemon: each fsync takes at least 50 ms, and as long as the file $SLOW_FSYNC.hold exists.
   The file $SLOW_FSYNC gets a byte at the beginning of each ("(") and one at its end (")"). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void note(const char *path, const char *mark) {
    int log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0 || write(log, mark, 1) != 1)
        abort();
    close(log);
}

static int sync_slowly(long number, int fd) {
    const char *path = getenv("SLOW_FSYNC");
    struct timespec delay = {0, 50 * 1000 * 1000};
    char hold[256];
    int result;

    if (!path || snprintf(hold, sizeof hold, "%s.hold", path) >= (int)sizeof hold)
        abort();
    note(path, "(");
    do
        nanosleep(&delay, NULL);
    while (access(hold, F_OK) == 0);
    result = (int)syscall(number, fd);
    note(path, ")");
    return result;
}

int fsync(int fd) { return sync_slowly(SYS_fsync, fd); }
int fdatasync(int fd) { return sync_slowly(SYS_fdatasync, fd); }
