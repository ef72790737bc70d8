/* Families of byte-level vocabularies whose files leave the rules to the reader (tiktoken, vocab.json with merges.txt). */
#ifndef REALIGN_TEXT_FAMILIES_H
#define REALIGN_TEXT_FAMILIES_H
#include "tok.h"

typedef struct ra_family ra_family;

/* By tokenizer_config.json's tokenizer_class or config.json's model_type in `dir`, else by the number of tokens of a known
 * vocabulary. RA_ERR_UNSUPPORTED says what was found and what is known. */
ra_err ra_family_find(const char *path, const char *dir, int32_t tokens, const ra_family **out);
/* Normaliser, pre-tokenizer and decoder. */
ra_err ra_family_fill_steps(ra_tokenizer *t, const char *path, const ra_family *family);
/* Special tokens: those that are listed in `dir`, else the family's own behind the vocabulary; bos, eos, chat template. */
ra_err ra_family_fill_specials(ra_tokenizer *t, const char *dir, const ra_family *family);

#endif
