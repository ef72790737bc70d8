/* Scheduling: blocks one after the other, the threads of a block as fibers. With CUDASIM_SEED=0 everything goes in ascending order and a thread
 * runs until it must wait; with another seed (1 unless set) blocks and threads go in random order and threads are interrupted at random accesses to
 * shared memory. */
#include "block.h"
#include "shared.h"

#include <boost/context/detail/fcontext.hpp>
#include <boost/context/protected_fixedsize_stack.hpp>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <numeric>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace cudasim
{

block_state block;
const char *kernel_name;
unsigned launch_number;
size_t shared_limit, shared_used;
long until_switch;
uint64_t stamp, first_stamp;

static void (*kernel_body)(void *);
static void *kernel_context;
using boost::context::detail::fcontext_t;
using boost::context::detail::jump_fcontext;
using boost::context::detail::transfer_t;

struct worker { /* a fiber: where it goes on */
    fcontext_t context;
};
static worker host_thread, *running = &host_thread;
static std::vector<worker *> &all_workers = *new std::vector<worker *>; /* never destroyed: fibers cannot be unwound after main */
static std::vector<worker *> &idle = *new std::vector<worker *>;
static uint64_t random_state;
#if defined __SANITIZE_ADDRESS__
enum { STACK = 512 * 1024 };
#else
enum { STACK = 128 * 1024 };
#endif
enum { LONGEST_RUN = 512 }; /* accesses to shared memory between two interruptions, at most */

static uint64_t seed()
{
    static const uint64_t value = getenv("CUDASIM_SEED") ? strtoull(getenv("CUDASIM_SEED"), NULL, 10) : 1;
    return value;
}

bool seeded()
{
    return seed() != 0;
}

/* SplitMix64 */
uint64_t draw(uint64_t below)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return ((z ^ z >> 31) >> 32) * below >> 32; /* below is less than 2^32 */
}

static void arm_switch()
{
    until_switch = seeded() ? 1 + (long)draw(LONGEST_RUN) : 0x7fffffffffffffffL;
}

void fail(const char *format, ...)
{
    fflush(stdout);
    fprintf(stderr, "cudasim: kernel %s, block (%u, %u, %u)", kernel_name ? kernel_name : "(none)", blockIdx.x, blockIdx.y,
            blockIdx.z);
    if (block.current >= 0) {
        uint3 at = block.threads[block.current].index;
        fprintf(stderr, ", thread (%u, %u, %u)", at.x, at.y, at.z);
    }
    fputs(": ", stderr);
    va_list list;
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fputs("\n", stderr);
    abort();
}

static void set_stamp()
{
    stamp = (uint64_t)block.interval << STAMP_INTERVAL |
            (uint64_t)block.warps[block.current / WARP].interval << STAMP_WARP_INTERVAL | (uint64_t)block.current << STAMP_THREAD;
}

static int make_current(int t)
{
    block.current = t;
    threadIdx = block.threads[t].index;
    set_stamp();
    return t;
}

static void make_ready(int t)
{
    block.threads[t].state = RUNS;
    block.ready[block.ready_count++] = t;
}

/* Threads without a seed leave in the order in which they became ready: `ready` is then a list in descending order, read from its end. */
static int choose_ready()
{
    return seeded() ? (int)draw((uint64_t)block.ready_count) : block.ready_count - 1;
}

static int take_ready(int i)
{
    int t = block.ready[i];
    block.ready[i] = block.ready[--block.ready_count];
    return t;
}

/* Everything that has a stack hands over to the next one itself; the one left writes down where the other goes on. */
static void switch_to(worker *to)
{
    worker *from = running;
    running = to;
    transfer_t t = jump_fcontext(to->context, from);
    static_cast<worker *>(t.data)->context = t.fctx;
}

static worker *idle_worker();

/* On to another thread that is ready, or back to the host thread where there is none. */
static void run_next()
{
    if (!block.ready_count) {
        switch_to(&host_thread);
        return;
    }
    thread &next = block.threads[make_current(take_ready(choose_ready()))];
    if (!next.on) next.on = idle_worker();
    if (next.on != running) switch_to(next.on);
}

static void suspend()
{
    int self = block.current;
    run_next();
    make_current(self);
}

void give_way()
{
    arm_switch();
    make_ready(block.current);
    suspend();
}

static void end_thread()
{
    thread &t = block.threads[block.current];
    if (!t.copies.empty()) fail("ends while %zu of its asynchronous copies are under way", t.copies.size());
    t.state = ENDED;
    t.on = NULL;
}

/* Runs one thread after the other for as long as the next one has not been started: a kernel without barriers needs no switch. */
static void run_threads(worker *self)
{
    for (;;) {
        kernel_body(kernel_context);
        end_thread();
        if (block.ready_count) {
            int i = choose_ready(), next = block.ready[i];
            if (!block.threads[next].on) {
                take_ready(i);
                block.threads[next].on = self;
                make_current(next);
                continue;
            }
        }
        idle.push_back(self);
        run_next();
    }
}

static void begin_fiber(transfer_t t)
{
    static_cast<worker *>(t.data)->context = t.fctx;
    run_threads(running);
}

static worker *idle_worker()
{
    if (!idle.empty()) {
        worker *w = idle.back();
        idle.pop_back();
        return w;
    }
    boost::context::stack_context stack = boost::context::protected_fixedsize_stack(STACK).allocate();
    size_t offset = all_workers.size() * 7 % 64 * 64; /* or the tops of all stacks would share a few lines of the cache */
    worker *made = new worker{boost::context::detail::make_fcontext((char *)stack.sp - offset, stack.size - offset, begin_fiber)};
    all_workers.push_back(made);
    return made;
}

/* Nobody can go on, and not all have ended: says who waits for what. */
[[noreturn]] static void fail_divergent()
{
    int waits = -1, other = -1;
    for (int i = 0; i < block.count && waits < 0; i++) {
        if (block.threads[i].state != ENDED) waits = i;
    }
    const thread &t = block.threads[waits];
    int from = t.state == AT_WARP ? waits / WARP * WARP : 0, to = t.state == AT_WARP ? from + WARP : block.count;
    for (int i = from; i < to && other < 0; i++) {
        const thread &o = block.threads[i];
        if (o.state == ENDED || o.what != t.what || o.at.line != t.at.line) other = i;
    }
    block.current = waits;
    if (other < 0) fail("waits at %s (%s:%d) for ever", t.what, t.at.file, t.at.line);
    const thread &o = block.threads[other];
    uint3 at = block.threads[other].index;
    if (o.state == ENDED)
        fail("divergent %s (%s:%d): thread (%u, %u, %u) has ended", t.what, t.at.file, t.at.line, at.x, at.y, at.z);
    fail("divergent %s (%s:%d): thread (%u, %u, %u) is at %s (%s:%d)", t.what, t.at.file, t.at.line, at.x, at.y, at.z, o.what,
         o.at.file, o.at.line);
}

static void begin_block(unsigned x, unsigned y, unsigned z)
{
    blockIdx = {x, y, z};
    block.arrived = 0;
    block.first_interval = ++block.interval;
    if (block.interval > 0xfff00000u) fail("more barriers than the race detector counts");
    first_stamp = (uint64_t)block.first_interval << STAMP_INTERVAL;
    for (int w = 0; w < block.count / WARP; w++) block.warps[w].arrived = block.warps[w].interval = 0;
    block.ready_count = 0;
    for (int t = block.count - 1; t >= 0; t--) {
        thread &s = block.threads[t];
        s.on = NULL;
        s.groups = 0;
        s.exchanges = 0;
        make_ready(t);
    }
}

static void run_block()
{
    run_next();
    for (int t = 0; t < block.count; t++) {
        if (block.threads[t].state != ENDED) fail_divergent();
    }
    block.current = -1;
}

/* A step that visits all n blocks: near the golden section of n, without a common divisor. */
static uint64_t stride_through(uint64_t n)
{
    uint64_t step = n < 3 ? 1 : (uint64_t)(0.618 * (double)n) | 1;
    while (std::gcd(step, n) != 1) step++;
    return step;
}

void run_blocks(dim3 grid, dim3 size, void (*body)(void *), void *context)
{
    gridDim = grid;
    blockDim = size;
    block.count = (int)(size.x * size.y * size.z);
    for (unsigned t = 0; t < (unsigned)block.count; t++)
        block.threads[t].index = {t % size.x, t / size.x % size.y, t / size.x / size.y};
    kernel_body = body;
    kernel_context = context;
    random_state = seed() * 0x2545f4914f6cdd1du + launch_number;
    arm_switch();
    uint64_t n = (uint64_t)grid.x * grid.y * grid.z, step = seeded() ? stride_through(n) : 1, b = seeded() ? draw(n) : 0;
    for (uint64_t i = 0; i < n; i++, b = (b + step) % n) {
        begin_block((unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y), (unsigned)(b / grid.x / grid.y));
        run_block();
    }
}

static bool differs(const char *a, const char *b)
{
    return a != b && strcmp(a, b) != 0;
}

void barrier(place at)
{
    thread &t = block.threads[block.current];
    if (block.arrived == 0) block.barrier_at = at;
    t.at = at;
    t.what = "__syncthreads";
    if (at.line != block.barrier_at.line || differs(at.file, block.barrier_at.file)) {
        fail("divergent __syncthreads (%s:%d): other threads are at the one of %s:%d", at.file, at.line, block.barrier_at.file,
             block.barrier_at.line);
    }
    if (++block.arrived < block.count) {
        t.state = AT_BARRIER;
        suspend();
        return;
    }
    block.arrived = 0;
    block.interval++;
    for (int w = 0; w < block.count / WARP; w++) block.warps[w].interval = 0;
    set_stamp();
    for (int i = block.count - 1; i >= 0; i--) {
        if (i != block.current) make_ready(i);
    }
}

void warp_barrier(const char *what, unsigned mask, bool orders_memory, place at)
{
    thread &t = block.threads[block.current];
    warp &w = block.warps[block.current / WARP];
    if (mask != 0xffffffffu) fail("%s (%s:%d) with mask %#x: only whole warps are understood", what, at.file, at.line, mask);
    if (w.arrived == 0) {
        w.at = at;
        w.what = what;
    }
    t.at = at;
    t.what = what;
    if (at.line != w.at.line || differs(what, w.what) || differs(at.file, w.at.file)) {
        fail("divergent %s (%s:%d): other lanes of the warp are at %s (%s:%d)", what, at.file, at.line, w.what, w.at.file,
             w.at.line);
    }
    if (++w.arrived < WARP) {
        t.state = AT_WARP;
        suspend();
        return;
    }
    w.arrived = 0;
    if (orders_memory) {
        if (++w.interval >> (STAMP_INTERVAL - STAMP_WARP_INTERVAL))
            fail("more calls of __syncwarp between two barriers than are counted");
        set_stamp();
    }
    int first = block.current / WARP * WARP;
    for (int i = first + WARP - 1; i >= first; i--) {
        if (i != block.current) make_ready(i);
    }
}

int lane()
{
    return block.current % WARP;
}

/* Two places in turn: a lane that comes to its next exchange must not write over what slower lanes have yet to read. */
void *show(size_t bytes)
{
    (void)bytes;
    thread &t = block.threads[block.current];
    return block.warps[block.current / WARP].shown[++t.exchanges & 1][lane()];
}

const void *shown(int by_lane)
{
    const thread &t = block.threads[block.current];
    return block.warps[block.current / WARP].shown[t.exchanges & 1][by_lane];
}

static void check_width(int width)
{
    if (width < 1 || width > WARP || (width & (width - 1))) fail("a shuffle of width %d: it is a power of two up to 32", width);
}

int shuffle_source(int source, int width)
{
    check_width(width);
    return lane() / width * width + (source & (width - 1));
}

int shuffle_up_source(unsigned delta, int width)
{
    check_width(width);
    return (unsigned)(lane() % width) >= delta ? lane() - (int)delta : lane();
}

int shuffle_down_source(unsigned delta, int width)
{
    check_width(width);
    return (unsigned)(lane() % width) + delta < (unsigned)width ? lane() + (int)delta : lane();
}

int shuffle_xor_source(int mask, int width)
{
    check_width(width);
    int source = lane() ^ mask;
    return source < (lane() / width + 1) * width ? source : lane();
}

} // namespace cudasim
