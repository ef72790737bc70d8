/* Launches, barriers and exchanges between the lanes of a warp. The threads of a block are fibers of one host thread: one runs until it waits
 * for others or is made to give way. Errors of a kernel end the program with a message that names kernel, block and thread. */
#ifndef CUDASIM_EXECUTION_H
#define CUDASIM_EXECUTION_H
#include "cuda_runtime_api.h"
#include "types.h"

#include <tuple>
#include <utility>

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
enum { warpSize = 32 };

namespace cudasim
{

enum { WIDEST = 64 }; /* bytes that a lane can show the others at a time */

struct place { /* a line of a kernel */
    const char *file;
    int line;
};

void run(const char *kernel, const void *entry, dim3 grid, dim3 block, size_t shared_bytes, void (*body)(void *), void *context);

template <class... P, class... A>
void launch(const char *name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t, A &&...argument)
{
    std::tuple<P...> values(static_cast<P>(std::forward<A>(argument))...);
    auto body = [&] { std::apply(kernel, values); };
    run(
        name, (const void *)kernel, grid, block, shared_bytes, [](void *b) { (*static_cast<decltype(body) *>(b))(); }, &body);
}

void barrier(place at);
void warp_barrier(const char *what, unsigned mask, bool orders_memory, place at);
int lane();
/* Where this thread writes for its warp, and the reader of what another lane of the warp wrote: valid until the lane's next exchange. */
void *show(size_t bytes);
const void *shown(int by_lane);

[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

template <class T> T exchange(const char *what, unsigned mask, T mine, int from, place at)
{
    static_assert(sizeof(T) <= WIDEST, "too wide for one exchange");
    memcpy(show(sizeof(T)), &mine, sizeof(T));
    warp_barrier(what, mask, false, at);
    T theirs;
    memcpy(&theirs, shown(from), sizeof(T));
    return theirs;
}

int shuffle_source(int lane, int width);
int shuffle_up_source(unsigned delta, int width);
int shuffle_down_source(unsigned delta, int width);
int shuffle_xor_source(int mask, int width);

} // namespace cudasim

/* cudaFuncSetAttribute of the real header is a template too, so that a kernel needs no cast. */
template <class... P> static inline cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute attribute, int value)
{
    return cudaFuncSetAttribute((const void *)kernel, attribute, value);
}

#define CUDASIM_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()
static inline void __syncthreads(CUDASIM_HERE)
{
    cudasim::barrier({file, line});
}
static inline void __syncwarp(unsigned mask = 0xffffffffu, CUDASIM_HERE)
{
    cudasim::warp_barrier("__syncwarp", mask, true, {file, line});
}
template <class T> static inline T __shfl_sync(unsigned mask, T value, int source, int width = warpSize, CUDASIM_HERE)
{
    return cudasim::exchange("__shfl_sync", mask, value, cudasim::shuffle_source(source, width), {file, line});
}
template <class T> static inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize, CUDASIM_HERE)
{
    return cudasim::exchange("__shfl_up_sync", mask, value, cudasim::shuffle_up_source(delta, width), {file, line});
}
template <class T> static inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize, CUDASIM_HERE)
{
    return cudasim::exchange("__shfl_down_sync", mask, value, cudasim::shuffle_down_source(delta, width), {file, line});
}
template <class T> static inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = warpSize, CUDASIM_HERE)
{
    return cudasim::exchange("__shfl_xor_sync", mask, value, cudasim::shuffle_xor_source(bits, width), {file, line});
}
static inline unsigned __ballot_sync(unsigned mask, int predicate, CUDASIM_HERE)
{
    *(int *)cudasim::show(sizeof(int)) = predicate != 0;
    cudasim::warp_barrier("__ballot_sync", mask, false, {file, line});
    unsigned bits = 0;
    for (int i = 0; i < warpSize; i++) bits |= (unsigned)*(const int *)cudasim::shown(i) << i;
    return bits;
}
static inline int __any_sync(unsigned mask, int predicate, CUDASIM_HERE)
{
    return __ballot_sync(mask, predicate, file, line) != 0;
}
static inline int __all_sync(unsigned mask, int predicate, CUDASIM_HERE)
{
    return __ballot_sync(mask, predicate, file, line) == 0xffffffffu;
}

/* For emulated warp instructions: every lane shows `bytes` (at most 64) and gets those of all 32 lanes in lane order. Orders no memory. */
static inline void cudasim_warp_exchange(const void *mine, size_t bytes, void *all, CUDASIM_HERE)
{
    if (bytes > cudasim::WIDEST) cudasim::fail("cudasim_warp_exchange of %zu bytes; at most %d", bytes, (int)cudasim::WIDEST);
    memcpy(cudasim::show(bytes), mine, bytes);
    cudasim::warp_barrier("a warp instruction", 0xffffffffu, false, {file, line});
    for (int i = 0; i < warpSize; i++) memcpy((char *)all + (size_t)i * bytes, cudasim::shown(i), bytes);
}
#undef CUDASIM_HERE

#endif
