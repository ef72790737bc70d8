/* Elements of type A as floats, one kernel source for both types. */
#ifndef RA_BACKEND_CUDA_ATTENTION_NUMBER_H
#define RA_BACKEND_CUDA_ATTENTION_NUMBER_H
#include "kernel.h"

static __device__ __forceinline__ float as_float(float x)
{
    return x;
}
static __device__ __forceinline__ float as_float(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}
static __device__ __forceinline__ void set_float(float *to, float x)
{
    *to = x;
}
static __device__ __forceinline__ void set_float(__nv_bfloat16 *to, float x)
{
    *to = __float2bfloat16_rn(x);
}

/* Sum and maximum over a warp, in every lane. */
static __device__ __forceinline__ float warp_sum(float x)
{
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}
static __device__ __forceinline__ float warp_maximum(float x)
{
    for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}

#endif
