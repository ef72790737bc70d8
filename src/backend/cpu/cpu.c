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
    if (bf16 && !ra_cpu_products_have_bf16(state->products)) state->wide = ra_cpu_wide_new();
    b->ops = bf16 ? &ra_cpu_ops_bf16 : &ra_cpu_ops_f32;
    b->host = true;
    b->library = ra_cpu_products_version();
    b->widened = state->wide != NULL;
    b->state = state;
    b->row_independent = ra_cpu_products_rows_independent(b);
    return RA_OK;
}

void ra_backend_cpu_close(ra_backend *b)
{
    ra_cpu_state *state = b->state;
    ra_cpu_wide_free(state->wide);
    ra_cpu_products_close(state->products);
    ra_free(state);
}
