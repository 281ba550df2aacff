/* Faults below a process: loaded with LD_PRELOAD in front of the C library, it makes writes and
 * syncs of regular files fail or take long, and the wall clock jump, as a file says that both sides
 * have mapped. Sockets, pipes and standard streams are left alone. Without a fault it costs a look
 * at that file.
 *
 * What it does not see: files that are mapped into memory, and system calls made past the C
 * library; so the node is built with rustix over it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* The file: numbers of 32 bits, in this order; `shim.rs` writes them. */
struct control {
    volatile uint32_t write_delay_us;
    volatile uint32_t sync_delay_us;
    volatile uint32_t write_errno;
    volatile uint32_t sync_errno;
    /* A call in so many fails; the first that comes does. */
    volatile uint32_t every;
    volatile int32_t clock_seconds;
    /* Told back: faults that were played, and calls that were seen. */
    volatile uint32_t played;
    volatile uint32_t seen;
};

static struct control none;
static struct control *control = &none;
static uint32_t calls;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("TORTURE_FAULTS");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *mapped = mmap(NULL, sizeof none, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped != MAP_FAILED)
        control = mapped;
    close(fd);
}

static void take_long(uint32_t microseconds)
{
    struct timespec rest = { microseconds / 1000000, microseconds % 1000000 * 1000L };
    __sync_fetch_and_add(&control->played, 1);
    while (nanosleep(&rest, &rest) != 0 && errno == EINTR)
        ;
}

static int is_file(int fd, struct stat *found)
{
    return fd > 2 && fstat(fd, found) == 0 && S_ISREG(found->st_mode);
}

/* Whether this call fails, and with what. */
static int fails(uint32_t with)
{
    uint32_t every = control->every ? control->every : 1;
    if (with == 0 || __sync_fetch_and_add(&calls, 1) % every != 0)
        return 0;
    __sync_fetch_and_add(&control->played, 1);
    errno = (int)with;
    return 1;
}

/* A disk without space takes what lies in space that it gave before. */
static int write_fails(int fd, off_t end)
{
    struct stat found;
    __sync_fetch_and_add(&control->seen, 1);
    if (control->write_errno == 0 && control->write_delay_us == 0)
        return 0;
    if (!is_file(fd, &found))
        return 0;
    if (control->write_delay_us)
        take_long(control->write_delay_us);
    if (control->write_errno == ENOSPC && end >= 0 && end <= found.st_size)
        return 0;
    return fails(control->write_errno);
}

static int sync_fails(int fd)
{
    struct stat found;
    __sync_fetch_and_add(&control->seen, 1);
    if (control->sync_errno == 0 && control->sync_delay_us == 0)
        return 0;
    /* Directories are synced too. */
    if (fd <= 2 || fstat(fd, &found) != 0 || S_ISSOCK(found.st_mode))
        return 0;
    if (control->sync_delay_us)
        take_long(control->sync_delay_us);
    return fails(control->sync_errno);
}

static off_t bytes_of(const struct iovec *parts, int count)
{
    off_t bytes = 0;
    for (int part = 0; part < count; part++)
        bytes += (off_t)parts[part].iov_len;
    return bytes;
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) \
        real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *bytes, size_t count)
{
    REAL(write);
    return write_fails(fd, -1) ? -1 : real(fd, bytes, count);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    REAL(writev);
    return write_fails(fd, -1) ? -1 : real(fd, parts, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at)
{
    REAL(pwrite);
    return write_fails(fd, at + (off_t)count) ? -1 : real(fd, bytes, count, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at)
{
    REAL(pwrite64);
    return write_fails(fd, at + (off_t)count) ? -1 : real(fd, bytes, count, at);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at)
{
    REAL(pwritev);
    return write_fails(fd, at + bytes_of(parts, count)) ? -1 : real(fd, parts, count, at);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at)
{
    REAL(pwritev64);
    return write_fails(fd, at + bytes_of(parts, count)) ? -1 : real(fd, parts, count, at);
}

int fsync(int fd)
{
    REAL(fsync);
    return sync_fails(fd) ? -1 : real(fd);
}

int fdatasync(int fd)
{
    REAL(fdatasync);
    return sync_fails(fd) ? -1 : real(fd);
}

int clock_gettime(clockid_t which, struct timespec *now)
{
    REAL(clock_gettime);
    int result = real(which, now);
    if (result == 0 && which == CLOCK_REALTIME)
        now->tv_sec += control->clock_seconds;
    return result;
}
