/* What the settings say of the grid. */
#include <realign/engine.h>
#include <realign/split.h>

#include <string.h>

ra_err ra_grid_check(const ra_settings *s, const ra_grid *grid)
{
    int64_t copies = ra_set_int(s, "grid.data");
    if (copies == 0 || copies == grid->data.size) return RA_OK;
    return ra_fail(RA_ERR_ARG, "grid.data: %lld copies of %d stages need %lld ranks, this run has %d", (long long)copies,
                   grid->stages, (long long)copies * grid->stages, grid->world.size);
}

ra_err ra_grid_part(const ra_settings *s, const ra_grid *grid, const ra_arch *arch, const ra_workload *work, ra_part *out)
{
    int32_t chunks = (int32_t)ra_set_int(s, "grid.chunks");
    const char *list = ra_set_text(s, "grid.layers");
    ra_split_model model = {
        .work = *work,
        .memory = {.a_size = 2, .r_size = 4, .rows = (int32_t)ra_set_int(s, "pack.tokens"), .shards = grid->data.size}};
    ra_split split;
    ra_err err = *list ? ra_split_parse(list, arch, &model, grid->stages, chunks, &split)
                       : ra_split_make(arch, &model, grid->stages, chunks, &split);
    if (err != RA_OK) return ra_fail_in(err, *list ? "grid.layers" : "grid.pipeline, grid.chunks");
    *out = (ra_part){.chunks = chunks};
    for (int32_t c = 0; c < chunks; c++) {
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
