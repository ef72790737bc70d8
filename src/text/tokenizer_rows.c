/* Does a tokenizer fit a model? */
#include "tok.h"

ra_err ra_tokenizer_check_rows(const ra_tokenizer *t, int64_t rows, const char *model)
{
    if (t->size <= rows) return RA_OK;
    return ra_fail(
        RA_ERR_DATA,
        "%s has token ids up to %d, but the vocabulary of %s has %lld rows: the tokenizer is another model's, or tokens were "
        "added to it and not to the model",
        t->source, t->size - 1, model, (long long)rows);
}
