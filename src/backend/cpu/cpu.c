/* Opening and closing the cpu backend. */
#include "cpu.h"

#include <realign/mem.h>

#include <omp.h>

ra_err ra_backend_cpu_open(ra_backend *b, int threads)
{
    ra_cpu_state *state = ra_calloc(1, sizeof *state);
    if (threads > 0) omp_set_num_threads(threads);
    state->threads = omp_get_max_threads();
    ra_err err = ra_cpu_products_open(&state->products);
    if (err != RA_OK) {
        ra_free(state);
        return err;
    }
    bool bf16 = strcmp(b->precision, "bf16") == 0;
    if (bf16 && !ra_cpu_products_have_bf16(state->products)) {
        ra_cpu_products_close(state->products);
        ra_free(state);
        return ra_fail(RA_ERR_UNSUPPORTED, "%s has no bf16 product for this processor; fp32 works everywhere",
                       ra_cpu_products_version());
    }
    b->a = bf16 ? RA_DTYPE_BF16 : RA_DTYPE_F32;
    b->r = RA_DTYPE_F32;
    b->ops = bf16 ? &ra_cpu_ops_bf16 : &ra_cpu_ops_f32;
    b->host = true;
    b->library = ra_cpu_products_version();
    b->state = state;
    return RA_OK;
}

void ra_backend_cpu_close(ra_backend *b)
{
    ra_cpu_state *state = b->state;
    ra_cpu_products_close(state->products);
    ra_free(state);
}
