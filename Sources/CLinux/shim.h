#pragma once

// Linux calls that Swift's Glibc module leaves out.
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>

// Declared by glibc under _GNU_SOURCE alone, which a module cannot set for the headers of another.
extern int ppoll(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);
extern void *memmem(const void *, size_t, const void *, size_t);
