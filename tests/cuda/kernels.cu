/* Small kernels for the tests of the execution model: right ones, and ones with every mistake it is there to find. */
#include "kernels.h"
#include "kernel.h"

enum { BLOCK = 64 };

/* out[i] = the block's sum of in, through shuffles and shared memory. */
template <class A> static __global__ void sum_kernel(const A *in, A *out, int n)
{
    RA_SHARED(A, part, BLOCK / 32);
    A sum = 0;
    for (int i = (int)threadIdx.x; i < n; i += BLOCK) sum += in[(size_t)blockIdx.x * (size_t)n + (size_t)i];
    for (int d = 16; d; d >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, d);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x == 0) out[blockIdx.x] = part[0] + part[1];
}

void sim_sum(int blocks, const float *in, float *out, int n)
{
    RA_LAUNCH((sum_kernel<float>), dim3((unsigned)blocks), dim3(BLOCK), 0, 0, in, out, n);
}

/* Each lane's result of every shuffle, 8 a thread. */
static __global__ void shuffle_kernel(int *out)
{
    int lane = (int)threadIdx.x % 32, *to = out + threadIdx.x * 8;
    to[0] = __shfl_sync(0xffffffffu, lane, 5);
    to[1] = __shfl_sync(0xffffffffu, lane, 3, 8);
    to[2] = __shfl_up_sync(0xffffffffu, lane, 3);
    to[3] = __shfl_up_sync(0xffffffffu, lane, 3, 16);
    to[4] = __shfl_down_sync(0xffffffffu, lane, 3);
    to[5] = __shfl_down_sync(0xffffffffu, lane, 3, 16);
    to[6] = __shfl_xor_sync(0xffffffffu, lane, 9);
    to[7] = (int)__ballot_sync(0xffffffffu, lane % 3 == 0);
}

void sim_shuffle(int *out)
{
    RA_LAUNCH(shuffle_kernel, dim3(1), dim3(BLOCK), 0, 0, out);
}

/* out[t] = in of the mirrored thread, through dynamic shared memory that is written as float4 and read as float, twice over. */
static __global__ void mirror_kernel(const float *in, float *out)
{
    RA_DYNAMIC_SHARED(float, tile);
    ra_shared_ptr<float> second = tile + BLOCK;
    if (threadIdx.x < BLOCK / 4) ra_shared_cast<float4>(tile, 0)[threadIdx.x] = ((const float4 *)in)[threadIdx.x];
    __syncthreads();
    second[threadIdx.x] = tile[BLOCK - 1 - threadIdx.x];
    __syncwarp();
    float other = second[threadIdx.x ^ 1];
    __syncwarp();
    second[threadIdx.x] += other - other;
    out[threadIdx.x] = second[threadIdx.x];
}

void sim_mirror(size_t shared_bytes, const float *in, float *out)
{
    RA_LAUNCH(mirror_kernel, dim3(1), dim3(BLOCK), shared_bytes, 0, in, out);
}

/* ---- mistakes ---- */

static __global__ void mistake_kernel(sim_mistake mistake, float *global)
{
    RA_SHARED(float, cell, BLOCK);
    int t = (int)threadIdx.x, last = BLOCK - 1;
    switch (mistake) {
    case SIM_READ_BEFORE_BARRIER: /* thread t reads what t + 1 writes */
        cell[t] = 1;
        global[t] = cell[(t + 1) % BLOCK];
        break;
    case SIM_WRITE_AFTER_READ:
        cell[t] = 1;
        __syncthreads();
        global[t] = cell[(t + 1) % BLOCK];
        cell[t] = 2;
        break;
    case SIM_TWO_WRITERS: cell[0] = (float)t; break;
    case SIM_SYNCWARP_ACROSS_WARPS: /* orders a warp, not two */
        cell[t] = 1;
        __syncwarp();
        global[t] = cell[(t + 32) % BLOCK];
        break;
    case SIM_SHUFFLE_AS_BARRIER: /* shuffles order no memory */
        cell[t] = 1;
        global[t] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
        global[t] = cell[t ^ 1];
        break;
    case SIM_UNWRITTEN:
        if (t < last) cell[t] = 1;
        __syncthreads();
        global[t] = cell[t];
        break;
    case SIM_PAST_END: cell[t + 1] = 1; break;
    case SIM_BEFORE_BEGIN: cell[t - 1] = 1; break;
    case SIM_MISALIGNED: ra_shared_cast<float4>(cell, 1)[0] = make_float4(0, 0, 0, 0); break;
    case SIM_DIVERGENT_BARRIER:
        if (t < 32) __syncthreads();
        break;
    case SIM_TWO_BARRIERS:
        if (t < 32) {
            __syncthreads();
        } else {
            __syncthreads();
        }
        break;
    case SIM_DIVERGENT_SHUFFLE:
        if (t % 32 < 16) global[t] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
        break;
    case SIM_PARTIAL_MASK: global[t] = __shfl_xor_sync(0xffffu, 1.0f, 1); break;
    case SIM_GLOBAL_PAST_END: global[1024 + t] = 1; break;
    case SIM_COPY_NOT_WAITED_FOR:
#ifndef __CUDACC__
        cudasim_copy_async(cell + t, global + t, sizeof(float));
        cudasim_copy_async_commit();
#endif
        break;
    }
}

void sim_err(sim_mistake mistake, int threads, size_t shared_bytes, int blocks, float *global)
{
    RA_LAUNCH(mistake_kernel, dim3((unsigned)blocks), dim3((unsigned)threads), shared_bytes, 0, mistake, global);
}

/* Copies of two groups: after the first wait the older one is there, the newer one still rubbish. out: 2 a thread. */
static __global__ void copies_kernel(const float *in, float *out)
{
    RA_SHARED(float, cell, 2 * BLOCK);
#ifndef __CUDACC__
    int t = (int)threadIdx.x;
    for (int i = 0; i < 2; i++) {
        cudasim_copy_async(cell + i * BLOCK + t, in + i * BLOCK + t, sizeof(float));
        cudasim_copy_async_commit();
    }
    cudasim_copy_async_wait(1);
    out[2 * t] = cell[t];
    out[2 * t + 1] = cell[BLOCK + t];
    cudasim_copy_async_wait(0);
    out[2 * t] += cell[BLOCK + t];
#endif
}

void sim_copies(const float *in, float *out)
{
    RA_LAUNCH(copies_kernel, dim3(1), dim3(BLOCK), 0, 0, in, out);
}

/* The order in which threads and blocks come: out[blockIdx * BLOCK + t] = how many came before. */
static __global__ void order_kernel(int *out, int *count)
{
    out[blockIdx.x * BLOCK + threadIdx.x] = (*count)++;
}

void sim_order(int blocks, int *out, int *count)
{
    RA_LAUNCH(order_kernel, dim3((unsigned)blocks), dim3(BLOCK), 0, 0, out, count);
}
