/* Device memory: pages of their own with an inaccessible page behind, so that an access past the end stops at once and says which allocation it
 * ran out of; filled with NaNs; closed to host code by a protection key where the processor has them. */
#include "memory.h"
#include "block.h"
#include "cuda_runtime_api.h"

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <sys/mman.h>
#include <unistd.h>

namespace cudasim
{

struct allocation {
    char *pages;
    size_t mapped, bytes; /* pages without the guard */
};

static std::map<uintptr_t, allocation> &allocations = *new std::map<uintptr_t, allocation>; /* by first address */
static int protection_key = -2; /* not asked for yet; -1: there is none */
static int opened;
enum { ALIGNMENT = 64, CANARY = 0xa5, MOST_FILLED = 64 << 20 };

static size_t page()
{
    static const size_t size = (size_t)sysconf(_SC_PAGESIZE);
    return size;
}

static const std::pair<const uintptr_t, allocation> *allocation_before(const void *address)
{
    auto after = allocations.upper_bound((uintptr_t)address);
    return after == allocations.begin() ? NULL : &*std::prev(after);
}

static struct sigaction before; /* whose turn it is when a fault is not ours */

static void on_fault(int, siginfo_t *info, void *)
{
    uintptr_t at = (uintptr_t)info->si_addr;
    const auto *near = allocation_before(info->si_addr);
    if (near && at < (uintptr_t)near->second.pages + near->second.mapped + page()) {
        long long past = (long long)(at - near->first) - (long long)near->second.bytes;
        protection_key = -1; /* what follows may look at memory */
        if (block.current < 0) {
            fprintf(stderr, "cudasim: host code touches device memory at %p, %lld bytes into an allocation of %zu\n",
                    info->si_addr, (long long)(at - near->first), near->second.bytes);
            abort();
        }
        fail("global memory at %p: %lld bytes past the end of an allocation of %zu bytes", info->si_addr, past,
             near->second.bytes);
    }
    sigaction(SIGSEGV, &before, NULL); /* not ours: the instruction is run again, and faults for whom it would have without us */
}

static void prepare()
{
    if (protection_key != -2) return;
    protection_key = pkey_alloc(0, PKEY_DISABLE_ACCESS);
    static char stack[64 * 1024]; /* a fiber's own may be what is at fault */
    stack_t alternative = {};
    alternative.ss_sp = stack;
    alternative.ss_size = sizeof stack;
    sigaltstack(&alternative, NULL);
}

/* Again and again, as others (cmocka) do the same. */
static void watch_faults()
{
    struct sigaction action = {}, old;
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &old);
    if (!(old.sa_flags & SA_SIGINFO) || old.sa_sigaction != on_fault) before = old;
}

void open_device_memory()
{
    watch_faults();
    if (opened++ == 0 && protection_key >= 0) pkey_set(protection_key, 0);
}

void close_device_memory()
{
    if (--opened == 0 && protection_key >= 0) pkey_set(protection_key, PKEY_DISABLE_ACCESS);
}

bool in_device_memory(const void *memory)
{
    const auto *a = allocation_before(memory);
    return a && (uintptr_t)memory <= a->first + a->second.bytes;
}

void check_device_range(const char *what, const void *memory, size_t bytes)
{
    const auto *a = allocation_before(memory);
    if (a && (uintptr_t)memory + bytes <= a->first + a->second.bytes) return;
    fprintf(stderr, "cudasim: %s: %zu bytes at %p are not within one allocation of device memory\n", what, bytes, memory);
    abort();
}

} // namespace cudasim

using namespace cudasim;

static size_t device_bytes()
{
    const char *megabytes = getenv("CUDASIM_MEMORY_MB");
    return (size_t)(megabytes ? strtoull(megabytes, NULL, 10) : 8192) << 20;
}

static size_t used;

extern "C" cudaError_t cudaMalloc(void **memory, size_t bytes)
{
    prepare();
    watch_faults();
    *memory = NULL;
    if (bytes == 0) return cudaSuccess;
    if (bytes > device_bytes() || used > device_bytes() - bytes) return cudaErrorMemoryAllocation;
    size_t mapped = (bytes + page() - 1) / page() * page();
    char *pages = (char *)mmap(NULL, mapped + page(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) return cudaErrorMemoryAllocation;
    mprotect(pages + mapped, page(), PROT_NONE);
    size_t slack = (mapped - bytes) / ALIGNMENT * ALIGNMENT; /* the end of the allocation lies at the guard, but for alignment */
    memset(pages, CANARY, slack);
    memset(pages + slack, 0xff, std::min(bytes, (size_t)MOST_FILLED));
    memset(pages + slack + bytes, CANARY, mapped - slack - bytes);
    if (protection_key >= 0) pkey_mprotect(pages, mapped, PROT_READ | PROT_WRITE, protection_key);
    used += bytes;
    allocations[(uintptr_t)(pages + slack)] = {pages, mapped, bytes};
    *memory = pages + slack;
    return cudaSuccess;
}

extern "C" cudaError_t cudaFree(void *memory)
{
    if (!memory) return cudaSuccess;
    auto found = allocations.find((uintptr_t)memory);
    if (found == allocations.end()) return cudaErrorInvalidValue;
    const allocation &a = found->second;
    device_memory_opened open;
    for (char *p = a.pages; p < a.pages + a.mapped; p++) {
        if (p == (char *)memory) p += a.bytes;
        if (p < a.pages + a.mapped && (unsigned char)*p != CANARY) {
            fprintf(stderr,
                    "cudasim: somebody wrote %lld bytes from the beginning of an allocation of %zu bytes, outside of it\n",
                    (long long)(p - (char *)memory), a.bytes);
            abort();
        }
    }
    munmap(a.pages, a.mapped + page());
    used -= a.bytes;
    allocations.erase(found);
    return cudaSuccess;
}

extern "C" cudaError_t cudaMemGetInfo(size_t *available, size_t *total)
{
    *total = device_bytes();
    *available = device_bytes() - used;
    return cudaSuccess;
}
