/* What generating and scoring need: backend, model (with an adapter where there is one), tokenizer, chat template, stop ids. */
#ifndef RA_STAGE_INFERENCE_H
#define RA_STAGE_INFERENCE_H
#include <realign/infer.h>
#include <realign/settings.h>
#include <realign/tokenizer.h>

#include <jansson.h>

typedef struct {
    ra_backend *b;
    ra_modelfile *file;
    ra_model *m;
    ra_tokenizer *tokenizer; /* NULL where the model's is of a kind that is not read yet: ids alone work */
    ra_template *tpl;        /* NULL where the model has none that is known */
    char *why_no_text;       /* why one of the two is missing, and what would be accepted */
    int32_t stop[32];
    int32_t stops;
} ra_inference;

/* Not collective. The layers of this rank's stage of `grid` (NULL: this rank alone). `model`: a directory or a GGUF file. `adapter`: a PEFT directory, or NULL. Tokenizer and template as the
 * settings say. */
ra_err ra_inference_open(const ra_settings *s, const ra_grid *grid, const char *model, const char *adapter, ra_inference *out);
/* The same with a tokenizer and a template of its own: `tokenizer` NULL or "": the model's. They must be there. */
ra_err ra_inference_open_other(const ra_settings *s, const ra_grid *grid, const char *model, const char *adapter,
                               const char *tokenizer, const char *tpl, ra_inference *out);
void ra_inference_close(ra_inference *i);
/* A directory of results: NULL where `dir` holds a whole model, else (it holds adapter_config.json) `dir` itself. */
const char *ra_adapter_in(const char *dir);
/* Generation as the settings say; borrows i->stop. */
ra_generation ra_generation_of(const ra_settings *s, const ra_inference *i);

/* ---- conversations from JSON ---- */
/* The turns of {"messages": [{"role", "content"} ...]} or {"prompt": text}, and {"response": text} as a last assistant turn where it is there. Strings are borrowed
 * from `line`; free *out with ra_free. RA_ERR_DATA says what was expected. */
ra_err ra_turns_read(const json_t *line, ra_message **out, int *n);
/* The array of token ids under "ids"; free *out with ra_free. */
ra_err ra_ids_read(const json_t *line, int32_t **out, int32_t *n);
json_t *ra_ids_json(const int32_t *ids, int32_t n);
/* Renders turns; the message names the template that is missing. */
ra_err ra_turns_render(const ra_inference *i, const ra_message *turns, int n, bool add_generation_prompt, ra_rendered *out);

#endif
