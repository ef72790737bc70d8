/* What mma.h offers, one piece a kernel. */
#include "tensor_cores.h"
#include "mma.h"

static __global__ void multiply_kernel(const uint32_t *a, const uint32_t *b, float *c)
{
    int lane = threadIdx.x;
    const uint32_t mine[4] = {a[4 * lane], a[4 * lane + 1], a[4 * lane + 2], a[4 * lane + 3]};
    float sum[4] = {c[4 * lane], c[4 * lane + 1], c[4 * lane + 2], c[4 * lane + 3]};
    mma_multiply(sum, mine, b[2 * lane], b[2 * lane + 1]);
    for (int i = 0; i < 4; i++) c[4 * lane + i] = sum[i];
}

static __global__ void load_kernel(int transposed, const __nv_bfloat16 *x, uint32_t *r)
{
    RA_DYNAMIC_SHARED(__nv_bfloat16, shared);
    int lane = threadIdx.x;
    for (int i = 0; i < 8; i++) shared[8 * lane + i] = x[8 * lane + i];
    __syncwarp();
    uint32_t mine[4];
    if (transposed)
        mma_load_transposed(mine, shared + 8 * lane);
    else
        mma_load(mine, shared + 8 * lane);
    for (int i = 0; i < 4; i++) r[4 * lane + i] = mine[i];
}

static __global__ void tiles_kernel(const __nv_bfloat16 *x, const __nv_bfloat16 *y, const __nv_bfloat16 *w, int rows,
                                    __nv_bfloat16 *z)
{
    RA_DYNAMIC_SHARED(__nv_bfloat16, shared);
    ra_shared_ptr<__nv_bfloat16> x_tile = shared, y_tile = shared + 16 * 64, w_tile = y_tile + 32 * 64;
    tile_fetch<64, 16, 32>(x_tile, x, 64, 0, rows);
    tile_fetch<64, 32, 32>(y_tile, y, 64, 0, 32);
    tile_fetch<64, 32, 32>(w_tile, w, 64, 0, 32);
    mma_copy_commit();
    mma_copy_wait();
    __syncthreads();
    float s[1][4][4] = {}, c[1][8][4] = {};
    uint32_t p[1][2][4];
    const float one[2] = {1, 1};
    tile_product_rows<64, 1, 32>(s, x_tile, y_tile);
    tile_round<32>(p[0], s[0]);
    tile_product_add<64, 1, 32>(c, p, w_tile);
    tile_store<64>(c[0], one, x_tile, z, 64, rows);
}

void tensor_multiply(const uint32_t *a, const uint32_t *b, float *c)
{
    RA_LAUNCH(multiply_kernel, 1, 32, 0, 0, a, b, c);
}

void tensor_load(int transposed, const uint16_t *x, uint32_t *r)
{
    RA_LAUNCH(load_kernel, 1, 32, 32 * 16, 0, transposed, (const __nv_bfloat16 *)x, r);
}

void tensor_tiles(const uint16_t *x, const uint16_t *y, const uint16_t *w, int rows, uint16_t *z)
{
    RA_LAUNCH(tiles_kernel, 1, 32, (16 + 32 + 32) * 64 * 2, 0, (const __nv_bfloat16 *)x, (const __nv_bfloat16 *)y,
              (const __nv_bfloat16 *)w, rows, (__nv_bfloat16 *)z);
}
