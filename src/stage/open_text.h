/* Tokenizer and chat template as a run's settings name them, and whether they fit the model. Not collective. */
#ifndef RA_STAGE_OPEN_TEXT_H
#define RA_STAGE_OPEN_TEXT_H
#include <realign/modelfile.h>
#include <realign/settings.h>
#include <realign/tokenizer.h>

/* The template of `template` and `template_date`. */
ra_err ra_open_template(const ra_settings *s, const ra_tokenizer *t, ra_template **out);

/* Rows of the embedding: of the tensor, else config.json's vocab_size; -1 where neither is there. */
int64_t ra_model_rows(const ra_modelfile *file);
/* RA_ERR_DATA where the tokenizer has ids beyond the model's rows. */
ra_err ra_check_tokenizer(const ra_tokenizer *t, const ra_modelfile *file);
/* The same for `model` of the settings, before it is needed. No error where there is no such model yet (its path is checked where it
 * is opened); *looked says whether there was. */
ra_err ra_check_tokenizer_early(const ra_settings *s, const ra_tokenizer *t, bool *looked);

#endif
