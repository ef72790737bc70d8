#include "passes.h"

#include <realign/mem.h>

#include <string.h>

const ra_grid *grid_alone(void)
{
    static ra_grid grid;
    grid = ra_grid_alone();
    return &grid;
}

ra_engine *engine_alone(ra_model *m, int32_t rows, bool keep)
{
    ra_engine *e;
    ra_engine_config config = {.rows = rows, .keep = keep, .schedule = RA_PIPELINE_1F1B};
    if (ra_engine_new(m, grid_alone(), &config, NULL, &e) != RA_OK) ra_die("%s", ra_error_message());
    return e;
}

typedef struct {
    const one_pass *pass;
    ra_microbatch *mb;
} context;

static void fill(void *c, int32_t index, ra_microbatch *to)
{
    (void)index;
    const ra_microbatch *from = ((const context *)c)->mb;
    ra_pack *p = &to->pack;
    const ra_pack *q = &from->pack;
    ra_microbatch_clear(to);
    memcpy(p->token, q->token, (size_t)q->rows * sizeof *q->token);
    memcpy(p->position, q->position, (size_t)q->rows * sizeof *q->position);
    memcpy(p->segment, q->segment, (size_t)q->segments * sizeof *q->segment);
    memcpy(p->tree_begin, q->tree_begin, (size_t)(q->trees + 1) * sizeof *q->tree_begin);
    p->rows = q->rows, p->segments = q->segments, p->trees = q->trees;
    memcpy(to->item, from->item, (size_t)from->items * sizeof *from->item);
    memcpy(to->response, from->response, (size_t)from->responses * sizeof *from->response);
    memcpy(to->head_row, from->head_row, (size_t)from->head_rows * sizeof *from->head_row);
    memcpy(to->head_target, from->head_target, (size_t)from->head_rows * sizeof *from->head_target);
    to->items = from->items, to->responses = from->responses;
    to->head_rows = from->head_rows, to->kl_first = from->kl_first;
}

static const void *reference(void *c, const ra_microbatch *mb)
{
    (void)mb;
    return ((const context *)c)->pass->reference;
}

static ra_err scored(void *c, int32_t index, ra_microbatch *mb, const double *logp, const void *hidden)
{
    (void)index;
    const context *k = c;
    const ra_model *m = k->pass->m;
    size_t row = (size_t)m->arch.hidden * m->b->a_size;
    if (k->pass->hidden) m->b->ops->copy(m->b, k->pass->hidden, hidden, (size_t)mb->head_rows * row);
    if (k->pass->token_logp) memcpy(k->pass->token_logp, logp, (size_t)mb->head_rows * sizeof *logp);
    for (int32_t i = 0; i < mb->responses && k->pass->own_reference; i++)
        k->mb->response[i].reference = mb->response[i].reference = mb->response[i].logp;
    return RA_OK;
}

static ra_err result(void *c, int32_t index, const ra_microbatch *mb, const double *dot)
{
    (void)index;
    const context *k = c;
    for (int32_t i = 0; i < mb->responses; i++) k->mb->response[i].logp = mb->response[i].logp;
    for (int32_t i = 0; i < mb->items; i++) k->mb->item[i].loss = mb->item[i].loss;
    if (dot && k->pass->dot) memcpy(k->pass->dot, dot, (size_t)mb->items * sizeof *dot);
    return RA_OK;
}

void run_pass(const one_pass *pass, ra_microbatch *mb)
{
    context c = {pass, mb};
    ra_pass p = {.context = &c,
                 .count = 1,
                 .fill = fill,
                 .reference = reference,
                 .scored = scored,
                 .result = result,
                 .backward = pass->backward};
    if (ra_engine_run(pass->e, pass->objective, &p) != RA_OK) ra_die("%s", ra_error_message());
}
