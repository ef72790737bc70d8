/* One sample of a reference directory through an engine, and what is left of it on every rank. */
#include "check.h"

#include <realign/mem.h>

typedef struct {
    ra_checker *c;
    const ra_check_step *step;
    double loss, dot;
} one;

ra_loss_kind ra_check_kind(const ra_check_sample *s)
{
    static const ra_loss_kind kinds[] = {RA_LOSS_INVERT, RA_LOSS_PUNISH, RA_LOSS_RETAIN, RA_LOSS_PUNISH_CORRECTED};
    return kinds[s->action];
}

void ra_check_references(const ra_check_sample *s, double reference[RA_ROLES])
{
    for (int r = 0; r < RA_ROLES; r++) {
        reference[r] = 0.0;
        for (int32_t i = 0; s->ref_logp[r] && i < s->sample.response[r].count; i++) reference[r] += s->ref_logp[r][i];
    }
}

static void fill(void *context, int32_t index, ra_microbatch *mb)
{
    (void)index;
    const ra_check_step *s = ((one *)context)->step;
    ra_microbatch_clear(mb);
    if (!ra_microbatch_add(mb, s->sample, s->kind, s->weight, s->reference)) ra_die("check: a sample does not fit");
}

static const void *reference(void *context, const ra_microbatch *mb)
{
    (void)mb;
    const one *o = context;
    return o->step->with_states ? o->c->states : NULL;
}

static ra_err scored(void *context, int32_t index, ra_microbatch *mb, const double *logp, const void *hidden)
{
    (void)index;
    const one *o = context;
    ra_backend *b = o->c->b;
    for (int32_t i = 0; i < mb->head_rows; i++) o->c->token_logp[i] = logp[i];
    for (int32_t i = 0; i < mb->responses && o->step->own_reference; i++) mb->response[i].reference = mb->response[i].logp;
    size_t row = (size_t)o->c->reference->arch.hidden * b->a_size;
    if (o->step->keep_states) b->ops->copy(b, o->c->states, hidden, (size_t)mb->head_rows * row);
    return RA_OK;
}

static ra_err result(void *context, int32_t index, const ra_microbatch *mb, const double *dot)
{
    (void)index;
    one *o = context;
    o->loss = mb->item[0].loss;
    if (dot) o->dot = dot[0];
    return RA_OK;
}

ra_err ra_check_run(ra_checker *c, ra_engine *e, const ra_check_step *step, double *loss, double *dot)
{
    one o = {.c = c, .step = step};
    ra_pass pass = {.context = &o,
                    .count = 1,
                    .fill = fill,
                    .reference = reference,
                    .scored = scored,
                    .result = result,
                    .backward = step->backward};
    RA_TRY(ra_engine_run(e, &c->objective, &pass));
    fill(&o, 0, c->mb);
    const ra_comm *pipeline = &c->grid.pipeline;
    ra_comm_bcast(pipeline, c->token_logp, c->mb->head_rows * (int64_t)sizeof *c->token_logp, pipeline->size - 1);
    if (loss) *loss = o.loss;
    if (dot) *dot = o.dot;
    return RA_OK;
}
