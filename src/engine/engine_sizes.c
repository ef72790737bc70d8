/* What an engine takes, from shapes alone: ra_engine_new asks here too, so that a plan is what will be. */
#include "engine_impl.h"

static ra_err check(const ra_model *m, const ra_grid *grid, const ra_engine_config *c)
{
    bool split = c->keep && c->schedule == RA_PIPELINE_ZERO_BUBBLE;
    if (split && c->recompute != RA_RECOMPUTE_NONE) {
        return ra_fail(RA_ERR_ARG,
                       "grid.schedule=zero-bubble keeps what recompute would make again; accepted: recompute=none, or "
                       "another schedule");
    }
    if (m->part.chunks > 1 && grid->stages == 1)
        return ra_fail(RA_ERR_ARG, "grid.chunks: one stage has one chunk of layers, not %d", m->part.chunks);
    if (m->part.chunks > 1 && c->keep && c->schedule != RA_PIPELINE_INTERLEAVED) {
        return ra_fail(RA_ERR_ARG, "grid.chunks: %d chunks a stage need grid.schedule=interleaved, not %s", m->part.chunks,
                       ra_pipeline_kind_name[c->schedule]);
    }
    return RA_OK;
}

ra_pipeline_kind ra_engine_kind(const ra_engine_config *config, const ra_pass_shape *pass)
{
    if (!pass->backward) return RA_PIPELINE_FORWARD;
    if (pass->contracts && config->schedule == RA_PIPELINE_ZERO_BUBBLE) return RA_PIPELINE_1F1B; /* it has no second part */
    return config->schedule;
}

ra_keeping ra_engine_keeping(const ra_engine_config *config, int32_t slots)
{
    return (ra_keeping){.keep = config->keep,
                        .slots = slots,
                        .recompute = config->recompute,
                        .split = config->keep && config->schedule == RA_PIPELINE_ZERO_BUBBLE};
}

size_t ra_engine_stream_bytes(const ra_model *m, int32_t rows)
{
    return (size_t)rows * (size_t)m->arch.hidden * m->b->r_size;
}

/* The room that the passes to come take on this stage. */
static ra_err find_room(const ra_model *m, const ra_grid *grid, const ra_engine_config *c, ra_engine_sizes *out)
{
    const ra_pass_shape full = {.backward = c->keep, .count = 2 * grid->stages}, *pass = c->passes ? c->pass : &full;
    out->slots = 1;
    for (int32_t i = 0; i < (c->passes ? c->passes : 1); i++) {
        ra_schedule s;
        if (pass[i].count == 0) continue;
        RA_TRY(ra_schedule_make(ra_engine_kind(c, &pass[i]), grid->stages, pass[i].count, m->part.chunks, &s));
        const ra_schedule_rank *own = &s.rank[grid->stage];
        if (own->peak > out->slots) out->slots = own->peak;
        if (own->inboxes > out->inboxes) out->inboxes = own->inboxes;
        ra_schedule_free(&s);
    }
    return RA_OK;
}

ra_err ra_engine_sizes_of(const ra_model *m, const ra_grid *grid, const ra_engine_config *config, ra_engine_sizes *out)
{
    *out = (ra_engine_sizes){0};
    RA_TRY(check(m, grid, config));
    RA_TRY(find_room(m, grid, config, out));
    const ra_keeping keeping = ra_engine_keeping(config, out->slots);
    const size_t stream = ra_engine_stream_bytes(m, config->rows);
    out->activations = ra_activations_bytes(m, config->rows, &keeping);
    out->messages = ra_wire_bytes(out->inboxes, stream);
    if (m->last) out->head = ra_head_bytes(m, config->rows);
    if (!config->keep) return RA_OK;
    if (m->last) out->activations += stream;
    out->dots = (size_t)config->rows * sizeof(double);
    return RA_OK;
}
