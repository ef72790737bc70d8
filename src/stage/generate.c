/* generate: the answers of the model, and of the trained one where there is one, to the prompts of the evaluation. */
#include "responses.h"

#include <realign/stage.h>

#include <realign/log.h>
#include <realign/stage.h>

#include <stdlib.h>

ra_err ra_stage_generate(const ra_settings *s, const ra_comm *world)
{
    if (!*ra_set_text(s, "model"))
        return ra_fail(RA_ERR_ARG, "model: no model was given; accepted: a Hugging Face directory or a GGUF file");
    char *path = NULL;
    ra_side side[2] = {{.s = s, .world = world, .name = "before", .model = ra_set_text(s, "model")}};
    bool trained = ra_side_after(s, world, &side[1], &path);
    ra_prompts prompts;
    ra_err err = ra_prompts_read(s, world, &prompts);
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
