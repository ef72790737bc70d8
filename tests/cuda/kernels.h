/* Kernels for the tests of the execution model; pointers are its device memory. */
#ifndef TESTS_CUDA_KERNELS_H
#define TESTS_CUDA_KERNELS_H
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    SIM_READ_BEFORE_BARRIER,
    SIM_WRITE_AFTER_READ,
    SIM_TWO_WRITERS,
    SIM_SYNCWARP_ACROSS_WARPS,
    SIM_SHUFFLE_AS_BARRIER,
    SIM_UNWRITTEN,
    SIM_PAST_END,
    SIM_BEFORE_BEGIN,
    SIM_MISALIGNED,
    SIM_DIVERGENT_BARRIER,
    SIM_TWO_BARRIERS,
    SIM_DIVERGENT_SHUFFLE,
    SIM_PARTIAL_MASK,
    SIM_GLOBAL_PAST_END,
    SIM_COPY_NOT_WAITED_FOR
} sim_mistake;

void sim_sum(int blocks, const float *in, float *out, int n);
void sim_shuffle(int *out);
void sim_mirror(size_t shared_bytes, const float *in, float *out);
void sim_err(sim_mistake mistake, int threads, size_t shared_bytes, int blocks, float *global /* (1024) */);
void sim_copies(const float *in, float *out);
void sim_order(int blocks, int *out, int *count);

#ifdef __cplusplus
}
#endif
#endif
