/* What the settings say of the grid. */
#include <realign/engine.h>

#include <string.h>

ra_err ra_grid_check(const ra_settings *s, const ra_grid *grid)
{
    int64_t copies = ra_set_int(s, "grid.data");
    if (copies == 0 || copies == grid->data.size) return RA_OK;
    return ra_fail(RA_ERR_ARG, "grid.data: %lld copies of %d stages need %lld ranks, this run has %d", (long long)copies,
                   grid->stages, (long long)copies * grid->stages, grid->world.size);
}

ra_err ra_grid_part(const ra_settings *s, const ra_grid *grid, const ra_arch *arch, ra_part *out)
{
    int32_t chunks = (int32_t)ra_set_int(s, "grid.chunks"), runs = grid->stages * chunks;
    *out = (ra_part){.chunks = chunks};
    if (runs > arch->layers) {
        return ra_fail(RA_ERR_ARG, "grid.pipeline %d times grid.chunks %d: the model has %d layers, at most one run each",
                       grid->stages, chunks, arch->layers);
    }
    for (int32_t c = 0; c < chunks; c++) {
        int32_t run = c * grid->stages + grid->stage;
        out->chunk[c].first = arch->layers * run / runs;
        out->chunk[c].count = arch->layers * (run + 1) / runs - out->chunk[c].first;
    }
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
