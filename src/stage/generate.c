/* generate: the answers of the model, and of the trained one where there is one, to the prompts of the evaluation. */
#include "responses.h"

#include <realign/log.h>
#include <realign/stage.h>

#include <stdlib.h>

/* Collective over the grid. */
static ra_err generate(const ra_settings *s, const ra_grid *grid)
{
    char *path = NULL;
    ra_side side[2] = {{.s = s, .grid = grid, .name = "before", .model = ra_set_text(s, "model")}};
    bool trained = ra_side_after(s, grid, &side[1], &path);
    ra_prompts prompts;
    ra_err err = ra_prompts_read(s, &grid->world, &prompts);
    if (err == RA_OK && !trained)
        ra_info("generate: %s is not there: the trained model's answers wait for `realign train`", path);
    for (int i = 0; i < 1 + trained && err == RA_OK; i++) {
        ra_answers answers;
        err = ra_answers_get(&side[i], &prompts, &answers);
        if (err == RA_OK) ra_answers_free(&answers);
        ra_side_close(&side[i]);
    }
    ra_prompts_free(&prompts);
    free(path);
    return err;
}

ra_err ra_stage_generate(const ra_settings *s, const ra_comm *world)
{
    if (!*ra_set_text(s, "model"))
        return ra_fail(RA_ERR_ARG, "model: no model was given; accepted: a Hugging Face directory or a GGUF file");
    ra_grid grid;
    RA_TRY(ra_grid_make(world, (int32_t)ra_set_int(s, "grid.pipeline"), &grid));
    ra_err err = ra_grid_check(s, &grid);
    if (err == RA_OK) err = generate(s, &grid);
    ra_grid_free(&grid);
    return err;
}
