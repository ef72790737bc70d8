/* The emulation of mma, ldmatrix and cp.async against plain products and copies. The layouts are written out here once more, from the tables of the PTX
 * ISA and not from mma.h, so that a mistake in one shows. */
#include "tensor_cores.h"
#include "support/support.h"

#include <realign/dtype.h>
#include <realign/mem.h>
#include <realign/rng.h>

#include <cuda_runtime_api.h>
#include <math.h>
#include <string.h>

enum { SEED = 3 };

static void *on_device(const void *host, size_t bytes)
{
    void *memory = NULL;
    if (cudaMalloc(&memory, bytes) != cudaSuccess) ra_die("no device memory");
    cudaMemcpy(memory, host, bytes, cudaMemcpyHostToDevice);
    return memory;
}

static void take_back(void *device, void *host, size_t bytes)
{
    cudaDeviceSynchronize();
    if (host) cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost);
    cudaFree(device);
}

static uint16_t draw(ra_rng *rng)
{
    return ra_f32_to_bf16((float)ra_rng_normal(rng));
}

/* PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type": groupID = lane >> 2, threadID_in_group = lane % 4.
 *   A: row = groupID for a0, a1, a4, a5, else groupID + 8; col = threadID_in_group * 2 + (i & 1), + 8 for i >= 4
 *   B: row = threadID_in_group * 2 + (i & 1), + 8 for i >= 2; col = groupID
 *   C: row = groupID for c0, c1, else groupID + 8; col = threadID_in_group * 2 + (i & 1) */
static void test_multiply(void **state)
{
    (void)state;
    ra_rng rng = ra_rng_make(SEED, RA_STREAM_TEST);
    uint16_t a[16][16], b[16][8], a_lane[32][8], b_lane[32][4];
    float c[16][8], c_lane[32][4];
    for (int i = 0; i < 16; i++) {
        for (int k = 0; k < 16; k++) a[i][k] = draw(&rng);
        for (int j = 0; j < 8; j++) b[i][j] = draw(&rng);
        for (int j = 0; j < 8; j++) c[i][j] = (float)ra_rng_normal(&rng);
    }
    for (int lane = 0; lane < 32; lane++) {
        int group = lane >> 2, thread = lane % 4;
        for (int i = 0; i < 8; i++) a_lane[lane][i] = a[i % 4 < 2 ? group : group + 8][thread * 2 + (i & 1) + (i >= 4 ? 8 : 0)];
        for (int i = 0; i < 4; i++) b_lane[lane][i] = b[thread * 2 + (i & 1) + (i >= 2 ? 8 : 0)][group];
        for (int i = 0; i < 4; i++) c_lane[lane][i] = c[i < 2 ? group : group + 8][thread * 2 + (i & 1)];
    }
    void *da = on_device(a_lane, sizeof a_lane), *db = on_device(b_lane, sizeof b_lane), *dc = on_device(c_lane, sizeof c_lane);
    tensor_multiply(da, db, dc);
    take_back(dc, c_lane, sizeof c_lane);
    take_back(da, NULL, 0);
    take_back(db, NULL, 0);
    for (int lane = 0; lane < 32; lane++) {
        for (int i = 0; i < 4; i++) {
            int row = i < 2 ? lane >> 2 : (lane >> 2) + 8, col = lane % 4 * 2 + (i & 1);
            double want = c[row][col];
            for (int k = 0; k < 16; k++) want += (double)ra_bf16_to_f32(a[row][k]) * ra_bf16_to_f32(b[k][col]);
            check_close(c_lane[lane][i], want, 1e-5, 1e-5, "an element of C");
        }
    }
}

/* PTX ISA, "ldmatrix": thread 8 i + j gives the address of row j of matrix i; of each matrix a thread gets row lane / 4, elements 2 (lane % 4) and the next;
 * with .trans the matrix is transposed. */
static void test_load(void **state)
{
    (void)state;
    uint16_t x[4][8][8];
    for (int i = 0; i < 256; i++) (&x[0][0][0])[i] = (uint16_t)(i * 257 + 3);
    for (int transposed = 0; transposed < 2; transposed++) {
        uint16_t r[32][4][2];
        void *dx = on_device(x, sizeof x), *dr = on_device(r, sizeof r);
        tensor_load(transposed, dx, dr);
        take_back(dr, r, sizeof r);
        take_back(dx, NULL, 0);
        for (int lane = 0; lane < 32; lane++) {
            for (int i = 0; i < 4; i++) {
                for (int e = 0; e < 2; e++) {
                    int row = lane / 4, col = lane % 4 * 2 + e;
                    assert_int_equal(r[lane][i][e], transposed ? x[i][col][row] : x[i][row][col]);
                }
            }
        }
    }
}

static void test_tiles(void **state)
{
    (void)state;
    ra_rng rng = ra_rng_make(SEED + 1, RA_STREAM_TEST);
    static uint16_t x[16][64], y[32][64], w[32][64], z[16][64];
    for (int i = 0; i < 32; i++) {
        for (int j = 0; j < 64; j++) {
            x[i % 16][j] = draw(&rng);
            y[i][j] = draw(&rng);
            w[i][j] = draw(&rng);
        }
    }
    for (int rows = 1; rows <= 16; rows += 5) {
        memset(z, 0x7f, sizeof z);
        void *dx = on_device(x, (size_t)rows * sizeof *x), *dy = on_device(y, sizeof y), *dw = on_device(w, sizeof w),
             *dz = on_device(z, sizeof z);
        tensor_tiles(dx, dy, dw, rows, dz);
        take_back(dz, z, sizeof z);
        take_back(dx, NULL, 0);
        take_back(dy, NULL, 0);
        take_back(dw, NULL, 0);
        for (int i = 0; i < 16; i++) {
            double p[32];
            for (int k = 0; k < 32; k++) {
                double sum = 0;
                for (int j = 0; j < 64; j++) sum += (double)ra_bf16_to_f32(x[i][j]) * ra_bf16_to_f32(y[k][j]);
                p[k] = sum;
            }
            for (int j = 0; j < 64; j++) {
                double want = 0, size = 0;
                for (int k = 0; k < 32; k++) {
                    want += p[k] * ra_bf16_to_f32(w[k][j]);
                    size += p[k] * p[k];
                }
                if (i >= rows)
                    assert_int_equal(z[i][j], 0x7f7f);
                else
                    check_close(ra_bf16_to_f32(z[i][j]), want, 0.004, 0.012 * sqrt(size), "an element of (X Y^T) W");
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_multiply),
        cmocka_unit_test(test_load),
        cmocka_unit_test(test_tiles),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
