/* What the settings say of the grid. */
#include <realign/engine.h>
#include <realign/mem.h>

#include <string.h>

ra_err ra_grid_check(const ra_settings *s, const ra_grid *grid)
{
    int64_t copies = ra_set_int(s, "grid.data");
    if (copies == 0 || copies == grid->data.size) return RA_OK;
    return ra_fail(RA_ERR_ARG, "grid.data: %lld copies of %d stages need %lld ranks, this run has %d", (long long)copies,
                   grid->stages, (long long)copies * grid->stages, grid->world.size);
}

ra_err ra_grid_layout_of(const ra_settings *s, int32_t ranks, ra_grid_layout *out)
{
    ra_engine_config config;
    RA_TRY(ra_engine_configure(s, &config));
    *out = (ra_grid_layout){.ranks = ranks,
                            .stages = (int32_t)ra_set_int(s, "grid.pipeline"),
                            .chunks = (int32_t)ra_set_int(s, "grid.chunks"),
                            .copies = (int32_t)ra_set_int(s, "grid.data"),
                            .layers = ra_set_text(s, "grid.layers"),
                            .schedule = config.schedule,
                            .recompute = config.recompute,
                            .rows = (int32_t)ra_set_int(s, "pack.tokens")};
    return RA_OK;
}

/* Packs whose activations each virtual stage holds at once, in a long pass. */
static double *packs_held(const ra_grid_layout *l)
{
    int32_t p = l->stages, v = l->chunks;
    double *held = ra_calloc((size_t)(p * v), sizeof *held);
    for (int32_t i = 0; i < p * v; i++) held[i] = (double)ra_schedule_theory_peak(l->schedule, p, 4 * p, v, i % p) / v;
    return held;
}

ra_err ra_grid_split(const ra_grid_layout *l, const ra_arch *arch, const ra_workload *work, ra_split *out)
{
    double *held = packs_held(l);
    ra_split_model model = {
        .work = *work, .memory = {.a_size = 2, .r_size = 4, .rows = l->rows, .shards = l->ranks / l->stages}, .held = held};
    model.work.recompute = l->recompute;
    model.work.split = l->schedule == RA_PIPELINE_ZERO_BUBBLE;
    ra_err err = *l->layers ? ra_split_parse(l->layers, arch, &model, l->stages, l->chunks, out)
                            : ra_split_make(arch, &model, l->stages, l->chunks, out);
    ra_free(held);
    return err == RA_OK ? RA_OK : ra_fail_in(err, *l->layers ? "grid.layers" : "grid.pipeline, grid.chunks");
}

ra_part ra_grid_part_of(const ra_split *split, int32_t stages, int32_t stage)
{
    ra_part part = {.chunks = split->stages / stages};
    for (int32_t c = 0; c < part.chunks; c++) {
        const int32_t *begin = &split->begin[c * stages + stage];
        part.chunk[c].first = begin[0];
        part.chunk[c].count = begin[1] - begin[0];
    }
    return part;
}

ra_err ra_grid_part(const ra_settings *s, const ra_grid *grid, const ra_arch *arch, const ra_workload *work, ra_part *out)
{
    ra_grid_layout layout;
    ra_split split;
    RA_TRY(ra_grid_layout_of(s, grid->world.size, &layout));
    RA_TRY(ra_grid_split(&layout, arch, work, &split));
    *out = ra_grid_part_of(&split, grid->stages, grid->stage);
    ra_split_free(&split);
    return RA_OK;
}

ra_err ra_engine_configure(const ra_settings *s, ra_engine_config *config)
{
    *config = (ra_engine_config){0};
    const char *recompute = ra_set_text(s, "recompute");
    config->recompute = strcmp(recompute, "full") == 0     ? RA_RECOMPUTE_FULL
                        : strcmp(recompute, "inputs") == 0 ? RA_RECOMPUTE_INPUTS
                                                           : RA_RECOMPUTE_NONE;
    RA_TRY(ra_pipeline_kind_parse(ra_set_text(s, "grid.schedule"), &config->schedule));
    return ra_engine_check(config->schedule, config->recompute, (int32_t)ra_set_int(s, "grid.pipeline"),
                           (int32_t)ra_set_int(s, "grid.chunks"));
}
