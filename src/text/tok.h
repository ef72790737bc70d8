/* The inside of a tokenizer, and what fills it. */
#ifndef REALIGN_TEXT_TOK_H
#define REALIGN_TEXT_TOK_H
#include "added.h"
#include "bpe.h"
#include "decoder.h"
#include "normal.h"
#include "pretok.h"
#include <jansson.h>
#include <realign/tokenizer.h>
#include <stdatomic.h>

/* Everything an encoding thread writes to. */
typedef struct {
    ra_bpe_work bpe;
    ra_pretok_work pretok;
    ra_normal_work normal;
} ra_tok_work;

enum { RA_TOK_POOL = 64, RA_TOK_FRAME = 8, RA_TOK_MAX_ID = 1 << 24 };

struct ra_tokenizer {
    char *source; /* the file, for messages */
    ra_unicode *unicode;
    ra_normal normal;
    ra_pretok pretok;
    ra_bpe bpe;
    bool byte_level; /* words go through the alphabet of GPT-2: units are bytes, tokens are written in it */
    ra_decoder decoder;
    ra_added *added;
    int32_t n_added, added_capacity;
    int32_t *added_of;            /* (size) index into added by id, -1: an ordinary token */
    ra_added_trie raw, on_normal; /* found before and after normalisation */
    bool need_places;             /* the pre-tokenizer asks where in the text it is */
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

/* Fillers: leave vocabulary, merges, added tokens, steps, frame, bos, eos and chat_template set; ra_tokenizer_open does the rest.
 * `path`: the file, whose directory holds what belongs to it. */
ra_err ra_tok_load_json(ra_tokenizer *t, const char *path);
ra_err ra_tok_load_gguf(ra_tokenizer *t, const char *path);
ra_err ra_tok_load_sentencepiece(ra_tokenizer *t, const char *path);
ra_err ra_tok_load_tiktoken(ra_tokenizer *t, const char *path);
ra_err ra_tok_load_vocab_merges(ra_tokenizer *t, const char *path); /* vocab.json or the merges.txt beside it */

/* Does the file begin as a tiktoken file does: base64, a space, a number? */
bool ra_tok_looks_tiktoken(const uint8_t *bytes, size_t n);

/* ---- what several fillers share ---- */

/* Members of JSON objects. */
const char *ra_json_text(const json_t *object, const char *key); /* NULL: none */
bool ra_json_flag(const json_t *object, const char *key, bool otherwise);
/* The object in dir/name; NULL with RA_OK where there is no such file. Free with json_decref. */
ra_err ra_json_object_file(const char *dir, const char *name, json_t **out);
char *ra_tok_dir_of(const char *path); /* free with free */

/* The steps of a tokenizer.json, from their JSON. */
ra_err ra_tok_json_normalizer(ra_tokenizer *t, const char *path, const json_t *json);
ra_err ra_tok_json_pretokenizer(ra_tokenizer *t, const char *path, const json_t *json);
ra_err ra_tok_json_decoder(ra_tokenizer *t, const char *path, const json_t *json);

/* tokenizer_config.json (bos, eos, chat template) and generation_config.json (stops). */
ra_err ra_tok_load_config(ra_tokenizer *t, const char *dir);

/* Added tokens from tokenizer_config.json's added_tokens_decoder, or from added_tokens.json; those for which `skip` is true are left
 * out. *listed: there was a list. */
ra_err ra_tok_load_added_decoder(ra_tokenizer *t, const char *dir, bool (*skip)(const void *context, const ra_added *a),
                                 const void *context, bool *listed);
/* BOS and EOS around texts, as tokenizer_config.json's add_bos_token and add_eos_token say; without a word, BOS if `bos`. */
ra_err ra_tok_load_frame(ra_tokenizer *t, const char *dir, bool bos);

/* A token of a byte-level vocabulary, written in the alphabet of GPT-2. */
void ra_tok_add_byte_level(ra_tokenizer *t, int32_t id, const char *text, size_t n);
bool ra_tok_add_byte_level_merge(ra_tokenizer *t, uint32_t rank, const char *left, size_t n_left, const char *right,
                                 size_t n_right);

void ra_tok_add(ra_tokenizer *t, ra_added added); /* copies added.text */

/* A work area of this thread's own, until it is put back. */
ra_tok_work *ra_tok_take_work(const ra_tokenizer *t);
void ra_tok_return_work(const ra_tokenizer *t, ra_tok_work *w);

/* The bytes behind a token's text in the byte-level alphabet of GPT-2, appended to `out`. False (nothing appended) where a
 * character is outside of it. */
bool ra_bytelevel_decode(const char *text, size_t n, ra_buf *out);
/* The other way round. */
void ra_bytelevel_encode(const void *bytes, size_t n, ra_buf *out);

#endif
