/* The tokenizer inside a GGUF file (tokenizer.ggml.*): byte-level BPE ("gpt2") and SentencePiece ("llama"), the same ids as the
 * files it was made from. */
#include "spm.h"

#include <realign/modelfile.h>
#include <stdlib.h>
#include <string.h>

enum { TYPE_CONTROL = 3, TYPE_USER_DEFINED = 4 };

/* A row per pre-tokenizer name. GGUF names the rules and leaves them to the reader: what the family's tokenizer.json says. */
typedef struct {
    const char *name;
    bool each_digit;        /* Digits(individual) first */
    const char *pattern[4]; /* Split by these, one after the other */
    bool nfc, ignore_merges;
} pre_row;

#define GPT2_WITHOUT_LAST "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)"
static const pre_row PRE[] = {
    {"gpt-2", false, {RA_PATTERN_GPT2}, false, false},
    {"smollm", true, {RA_PATTERN_GPT2}, false, false},
    {"starcoder", true, {RA_PATTERN_GPT2}, false, false},
    {"refact", true, {RA_PATTERN_GPT2}, false, false},
    {"command-r", true, {RA_PATTERN_GPT2}, true, false},
    {"llama-bpe", false, {RA_PATTERN_LLAMA3}, false, true},
    {"llama3", false, {RA_PATTERN_LLAMA3}, false, true},
    {"llama-v3", false, {RA_PATTERN_LLAMA3}, false, true},
    {"qwen2", false, {RA_PATTERN_QWEN2}, true, false},
    {"deepseek-r1-qwen", false, {RA_PATTERN_QWEN2}, true, false},
    /* llama.cpp's own fall-back for files that name no rules */
    {"default", false, {"[\\p{P}\\$\\+<=>\\^\\~\\|]+", GPT2_WITHOUT_LAST, "\\p{N}+", "[0-9][0-9][0-9]"}, false, false},
};

typedef struct {
    ra_tokenizer *t;
    const char *path;
    const ra_gguf *g;
} loader;

static bool same(ra_str s, const char *text)
{
    return s.length == strlen(text) && !memcmp(s.data, text, s.length);
}

static bool is_utf8(ra_str s)
{
    bool unused;
    return ra_utf8_valid((const uint8_t *)s.data, s.length, &unused) == s.length;
}

static ra_err load_pre(loader *l)
{
    ra_str pre;
    if (!ra_gguf_text(l->g, "tokenizer.ggml.pre", &pre)) pre = (ra_str){"default", 7};
    const pre_row *row = NULL;
    ra_buf known = {0};
    for (size_t i = 0; i < sizeof PRE / sizeof *PRE; i++) {
        if (same(pre, PRE[i].name)) row = &PRE[i];
        ra_buf_addf(&known, "%s%s", i ? ", " : "", PRE[i].name);
    }
    ra_err err = RA_OK;
    if (!row) {
        err = ra_fail(RA_ERR_UNSUPPORTED, "%s: tokenizer.ggml.pre is \"%.*s\"; known: %s", l->path, (int)pre.length, pre.data,
                      known.data);
    }
    ra_buf_free(&known);
    RA_TRY(err);
    ra_normal_step *form;
    ra_step *digits;
    l->t->byte_level = true;
    if (row->nfc) RA_TRY(ra_normal_add(&l->t->normal, l->path, RA_NORMAL_FORM, &form)); /* RA_NFC is its 0 */
    l->t->bpe.ignore_merges = row->ignore_merges;
    if (row->each_digit) {
        RA_TRY(ra_pretok_add(&l->t->pretok, l->path, RA_STEP_SPLIT, &digits));
        digits->match.kind = RA_MATCH_DIGIT;
    }
    for (int i = 0; i < 4 && row->pattern[i]; i++) {
        RA_TRY(ra_pretok_add_split(&l->t->pretok, l->path, row->pattern[i], false));
    }
    ra_decode_step *decode;
    return ra_decoder_add(&l->t->decoder, l->path, RA_DECODE_BYTE_LEVEL, &decode);
}

static ra_err add_tokens(loader *l, const ra_str *token, int64_t n, const int64_t *type)
{
    for (int64_t i = 0; i < n; i++) {
        if (!is_utf8(token[i])) {
            return ra_fail(RA_ERR_FORMAT, "%s: tokenizer.ggml.tokens[%lld] is not UTF-8", l->path, (long long)i);
        }
        bool added = type && (type[i] == TYPE_CONTROL || type[i] == TYPE_USER_DEFINED);
        /* GGUF does not say whether BPE knows an added token too. It matters only where whole words are looked up, and there
         * it does not. */
        bool of_bpe = token[i].length && !(added && l->t->bpe.ignore_merges);
        if (of_bpe) ra_tok_add_byte_level(l->t, (int32_t)i, token[i].data, token[i].length);
        if (added) {
            ra_tok_add(l->t, (ra_added){.id = (int32_t)i,
                                        .text = (char *)(uintptr_t)token[i].data,
                                        .length = token[i].length,
                                        .special = type[i] == TYPE_CONTROL});
        }
    }
    l->t->size = (int32_t)n;
    return RA_OK;
}

static ra_err load_tokens(loader *l)
{
    ra_str *token = NULL;
    int64_t *type = NULL, n = 0, n_type = 0;
    if (!ra_gguf_text_array(l->g, "tokenizer.ggml.tokens", &token, &n) || n < 1 || n > RA_TOK_MAX_ID) {
        free(token);
        return ra_fail(RA_ERR_FORMAT, "%s: tokenizer.ggml.tokens must be a list of 1 to %d strings", l->path, RA_TOK_MAX_ID);
    }
    ra_err err = RA_OK;
    if (ra_gguf_i64_array(l->g, "tokenizer.ggml.token_type", &type, &n_type) && n_type != n) {
        err = ra_fail(RA_ERR_FORMAT, "%s: %lld tokens, but %lld entries in tokenizer.ggml.token_type", l->path, (long long)n,
                      (long long)n_type);
    } else {
        err = add_tokens(l, token, n, type);
    }
    free(token);
    free(type);
    return err;
}

static ra_err load_merges(loader *l)
{
    ra_str *merge = NULL;
    int64_t n = 0;
    if (!ra_gguf_text_array(l->g, "tokenizer.ggml.merges", &merge, &n)) {
        return ra_fail(RA_ERR_FORMAT, "%s: tokenizer.ggml.merges must be a list of strings", l->path);
    }
    ra_bpe_index(&l->t->bpe);
    ra_err err = RA_OK;
    for (int64_t i = 0; err == RA_OK && i < n; i++) {
        const char *space = merge[i].length ? memchr(merge[i].data, ' ', merge[i].length) : NULL;
        size_t at = space ? (size_t)(space - merge[i].data) : 0;
        if (!at || at + 1 == merge[i].length || !is_utf8(merge[i]) ||
            !ra_tok_add_byte_level_merge(l->t, (uint32_t)i, merge[i].data, at, space + 1, merge[i].length - at - 1)) {
            err = ra_fail(RA_ERR_FORMAT,
                          "%s: tokenizer.ggml.merges[%lld] must be two tokens with a space between, whose union is a token",
                          l->path, (long long)i);
        }
    }
    free(merge);
    return err;
}

static int32_t special_id(const loader *l, const char *key)
{
    int64_t id;
    return ra_gguf_i64(l->g, key, &id) && id >= 0 && id < RA_TOK_MAX_ID ? (int32_t)id : -1;
}

static bool flag(const loader *l, const char *key, bool otherwise)
{
    int64_t value;
    return ra_gguf_i64(l->g, key, &value) ? value != 0 : otherwise;
}

static ra_err load_byte_level(loader *l)
{
    RA_TRY(load_pre(l));
    RA_TRY(load_tokens(l));
    return load_merges(l);
}

/* User-defined pieces are found in the normal text, where spaces are marks; some files write them with spaces. */
static char *escape_spaces(ra_str s, size_t *n)
{
    ra_buf out = {0};
    for (size_t i = 0; i < s.length; i++) {
        if (s.data[i] == ' ') {
            ra_buf_adds(&out, "\xE2\x96\x81");
        } else {
            ra_buf_add(&out, s.data + i, 1);
        }
    }
    *n = out.length;
    return out.data ? out.data : ra_strdup("");
}

static ra_err check_counts(const loader *l, int64_t n, int64_t n_type, int64_t n_score)
{
    if (n < 1 || n > RA_TOK_MAX_ID || n_type != n || n_score != n) {
        return ra_fail(RA_ERR_FORMAT,
                       "%s: tokenizer.ggml.tokens, tokenizer.ggml.scores and tokenizer.ggml.token_type must be lists of the same "
                       "1 to %d entries, not of %lld, "
                       "%lld and %lld",
                       l->path, RA_TOK_MAX_ID, (long long)n, (long long)n_score, (long long)n_type);
    }
    return RA_OK;
}

static ra_err fill_pieces(loader *l, const ra_str *token, const int64_t *type, const double *score, int32_t n)
{
    ra_spm spm = {.piece = ra_calloc((size_t)n, sizeof *spm.piece),
                  .n = n,
                  .unknown = special_id(l, "tokenizer.ggml.unknown_token_id"),
                  .escape = true,
                  .dummy_prefix = flag(l, "tokenizer.ggml.add_space_prefix", true)};
    if (spm.unknown < 0) spm.unknown = 0; /* as llama.cpp has it: where <unk> is listed as special, no piece has its type */
    char **made = ra_calloc((size_t)n, sizeof *made);
    for (int32_t id = 0; id < n; id++) {
        ra_piece *p = &spm.piece[id];
        *p = (ra_piece){token[id].data, token[id].length, (float)score[id], (int)type[id]};
        spm.byte_fallback |= p->type == RA_PIECE_BYTE;
        if (p->type == RA_PIECE_USER_DEFINED && p->length && memchr(p->text, ' ', p->length)) {
            p->text = made[id] = escape_spaces(token[id], &p->length);
        }
        if (p->type == RA_PIECE_CONTROL || p->type == RA_PIECE_UNKNOWN) {
            ra_tok_add(l->t, (ra_added){.id = id, .text = (char *)(uintptr_t)p->text, .length = p->length, .special = true});
        }
    }
    ra_err err = ra_spm_fill(l->t, l->path, &spm);
    for (int32_t id = 0; id < n; id++) free(made[id]);
    ra_free(made);
    ra_free(spm.piece);
    return err;
}

static ra_err load_sentencepiece(loader *l)
{
    ra_str *token = NULL;
    int64_t *type = NULL, n = 0, n_type = 0, n_score = 0;
    double *score = NULL;
    ra_gguf_text_array(l->g, "tokenizer.ggml.tokens", &token, &n);
    ra_gguf_i64_array(l->g, "tokenizer.ggml.token_type", &type, &n_type);
    ra_gguf_f64_array(l->g, "tokenizer.ggml.scores", &score, &n_score);
    ra_err err = check_counts(l, n, n_type, n_score);
    if (err == RA_OK) err = fill_pieces(l, token, type, score, (int32_t)n);
    free(token);
    free(type);
    free(score);
    return err;
}

static ra_err load(loader *l)
{
    ra_str model, text;
    if (!ra_gguf_text(l->g, "tokenizer.ggml.model", &model)) {
        return ra_fail(RA_ERR_FORMAT, "%s: no tokenizer in this file (tokenizer.ggml.model is missing)", l->path);
    }
    bool pieces = same(model, "llama");
    if (!pieces && !same(model, "gpt2")) {
        return ra_fail(RA_ERR_UNSUPPORTED,
                       "%s: tokenizer.ggml.model is \"%.*s\"; known: gpt2 (byte-level BPE), llama (SentencePiece BPE)", l->path,
                       (int)model.length, model.data);
    }
    RA_TRY(pieces ? load_sentencepiece(l) : load_byte_level(l));
    l->t->bos = special_id(l, "tokenizer.ggml.bos_token_id");
    l->t->eos = special_id(l, "tokenizer.ggml.eos_token_id");
    /* Llama-3 files say nothing and mean yes, as their tokenizer.json has it; so do SentencePiece's. */
    bool bos = flag(l, "tokenizer.ggml.add_bos_token", pieces || l->t->bpe.ignore_merges);
    if (bos && l->t->bos >= 0) l->t->prefix[l->t->n_prefix++] = l->t->bos;
    if (flag(l, "tokenizer.ggml.add_eos_token", false) && l->t->eos >= 0) l->t->suffix[l->t->n_suffix++] = l->t->eos;
    if (ra_gguf_text(l->g, "tokenizer.chat_template", &text)) l->t->chat_template = ra_strndup(text.data, text.length);
    return RA_OK;
}

ra_err ra_tok_load_gguf(ra_tokenizer *t, const char *path)
{
    ra_modelfile *file;
    RA_TRY(ra_modelfile_open(path, &file));
    loader l = {t, path, ra_modelfile_gguf(file)};
    ra_err err = l.g ? load(&l) : ra_fail(RA_ERR_FORMAT, "%s: not a GGUF file", path);
    ra_modelfile_close(file);
    return err;
}
