/* Tensor cores, a warp at a time: products of 16 x 16 by 16 x 8 in bf16 with sums in float, the loads of their operands from shared memory, and copies
 * from global to shared memory that run beside them. PTX of sm_80; emulated lane by lane on the host from the layouts in the PTX ISA ("Matrix
 * Fragments for mma.m16n8k16", "ldmatrix"). With g = lane / 4 and t = lane % 4 a lane holds
 *   A (16 x 16)  a[0]: row g, columns 2t, 2t + 1;  a[1]: row g + 8;  a[2]: row g, columns + 8;  a[3]: both
 *   B (16 x 8)   b0: rows 2t, 2t + 1, column g;  b1: rows + 8
 *   C (16 x 8)   c[0], c[1]: row g, columns 2t, 2t + 1;  c[2], c[3]: row g + 8
 * and so two neighbouring C, rounded, are an A: what a product gives goes into the next without leaving the registers. */
#ifndef RA_BACKEND_CUDA_MMA_H
#define RA_BACKEND_CUDA_MMA_H
#include "kernel.h"

#include <stdint.h>
#include <string.h>

/* x in the low half. */
static __device__ __forceinline__ uint32_t mma_pack(float x, float y)
{
    __nv_bfloat162 pair = __floats2bfloat162_rn(x, y);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}

/* This thread's number, in a way that keeps the compiler from making addresses of it once and for all: in a loop they would fill the registers. */
static __device__ __forceinline__ int mma_thread()
{
    int thread = threadIdx.x;
#ifdef __CUDACC__
    asm volatile("" : "+r"(thread));
#endif
    return thread;
}

static __device__ __forceinline__ int mma_lane()
{
    return mma_thread() % 32;
}

/* 2^x, to two units in the last place; a result below the least normal number is 0. */
static __device__ __forceinline__ float mma_exp2(float x)
{
#ifdef __CUDACC__
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return exp2f(x);
#endif
}

/* Four 8 x 8 matrices: the lanes 8 i .. 8 i + 7 give the addresses of the rows of matrix i, 16 bytes each, aligned. Of matrix i a lane gets into
 * r[i] row g, columns 2t and 2t + 1. */
static __device__ __forceinline__ void mma_load(uint32_t (&r)[4], ra_shared_ptr<__nv_bfloat16> row)
{
#ifdef __CUDACC__
    uint32_t address = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address));
#else
    uint4 mine = ra_shared_cast<uint4>(row, 0)[0];
    uint32_t all[32][4];
    cudasim_warp_exchange(&mine, sizeof mine, all);
    int lane = threadIdx.x % 32;
    for (int i = 0; i < 4; i++) r[i] = all[8 * i + lane / 4][lane % 4];
#endif
}

/* The same, transposed: a lane gets rows 2t and 2t + 1 of column g. */
static __device__ __forceinline__ void mma_load_transposed(uint32_t (&r)[4], ra_shared_ptr<__nv_bfloat16> row)
{
#ifdef __CUDACC__
    uint32_t address = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address));
#else
    uint4 mine = ra_shared_cast<uint4>(row, 0)[0];
    uint16_t all[32][8];
    cudasim_warp_exchange(&mine, sizeof mine, all);
    int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; i++) r[i] = all[8 * i + 2 * t][g] | (uint32_t)all[8 * i + 2 * t + 1][g] << 16;
#endif
}

/* C += A B */
static __device__ __forceinline__ void mma_multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
#ifdef __CUDACC__
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    const uint32_t mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
    uint32_t all[32][6];
    cudasim_warp_exchange(mine, sizeof mine, all);
    int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    auto half = [](uint32_t pair, int odd) { return __uint_as_float(odd ? pair & 0xffff0000u : pair << 16); };
    for (int i = 0; i < 4; i++) {
        int high_row = i / 2, column = 2 * t + i % 2;
        float sum = c[i];
        for (int k = 0; k < 16; k++) {
            int owner = k % 8 / 2, high_k = k / 8;
            sum += half(all[4 * g + owner][high_row + 2 * high_k], k % 2) * half(all[4 * column + owner][4 + high_k], k % 2);
        }
        c[i] = sum;
    }
#endif
}

/* 16 bytes, aligned on both sides, or 16 zeros where not `valid`; there once the thread has waited for its group and the block has met. */
static __device__ __forceinline__ void mma_copy(ra_shared_ptr<__nv_bfloat16> to, const __nv_bfloat16 *from, bool valid)
{
#ifdef __CUDACC__
    uint32_t address = (uint32_t)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(valid ? 16 : 0) : "memory");
#else
    static const uint4 zeros = {0, 0, 0, 0};
    cudasim_copy_async(to, valid ? (const void *)from : &zeros, 16);
#endif
}

/* Ends a group of copies. */
static __device__ __forceinline__ void mma_copy_commit()
{
#ifdef __CUDACC__
    asm volatile("cp.async.commit_group;" ::: "memory");
#else
    cudasim_copy_async_commit();
#endif
}

/* Waits for all groups of this thread. */
static __device__ __forceinline__ void mma_copy_wait()
{
#ifdef __CUDACC__
    asm volatile("cp.async.wait_group 0;" ::: "memory");
#else
    cudasim_copy_async_wait(0);
#endif
}

/* ---- tiles in shared memory: rows of D bf16, a row's 16-byte chunks exchanged by its number so that no eight rows of a load share a bank ---- */

template <int D> static __device__ __forceinline__ int tile_place(int row, int chunk)
{
    return row * D + ((chunk ^ (row & 7)) << 3);
}

/* Rows [first, first + ROWS) of a matrix into a tile, zeros from row `end` on; a block of THREADS threads. */
template <int D, int ROWS, int THREADS>
static __device__ __forceinline__ void tile_fetch(ra_shared_ptr<__nv_bfloat16> tile, const __nv_bfloat16 *matrix, int64_t stride,
                                                  int first, int end)
{
    enum { CHUNKS = D / 8, STEP = THREADS / CHUNKS };
    static_assert(THREADS % CHUNKS == 0 && ROWS % STEP == 0, "every thread copies one chunk of each STEP-th row");
    int thread = mma_thread(), chunk = thread % CHUNKS, row = thread / CHUNKS;
    const __nv_bfloat16 *from = matrix + (int64_t)(first + row) * stride + chunk * 8;
#pragma unroll 1 /* unrolled, the addresses take registers that the sums need */
    for (; row < ROWS; row += STEP, from += STEP * stride) {
        bool valid = first + row < end;
        mma_copy(tile + tile_place<D>(row, chunk), valid ? from : matrix, valid);
    }
}

/* c += X Y^T, X: STRIPS x 16 rows of one tile, Y: COLUMNS rows of another, both D wide. */
template <int D, int STRIPS, int COLUMNS>
static __device__ __forceinline__ void tile_product_rows(float (&c)[STRIPS][COLUMNS / 8][4], ra_shared_ptr<__nv_bfloat16> x,
                                                         ra_shared_ptr<__nv_bfloat16> y)
{
    int lane = mma_lane(), matrix = lane / 8, row = lane % 8;
#pragma unroll 4 /* more of them at a time cost registers */
    for (int k = 0; k < D / 16; k++) {
        uint32_t a[STRIPS][4];
#pragma unroll
        for (int s = 0; s < STRIPS; s++) mma_load(a[s], x + tile_place<D>(16 * s + 8 * (matrix % 2) + row, 2 * k + matrix / 2));
#pragma unroll
        for (int n = 0; n < COLUMNS / 16; n++) {
            uint32_t b[4]; /* two B: rows of Y are its columns */
            mma_load(b, y + tile_place<D>(16 * n + 8 * (matrix / 2) + row, 2 * k + matrix % 2));
#pragma unroll
            for (int s = 0; s < STRIPS; s++) {
                mma_multiply(c[s][2 * n], a[s], b[0], b[1]);
                mma_multiply(c[s][2 * n + 1], a[s], b[2], b[3]);
            }
        }
    }
}

/* A strip that a product left in registers, rounded to be the left side of the next. */
template <int COLUMNS>
static __device__ __forceinline__ void tile_round(uint32_t (&a)[COLUMNS / 16][4], const float (&c)[COLUMNS / 8][4])
{
#pragma unroll
    for (int k = 0; k < COLUMNS / 16; k++) {
#pragma unroll
        for (int i = 0; i < 4; i++) a[k][i] = mma_pack(c[2 * k + i / 2][2 * (i % 2)], c[2 * k + i / 2][2 * (i % 2) + 1]);
    }
}

/* c += P Y, P: STRIPS x 16 rows in registers; Y: COLUMNS rows of a tile D wide. */
template <int D, int STRIPS, int COLUMNS>
static __device__ __forceinline__ void
tile_product_add(float (&c)[STRIPS][D / 8][4], const uint32_t (&p)[STRIPS][COLUMNS / 16][4], ra_shared_ptr<__nv_bfloat16> y)
{
    int lane = mma_lane(), matrix = lane / 8, row = lane % 8;
#pragma unroll
    for (int k = 0; k < COLUMNS / 16; k++) {
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            uint32_t b[4];
            mma_load_transposed(b, y + tile_place<D>(16 * k + 8 * (matrix % 2) + row, 2 * n + matrix / 2));
#pragma unroll
            for (int s = 0; s < STRIPS; s++) {
                mma_multiply(c[s][2 * n], p[s][k], b[0], b[1]);
                mma_multiply(c[s][2 * n + 1], p[s][k], b[2], b[3]);
            }
        }
    }
}

/* The first `rows` rows of a warp's strip, factor[0] times those of g and factor[1] times those of g + 8, to a matrix, through 16 rows of shared memory
 * that are the warp's own and of which nothing is read any more. */
template <int D>
static __device__ __forceinline__ void tile_store(const float (&c)[D / 8][4], const float (&factor)[2],
                                                  ra_shared_ptr<__nv_bfloat16> tile, __nv_bfloat16 *matrix, int64_t stride,
                                                  int rows)
{
    int lane = mma_lane(), g = lane / 4, t = lane % 4;
    __syncwarp();
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
#pragma unroll
        for (int high = 0; high < 2; high++) {
            uint32_t pair = mma_pack(c[n][2 * high] * factor[high], c[n][2 * high + 1] * factor[high]);
            ra_shared_cast<uint32_t>(tile, tile_place<D>(g + 8 * high, n) + 2 * t)[0] = pair;
        }
    }
    __syncwarp();
#pragma unroll
    for (int i = lane; i < 16 * D / 8; i += 32) {
        int row = i / (D / 8), chunk = i % (D / 8);
        if (row < rows) *(uint4 *)(matrix + row * stride + chunk * 8) = ra_shared_cast<uint4>(tile, tile_place<D>(row, chunk))[0];
    }
}

#endif
