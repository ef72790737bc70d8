/* The host execution model of the CUDA that src/backend/cuda uses, for compiling its .cu files with a C++ compiler: what stands in kernel.h
 * where nvcc does not compile. See doc/design.md. */
#ifndef CUDASIM_H
#define CUDASIM_H
#include "cuda_bf16.h"
#include "execution.h"
#include "shared.h"
#include "types.h"

#define RA_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
    cudasim::launch(#kernel, kernel, grid, block, shared_bytes, stream, __VA_ARGS__)

#define RA_SHARED(T, name, count)                                              \
    static cudasim::storage name##_storage(#name, sizeof(T), (size_t)(count)); \
    const ra_shared_ptr<T> name(name##_storage.enter(#name, sizeof(T)), 0)

#define RA_DYNAMIC_SHARED(T, name) const ra_shared_ptr<T> name(cudasim::dynamic_shared.enter(#name, sizeof(T)), 0)

#endif
