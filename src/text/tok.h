/* The inside of a tokenizer, and what fills it. */
#ifndef REALIGN_TEXT_TOK_H
#define REALIGN_TEXT_TOK_H
#include "added.h"
#include "bpe.h"
#include "pretok.h"
#include <realign/tokenizer.h>
#include <stdatomic.h>

/* Everything an encoding thread writes to. */
typedef struct {
    ra_bpe_work bpe;
    ra_pretok_work pretok;
    ra_nfc nfc;
} ra_tok_work;

enum { RA_TOK_POOL = 64, RA_TOK_FRAME = 8, RA_TOK_MAX_ID = 1 << 24 };

struct ra_tokenizer {
    char *source; /* the file, for messages */
    ra_unicode *unicode;
    bool nfc;
    ra_pretok pretok;
    ra_bpe bpe;
    ra_added *added;
    int32_t n_added, added_capacity;
    int32_t *added_of;            /* (size) index into added by id, -1: an ordinary token */
    ra_added_trie raw, on_normal; /* found before and after normalisation */
    int32_t size;                 /* highest id + 1 */
    int32_t prefix[RA_TOK_FRAME], suffix[RA_TOK_FRAME];
    int n_prefix, n_suffix;
    int32_t bos, eos;
    int32_t stop[RA_TOK_FRAME]; /* generation_config.json's eos_token_id, one or several */
    int n_stop;
    char *chat_template;
    uint64_t hash;
    _Atomic(ra_tok_work *) pool[RA_TOK_POOL]; /* idle work areas: a thread takes one and puts it back */
};

/* Fillers. Both leave vocabulary, merges, added tokens, steps, frame, bos, eos and chat_template set; ra_tokenizer_open does
 * the rest. */
ra_err ra_tok_load_json(ra_tokenizer *t, const char *json_path, const char *dir);
ra_err ra_tok_load_gguf(ra_tokenizer *t, const char *path);

/* A work area of this thread's own, until it is put back. */
ra_tok_work *ra_tok_take_work(const ra_tokenizer *t);
void ra_tok_return_work(const ra_tokenizer *t, ra_tok_work *w);

void ra_tok_add(ra_tokenizer *t, ra_added added); /* copies added.text */

/* The bytes behind a token's text in the byte-level alphabet of GPT-2, appended to `out`. False (nothing appended) where a
 * character is outside of it. */
bool ra_bytelevel_decode(const char *text, size_t n, ra_buf *out);

#endif
