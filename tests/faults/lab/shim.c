/* Stands between a broker and the C library: makes syncs slow or fail on request, and counts.
 *
 * The control file holds six 64-bit numbers and is shared with the harness:
 *   0 calls seen   1 microseconds to stall   2 stalls done
 *   3 errors to return (-1 = for ever)   4 errors returned   5 unused
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static volatile int64_t *control;

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("WEFT_FAULT_CONTROL");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (map != MAP_FAILED) control = map;
}

/* Whether the call must fail. */
static int meddle(void) {
    if (!control) return 0;
    __atomic_add_fetch(&control[0], 1, __ATOMIC_SEQ_CST);
    int64_t stall = __atomic_load_n(&control[1], __ATOMIC_SEQ_CST);
    if (stall > 0) {
        __atomic_add_fetch(&control[2], 1, __ATOMIC_SEQ_CST);
        usleep((useconds_t)stall);
    }
    int64_t errors = __atomic_load_n(&control[3], __ATOMIC_SEQ_CST);
    if (errors == 0) return 0;
    if (errors > 0) __atomic_sub_fetch(&control[3], 1, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&control[4], 1, __ATOMIC_SEQ_CST);
    errno = EIO;
    return 1;
}

int fdatasync(int file) {
    static int (*next)(int);
    if (!next) next = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return meddle() ? -1 : next(file);
}

int fsync(int file) {
    static int (*next)(int);
    if (!next) next = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return meddle() ? -1 : next(file);
}
