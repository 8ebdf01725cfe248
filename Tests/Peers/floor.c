// The floor of fan-out: what the kernel charges for handing one message to N sockets, and nothing else. A sender process
// calls send() once a socket and round; a receiver process drains them by epoll. `make bench` runs it beside Martlet.
//
//   cc -O2 -Wall -Wextra -o floor floor.c && ./floor MEMBERS BYTES SECONDS INFLIGHT
//
// A round starts when fewer than INFLIGHT rounds are unread. Prints one line of JSON; CPU is the sender's alone.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct shared {
    _Atomic uint64_t bytes_read;
    _Atomic int stop;
};

static void require(int holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double clock_seconds(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void receive(struct shared *shared, const struct sockaddr_in *address, int members) {
    static char buffer[1 << 17];
    struct epoll_event events[1024];
    int poll = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < members; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        require(fd >= 0 && connect(fd, (const void *)address, sizeof *address) == 0, "connect");
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        require(epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl");
    }
    while (!atomic_load(&shared->stop)) {
        uint64_t burst = 0;
        int ready = epoll_wait(poll, events, 1024, 20);
        for (int i = 0; i < ready; i++) {
            ssize_t got = recv(events[i].data.fd, buffer, sizeof buffer, MSG_DONTWAIT);
            if (got > 0) burst += (uint64_t)got;
        }
        if (burst) atomic_fetch_add(&shared->bytes_read, burst);
    }
    _exit(0);
}

int main(int count, char **arguments) {
    int members = count > 1 ? atoi(arguments[1]) : 1000;
    int bytes = count > 2 ? atoi(arguments[2]) : 150;
    double seconds = count > 3 ? atof(arguments[3]) : 5;
    int in_flight = count > 4 ? atoi(arguments[4]) : 1;
    if (members < 1 || members > 100000 || bytes < 1 || bytes > 60000 || seconds <= 0 || seconds > 600 || in_flight < 1) {
        fprintf(stderr, "usage: floor MEMBERS BYTES SECONDS INFLIGHT\n");
        return 2;
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);

    struct shared *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    require(shared != MAP_FAILED, "mmap");
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    require(bind(listener, (void *)&address, sizeof address) == 0 && listen(listener, 4096) == 0, "listen");
    getsockname(listener, (void *)&address, &length);

    pid_t child = fork();
    require(child >= 0, "fork");
    if (child == 0) receive(shared, &address, members);

    int *fds = calloc((size_t)members, sizeof *fds);
    char *message = malloc((size_t)bytes);
    require(fds && message, "memory");
    memset(message, 'x', (size_t)bytes);
    for (int i = 0; i < members; i++) {
        int one = 1;
        fds[i] = accept(listener, NULL, NULL);
        require(fds[i] >= 0, "accept");
        setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }

    uint64_t round_bytes = (uint64_t)members * (uint64_t)bytes, rounds = 0;
    double begin = clock_seconds(CLOCK_MONOTONIC), cpu = clock_seconds(CLOCK_PROCESS_CPUTIME_ID), now = begin;
    while ((now = clock_seconds(CLOCK_MONOTONIC)) - begin < seconds) {
        if (rounds * round_bytes - atomic_load(&shared->bytes_read) > (uint64_t)(in_flight - 1) * round_bytes) {
            usleep(50);
            continue;
        }
        for (int i = 0; i < members; i++) {
            // A full socket buffer is the receiver's delay: wait for it, so that every byte is sent.
            for (size_t sent = 0; sent < (size_t)bytes;) {
                ssize_t n = send(fds[i], message + sent, (size_t)bytes - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
                if (n > 0) {
                    sent += (size_t)n;
                } else {
                    require(errno == EAGAIN || errno == EINTR, "send");
                    usleep(100);
                }
            }
        }
        rounds++;
    }
    double wall = now - begin, used = clock_seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    atomic_store(&shared->stop, 1);
    waitpid(child, NULL, 0);
    double sends = (double)rounds * members;
    printf("{\"members\":%d,\"bytes\":%d,\"in_flight\":%d,\"seconds\":%.2f,\"sends\":%.0f,\"sends_per_second\":%.0f,"
           "\"cpu_us_per_send\":%.4f}\n",
           members, bytes, in_flight, wall, sends, sends / wall, used * 1e6 / sends);
    return 0;
}
