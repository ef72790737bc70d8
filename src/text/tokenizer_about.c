/* What a tokenizer says of itself, and whether it fits a model. */
#include "tok.h"

const char *ra_tokenizer_source(const ra_tokenizer *t)
{
    return t->source;
}

const char *ra_tokenizer_kind(const ra_tokenizer *t)
{
    /* Vocabularies with byte fallback have a piece for every byte, by this name. */
    return ra_tokenizer_id(t, "<0x0A>") >= 0 ? "SentencePiece BPE with byte fallback" : "byte-level BPE";
}

ra_err ra_tokenizer_check_rows(const ra_tokenizer *t, int64_t rows, const char *model)
{
    if (t->size <= rows) return RA_OK;
    return ra_fail(
        RA_ERR_DATA,
        "%s has token ids up to %d, but the vocabulary of %s has %lld rows: the tokenizer is another model's, or tokens "
        "were added to it and not to the model",
        t->source, t->size - 1, model, (long long)rows);
}
