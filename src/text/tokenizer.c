#include "tok.h"

#include <dirent.h>
#include <realign/file.h>
#include <realign/hash.h>
#include <stdlib.h>
#include <string.h>

void ra_ids_free(ra_ids *ids)
{
    free(ids->id);
    free(ids->begin);
    free(ids->end);
    *ids = (ra_ids){0};
}

void ra_ids_clear(ra_ids *ids)
{
    ids->count = 0;
}

void ra_tok_add(ra_tokenizer *t, ra_added added)
{
    if (!added.length) return;
    for (int32_t i = 0; i < t->n_added; i++) {
        const ra_added *a = &t->added[i];
        if (a->piece == added.piece && a->length == added.length && !memcmp(a->text, added.text, added.length)) return;
    }
    if (t->n_added == t->added_capacity) {
        t->added_capacity = t->added_capacity ? 2 * t->added_capacity : 64;
        t->added = ra_realloc(t->added, (size_t)t->added_capacity, sizeof *t->added);
    }
    added.text = ra_strndup(added.text, added.length);
    t->added[t->n_added++] = added;
    if (added.id >= t->size) t->size = added.id + 1;
}

static ra_err index_added(ra_tokenizer *t)
{
    t->added_of = ra_alloc((size_t)t->size, sizeof *t->added_of);
    memset(t->added_of, 0xFF, (size_t)t->size * sizeof *t->added_of);
    ra_normal_work work = {0};
    ra_match_work match = {0};
    ra_err err = RA_OK;
    for (int32_t i = 0; i < t->n_added && err == RA_OK; i++) {
        const ra_added *a = &t->added[i];
        t->added_of[a->id] = i;
        const ra_mapped *normal = NULL;
        if (a->normalized && !a->piece) {
            const uint8_t *s = (const uint8_t *)a->text;
            err = ra_normal_run(&t->normal, t->unicode, &match, &work, s, a->length, true, false, &normal);
        }
        if (!normal) {
            ra_added_trie_add(a->normalized ? &t->on_normal : &t->raw, a->text, a->length, i);
        } else if (normal->text.length) {
            ra_added_trie_add(&t->on_normal, normal->text.data, normal->text.length, i);
        }
    }
    ra_normal_work_free(&work);
    ra_match_work_free(&match);
    return err;
}

static void hash_number(ra_hasher *h, int64_t number)
{
    ra_hasher_add(h, &number, sizeof number);
}

static void hash_text(ra_hasher *h, const char *text, size_t n)
{
    hash_number(h, (int64_t)n);
    if (n) ra_hasher_add(h, text, n);
}

static void hash_steps(ra_hasher *h, const ra_tokenizer *t)
{
    for (int i = 0; i < t->normal.n; i++) {
        const ra_normal_step *s = &t->normal.step[i];
        hash_number(h, s->kind << 8 | (int)s->form << 2 | s->left << 1 | s->right);
        hash_text(h, s->text, s->length);
        hash_text(h, s->match.text, s->match.length);
        if (!s->spm) continue;
        hash_number(h, s->spm->dummy_prefix << 3 | s->spm->squeeze << 2 | s->spm->escape << 1 | s->spm->prefix_once);
        hash_text(h, (const char *)s->spm->unit, s->spm->units * sizeof *s->spm->unit);
        hash_text(h, s->spm->texts, s->spm->texts_length);
    }
    for (int i = 0; i < t->pretok.n; i++) {
        const ra_step *s = &t->pretok.step[i];
        bool regex = s->scan || s->match.kind == RA_MATCH_REGEX;
        hash_number(h, s->kind << 16 | (int)(regex ? RA_MATCH_REGEX : s->match.kind) << 8 | (int)s->behaviour << 4 |
                           s->invert << 3 | (int)s->prepend);
        hash_text(h, s->match.text, s->match.length);
        hash_text(h, s->mark, (size_t)s->mark_length);
    }
}

static uint64_t hash_all(const ra_tokenizer *t)
{
    ra_hasher *h = ra_hasher_new();
    const ra_bpe *b = &t->bpe;
    hash_number(h, b->chars << 4 | b->ignore_merges << 3 | b->byte_fallback << 2 | b->fuse_unknown << 1 | b->late_unknown);
    hash_number(h, b->unknown);
    for (int32_t id = 0; id < b->tokens; id++) { /* added tokens come below, whether BPE has them or not */
        if (b->start[id] < 0 || id >= t->size || t->added_of[id] >= 0) continue;
        hash_number(h, id), hash_number(h, b->kind[id]);
        hash_text(h, b->bytes.data + b->start[id], (size_t)b->length[id]);
    }
    for (size_t i = 0; i <= b->pair_mask; i++) { /* the table's order follows from its content and the order of the merges */
        if (b->pairs[i].id >= 0) hash_number(h, (int64_t)b->pairs[i].key), hash_number(h, b->pairs[i].rank);
    }
    hash_steps(h, t);
    for (int32_t i = 0; i < t->n_added; i++) {
        const ra_added *a = &t->added[i];
        hash_number(h, a->id);
        hash_number(h, a->piece << 5 | a->special << 4 | a->single_word << 3 | a->lstrip << 2 | a->rstrip << 1 | a->normalized);
        hash_text(h, a->text, a->length);
    }
    hash_number(h, t->n_prefix), hash_number(h, t->n_suffix);
    ra_hasher_add(h, t->prefix, sizeof t->prefix);
    ra_hasher_add(h, t->suffix, sizeof t->suffix);
    return ra_hasher_end(h).low;
}

typedef enum { FORM_JSON, FORM_GGUF, FORM_SENTENCEPIECE, FORM_TIKTOKEN, FORM_VOCAB, FORM_UNKNOWN } form;

/* What a file is, told by its content. */
static ra_err tell(const char *path, form *out)
{
    ra_map map;
    RA_TRY(ra_map_open(path, &map));
    const uint8_t *s = map.data, *end = s + map.size;
    while (s < end && (*s == ' ' || *s == '\n' || *s == '\r' || *s == '\t')) s++;
    const char *slash = strrchr(path, '/');
    *out = FORM_UNKNOWN;
    if (map.size >= 4 && !memcmp(map.data, "GGUF", 4)) {
        *out = FORM_GGUF;
    } else if (s < end && (*s == '{' || *s == '[')) {
        *out = !strcmp(slash ? slash + 1 : path, "vocab.json") ? FORM_VOCAB : FORM_JSON;
    } else if (ra_tok_looks_tiktoken(map.data, map.size)) {
        *out = FORM_TIKTOKEN;
    } else if (map.data[0] == 0x0A) { /* protobuf: field 1, a message */
        *out = FORM_SENTENCEPIECE;
    }
    ra_map_close(&map);
    return RA_OK;
}

static ra_err load_file(ra_tokenizer *t, const char *path)
{
    form what;
    const char *slash = strrchr(path, '/');
    if (!strcmp(slash ? slash + 1 : path, "merges.txt")) return ra_tok_load_vocab_merges(t, path);
    RA_TRY(tell(path, &what));
    switch (what) {
    case FORM_JSON: return ra_tok_load_json(t, path);
    case FORM_GGUF: return ra_tok_load_gguf(t, path);
    case FORM_SENTENCEPIECE: return ra_tok_load_sentencepiece(t, path);
    case FORM_TIKTOKEN: return ra_tok_load_tiktoken(t, path);
    case FORM_VOCAB: return ra_tok_load_vocab_merges(t, path);
    case FORM_UNKNOWN: break;
    }
    return ra_fail(
        RA_ERR_FORMAT,
        "%s: not a tokenizer; a tokenizer.json, a SentencePiece tokenizer.model, a tiktoken file (base64 and ranks), a "
        "vocab.json beside its merges.txt, or a GGUF file",
        path);
}

/* The one file of a directory whose name ends in .tiktoken, NULL where there is none; free with free. */
static char *find_tiktoken(const char *dir)
{
    DIR *d = opendir(dir);
    char *found = NULL;
    for (const struct dirent *entry; d && !found && (entry = readdir(d));) {
        size_t n = strlen(entry->d_name);
        if (n > 9 && !strcmp(entry->d_name + n - 9, ".tiktoken")) found = ra_path_join(dir, entry->d_name);
    }
    if (d) closedir(d);
    return found;
}

static ra_err load(ra_tokenizer *t, const char *model)
{
    static const char *const NAMES[] = {"tokenizer.json", "vocab.json", "tokenizer.model"};
    if (!ra_file_exists(model)) {
        return ra_fail(RA_ERR_IO, "%s: no such file or directory; a model directory, a tokenizer's file or a GGUF file", model);
    }
    if (!ra_file_is_dir(model)) return load_file(t, model);
    char *path = NULL;
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES && !path; i++) {
        path = ra_path_join(model, NAMES[i]);
        char *merges = i == 1 ? ra_path_join(model, "merges.txt") : NULL; /* a vocab.json alone is of another kind */
        if (!ra_file_exists(path) || (merges && !ra_file_exists(merges))) free(path), path = NULL;
        free(merges);
    }
    if (!path) path = find_tiktoken(model);
    ra_err err = path ? load_file(t, path)
                      : ra_fail(RA_ERR_IO,
                                "%s: no tokenizer.json in this directory, nor vocab.json with merges.txt, tokenizer.model or "
                                "*.tiktoken",
                                model);
    free(path);
    return err;
}

ra_err ra_tokenizer_open(const char *model, ra_tokenizer **out)
{
    *out = NULL;
    ra_tokenizer *t = ra_calloc(1, sizeof *t);
    t->source = ra_strdup(model);
    t->unicode = ra_unicode_new();
    t->bos = t->eos = t->bpe.unknown = -1;
    ra_err err = load(t, model);
    for (int i = 0; err == RA_OK && i < t->n_prefix + t->n_suffix; i++) {
        int32_t id = i < t->n_prefix ? t->prefix[i] : t->suffix[i - t->n_prefix];
        if (id >= t->size)
            err = ra_fail(RA_ERR_FORMAT, "%s: a special token around texts has id %d, not in the vocabulary", model, id);
    }
    for (int i = 0; i < t->pretok.n; i++) {
        t->need_places |= t->pretok.step[i].kind == RA_STEP_METASPACE && t->pretok.step[i].prepend == RA_PREPEND_FIRST;
    }
    if (err == RA_OK) {
        ra_bpe_finish(&t->bpe);
        err = index_added(t);
    }
    if (err != RA_OK) {
        ra_tokenizer_close(t);
        return err;
    }
    t->hash = hash_all(t);
    *out = t;
    return RA_OK;
}

static void work_free(ra_tok_work *w)
{
    if (!w) return;
    ra_bpe_work_free(&w->bpe);
    ra_pretok_work_free(&w->pretok);
    ra_normal_work_free(&w->normal);
    ra_free(w);
}

void ra_tokenizer_close(ra_tokenizer *t)
{
    if (!t) return;
    for (int i = 0; i < RA_TOK_POOL; i++) work_free(atomic_load(&t->pool[i]));
    for (int32_t i = 0; i < t->n_added; i++) free(t->added[i].text);
    free(t->added);
    ra_free(t->added_of);
    ra_added_trie_free(&t->raw);
    ra_added_trie_free(&t->on_normal);
    ra_normal_free(&t->normal);
    ra_pretok_free(&t->pretok);
    ra_decoder_free(&t->decoder);
    ra_bpe_free(&t->bpe);
    ra_free(t->unicode);
    free(t->chat_template);
    free(t->source);
    ra_free(t);
}

ra_tok_work *ra_tok_take_work(const ra_tokenizer *t)
{
    /* The pool is the one part that changes after opening; what lies in it never shows in a result. */
    ra_tokenizer *shared = (ra_tokenizer *)(uintptr_t)t;
    for (int i = 0; i < RA_TOK_POOL; i++) {
        if (!atomic_load_explicit(&shared->pool[i], memory_order_relaxed)) continue;
        ra_tok_work *w = atomic_exchange(&shared->pool[i], NULL);
        if (w) return w;
    }
    return ra_calloc(1, sizeof(ra_tok_work));
}

void ra_tok_return_work(const ra_tokenizer *t, ra_tok_work *w)
{
    ra_tokenizer *shared = (ra_tokenizer *)(uintptr_t)t;
    for (int i = 0; i < RA_TOK_POOL; i++) {
        ra_tok_work *none = NULL;
        if (atomic_compare_exchange_strong(&shared->pool[i], &none, w)) return;
    }
    work_free(w);
}

int32_t ra_tokenizer_vocabulary_size(const ra_tokenizer *t)
{
    return t->size;
}

int32_t ra_tokenizer_bos(const ra_tokenizer *t)
{
    return t->bos;
}

int32_t ra_tokenizer_eos(const ra_tokenizer *t)
{
    return t->eos;
}

int32_t ra_tokenizer_id(const ra_tokenizer *t, const char *token)
{
    size_t n = strlen(token);
    for (int32_t i = 0; i < t->n_added; i++) {
        if (t->added[i].length == n && !memcmp(t->added[i].text, token, n)) return t->added[i].id;
    }
    bool unused;
    if (!n || ra_utf8_valid((const uint8_t *)token, n, &unused) != n) return -1;
    ra_buf bytes = {0};
    int32_t id = -1;
    if (!t->byte_level) {
        id = ra_bpe_find(&t->bpe, token, n);
    } else if (ra_bytelevel_decode(token, n, &bytes)) {
        id = ra_bpe_find(&t->bpe, bytes.data, bytes.length);
    }
    ra_buf_free(&bytes);
    return id < t->size ? id : -1;
}

uint64_t ra_tokenizer_hash(const ra_tokenizer *t)
{
    return t->hash;
}

const char *ra_tokenizer_chat_template(const ra_tokenizer *t)
{
    return t->chat_template;
}
