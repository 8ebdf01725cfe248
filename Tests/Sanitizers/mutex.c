// Tells the thread sanitizer of Synchronization.Mutex, for `make test-sanitize`, which preloads it.
//
// The quick way through a Mutex is inlined into our code, where the sanitizer sees it. Who has to wait goes through
// libswiftSynchronization, which nobody built for the sanitizer: what one thread wrote under the lock would count as a
// race with the next one that waited for it. In a program without the sanitizer this does nothing.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>

#define SWIFT __attribute__((swiftcall))
#define HANDLE __attribute__((swift_context)) void *handle

extern void __tsan_acquire(void *address) __attribute__((weak));
extern void __tsan_release(void *address) __attribute__((weak));

static const char lock_slow[] = "$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF";
static const char unlock_slow[] = "$s15Synchronization12_MutexHandleV11_unlockSlowyyF";

// _MutexHandle._lockSlow(_: UInt32)
SWIFT void after_waiting(uint32_t thread, HANDLE) __asm__("$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF");
SWIFT void after_waiting(uint32_t thread, HANDLE) {
    SWIFT void (*original)(uint32_t, HANDLE) = dlsym(RTLD_NEXT, lock_slow);
    original(thread, handle);
    if (__tsan_acquire) __tsan_acquire(handle);
}

// _MutexHandle._unlockSlow()
SWIFT void before_waking(HANDLE) __asm__("$s15Synchronization12_MutexHandleV11_unlockSlowyyF");
SWIFT void before_waking(HANDLE) {
    SWIFT void (*original)(HANDLE) = dlsym(RTLD_NEXT, unlock_slow);
    if (__tsan_release) __tsan_release(handle);
    original(handle);
}
