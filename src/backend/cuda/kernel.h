/* What every kernel file includes. Under nvcc plain CUDA; under a C++ compiler the host execution model (tests/cudasim), where shared memory is
 * watched: this is why it is declared and reached through the names below.
 *
 *   RA_LAUNCH(kernel, grid, block, shared_bytes, stream, arguments...)   a template instance in parentheses; block: whole warps
 *   RA_SHARED(T, name, count)          static shared array, one dimension
 *   RA_DYNAMIC_SHARED(T, name)         the dynamic one, aligned to 16 bytes
 *   ra_shared_ptr<T>                   pointer into shared memory: [], *, + and -, no & and no ->; elements of 2 bytes at least, structs by value
 *   ra_shared_cast<U>(pointer, offset) the same memory as U, from `offset` elements of the pointer's type on; aligned to U
 *
 * Barriers and shuffles are for whole blocks and whole warps (mask 0xffffffff); a __syncwarp alone orders the shared memory of a warp, shuffles do not. */
#ifndef RA_BACKEND_CUDA_KERNEL_H
#define RA_BACKEND_CUDA_KERNEL_H
#include "check.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#define RA_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)           \
    do {                                                                    \
        kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__); \
        RA_CUDA(cudaGetLastError());                                        \
    } while (0)

#define RA_SHARED(T, name, count) __shared__ T name[count]

#define RA_DYNAMIC_SHARED(T, name)                                    \
    extern __shared__ __align__(16) unsigned char ra_dynamic_bytes[]; \
    T *const name = reinterpret_cast<T *>(ra_dynamic_bytes)

template <class T> using ra_shared_ptr = T *;

template <class U, class T> static __device__ __forceinline__ U *ra_shared_cast(T *memory, long long offset)
{
    return reinterpret_cast<U *>(memory + offset);
}
#else
#include "cudasim.h"
#endif

#endif
