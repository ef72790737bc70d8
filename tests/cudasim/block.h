/* The state of the block that runs, shared by the parts of the execution model. */
#ifndef CUDASIM_BLOCK_H
#define CUDASIM_BLOCK_H
#include "execution.h"

#include <vector>

namespace cudasim
{

enum { WARP = warpSize, MOST_THREADS = 1024, MOST_WARPS = MOST_THREADS / WARP };

struct worker;

enum waiting { RUNS, AT_BARRIER, AT_WARP, ENDED };

struct pending_copy {
    struct storage_bytes {
        class storage *in;
        int64_t offset;
    } to;
    unsigned char bytes[16];
    size_t size;
    int group;
};

struct thread {
    worker *on; /* NULL: not yet started, or ended */
    waiting state;
    uint3 index;      /* threadIdx */
    place at;         /* where it waits */
    const char *what; /* what for */
    std::vector<pending_copy> copies;
    int groups; /* of asynchronous copies committed so far */
    unsigned exchanges;
};

struct warp {
    int arrived;
    const char *what;
    place at;
    int interval; /* grows at every __syncwarp since the last barrier */
    alignas(16) unsigned char shown[2][WARP][WIDEST];
};

struct block_state {
    thread threads[MOST_THREADS];
    warp warps[MOST_WARPS];
    int count;   /* of threads */
    int current; /* the thread that runs, or -1 */
    int arrived; /* at the barrier */
    place barrier_at;
    uint32_t interval;       /* grows at every barrier and block, never falls */
    uint32_t first_interval; /* of this block */
    int ready[MOST_THREADS], ready_count;
};

extern block_state block;
extern const char *kernel_name;
extern unsigned launch_number;
extern size_t shared_limit; /* of this launch, static and dynamic together */
extern size_t shared_used;  /* of static arrays in this launch, so far */
uint64_t draw(uint64_t below);
bool seeded();

} // namespace cudasim

#endif
