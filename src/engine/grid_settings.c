/* What the settings say of the grid. */
#include <realign/engine.h>
#include <realign/mem.h>
#include <realign/split.h>

#include <string.h>

ra_err ra_grid_check(const ra_settings *s, const ra_grid *grid)
{
    int64_t copies = ra_set_int(s, "grid.data");
    if (copies == 0 || copies == grid->data.size) return RA_OK;
    return ra_fail(RA_ERR_ARG, "grid.data: %lld copies of %d stages need %lld ranks, this run has %d", (long long)copies,
                   grid->stages, (long long)copies * grid->stages, grid->world.size);
}

/* Packs whose activations each virtual stage holds at once, in a long pass. */
static double *packs_held(const ra_grid *grid, ra_pipeline_kind kind, int32_t chunks)
{
    int32_t p = grid->stages;
    double *held = ra_calloc((size_t)(p * chunks), sizeof *held);
    for (int32_t i = 0; i < p * chunks; i++) held[i] = (double)ra_schedule_theory_peak(kind, p, 4 * p, chunks, i % p) / chunks;
    return held;
}

static ra_err make_split(const ra_settings *s, const ra_grid *grid, const ra_arch *arch, const ra_workload *work, ra_split *out)
{
    int32_t chunks = (int32_t)ra_set_int(s, "grid.chunks");
    const char *list = ra_set_text(s, "grid.layers");
    ra_engine_config config;
    RA_TRY(ra_engine_configure(s, &config));
    double *held = packs_held(grid, config.schedule, chunks);
    ra_split_model model = {
        .work = *work,
        .memory = {.a_size = 2, .r_size = 4, .rows = (int32_t)ra_set_int(s, "pack.tokens"), .shards = grid->data.size},
        .held = held};
    model.work.recompute = config.recompute;
    model.work.split = config.schedule == RA_PIPELINE_ZERO_BUBBLE;
    ra_err err = *list ? ra_split_parse(list, arch, &model, grid->stages, chunks, out)
                       : ra_split_make(arch, &model, grid->stages, chunks, out);
    ra_free(held);
    return err == RA_OK ? RA_OK : ra_fail_in(err, *list ? "grid.layers" : "grid.pipeline, grid.chunks");
}

ra_err ra_grid_part(const ra_settings *s, const ra_grid *grid, const ra_arch *arch, const ra_workload *work, ra_part *out)
{
    ra_split split;
    RA_TRY(make_split(s, grid, arch, work, &split));
    *out = (ra_part){.chunks = (int32_t)ra_set_int(s, "grid.chunks")};
    for (int32_t c = 0; c < out->chunks; c++) {
        int32_t stage = c * grid->stages + grid->stage;
        out->chunk[c].first = split.begin[stage];
        out->chunk[c].count = split.begin[stage + 1] - split.begin[stage];
    }
    ra_split_free(&split);
    return RA_OK;
}

ra_err ra_engine_configure(const ra_settings *s, ra_engine_config *config)
{
    const char *recompute = ra_set_text(s, "recompute");
    config->recompute = strcmp(recompute, "full") == 0     ? RA_RECOMPUTE_FULL
                        : strcmp(recompute, "inputs") == 0 ? RA_RECOMPUTE_INPUTS
                                                           : RA_RECOMPUTE_NONE;
    return ra_pipeline_kind_parse(ra_set_text(s, "grid.schedule"), &config->schedule);
}
