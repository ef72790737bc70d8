/* What an engine takes, from shapes alone: ra_engine_new asks here too, so that a plan is what will be. */
#include "engine_impl.h"

#include <realign/mem.h>

ra_err ra_engine_check(ra_pipeline_kind schedule, ra_recompute recompute, int32_t stages, int32_t chunks)
{
    if (schedule == RA_PIPELINE_ZERO_BUBBLE && recompute != RA_RECOMPUTE_NONE) {
        return ra_fail(RA_ERR_ARG,
                       "grid.schedule=zero-bubble keeps what recompute would make again; accepted: recompute=none, or "
                       "another schedule");
    }
    if (chunks > 1 && stages == 1) return ra_fail(RA_ERR_ARG, "grid.chunks: one stage has one chunk of layers, not %d", chunks);
    if (chunks > 1 && schedule != RA_PIPELINE_INTERLEAVED && schedule != RA_PIPELINE_FORWARD) {
        return ra_fail(RA_ERR_ARG, "grid.chunks: %d chunks a stage need grid.schedule=interleaved, not %s", chunks,
                       ra_pipeline_kind_name[schedule]);
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

static bool has_table_before(const ra_engine_config *c, const ra_pass_shape *pass, int32_t i)
{
    for (int32_t k = 0; k < i; k++) {
        if (pass[k].count == pass[i].count && ra_engine_kind(c, &pass[k]) == ra_engine_kind(c, &pass[i])) return true;
    }
    return false;
}

ra_err ra_engine_room_of(const ra_engine_config *c, int32_t stages, int32_t chunks, ra_engine_room *room)
{
    const ra_pass_shape full = {.backward = c->keep, .count = 2 * stages}, *pass = c->passes ? c->pass : &full;
    for (int32_t r = 0; r < stages; r++) room[r] = (ra_engine_room){.slots = 1};
    for (int32_t i = 0; i < (c->passes ? c->passes : 1); i++) {
        ra_schedule s;
        if (pass[i].count == 0 || has_table_before(c, pass, i)) continue;
        RA_TRY(ra_schedule_make(ra_engine_kind(c, &pass[i]), stages, pass[i].count, chunks, &s));
        for (int32_t r = 0; r < stages; r++) {
            if (s.rank[r].peak > room[r].slots) room[r].slots = s.rank[r].peak;
            if (s.rank[r].inboxes > room[r].inboxes) room[r].inboxes = s.rank[r].inboxes;
        }
        ra_schedule_free(&s);
    }
    return RA_OK;
}

ra_err ra_engine_sizes_of(const ra_model *m, const ra_grid *grid, const ra_engine_config *config, ra_engine_sizes *out)
{
    *out = (ra_engine_sizes){0};
    const ra_pipeline_kind schedule = config->keep ? config->schedule : RA_PIPELINE_FORWARD;
    RA_TRY(ra_engine_check(schedule, config->recompute, grid->stages, m->part.chunks));
    ra_engine_room *room = ra_alloc((size_t)grid->stages, sizeof *room);
    ra_err err = ra_engine_room_of(config, grid->stages, m->part.chunks, room);
    if (err == RA_OK) *out = ra_engine_sizes_in(m, config, &room[grid->stage]);
    ra_free(room);
    return err;
}

ra_engine_sizes ra_engine_sizes_in(const ra_model *m, const ra_engine_config *config, const ra_engine_room *room)
{
    ra_engine_sizes sizes = {.slots = room->slots, .inboxes = room->inboxes}, *out = &sizes;
    const ra_keeping keeping = ra_engine_keeping(config, out->slots);
    const size_t stream = ra_engine_stream_bytes(m, config->rows);
    out->activations = ra_activations_bytes(m, config->rows, &keeping);
    out->messages = ra_wire_bytes(out->inboxes, stream);
    if (m->last) out->head = ra_head_bytes(m, config->rows);
    if (!config->keep) return sizes;
    if (m->last) out->activations += stream;
    out->dots = (size_t)config->rows * sizeof(double);
    return sizes;
}
