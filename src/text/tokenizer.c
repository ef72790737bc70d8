#include "tok.h"

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
        if (t->added[i].length == added.length && !memcmp(t->added[i].text, added.text, added.length)) return;
    }
    if (t->n_added == t->added_capacity) {
        t->added_capacity = t->added_capacity ? 2 * t->added_capacity : 64;
        t->added = ra_realloc(t->added, (size_t)t->added_capacity, sizeof *t->added);
    }
    added.text = ra_strndup(added.text, added.length);
    t->added[t->n_added++] = added;
    if (added.id >= t->size) t->size = added.id + 1;
}

static void index_added(ra_tokenizer *t)
{
    t->added_of = ra_alloc((size_t)t->size, sizeof *t->added_of);
    memset(t->added_of, 0xFF, (size_t)t->size * sizeof *t->added_of);
    ra_nfc nfc = {0};
    for (int32_t i = 0; i < t->n_added; i++) {
        const ra_added *a = &t->added[i];
        t->added_of[a->id] = i;
        if (!a->normalized) {
            ra_added_trie_add(&t->raw, a->text, a->length, i);
        } else if (t->nfc && ra_nfc_apply(t->unicode, (const uint8_t *)a->text, a->length, false, &nfc)) {
            ra_added_trie_add(&t->on_normal, nfc.text.data, nfc.text.length, i);
        } else {
            ra_added_trie_add(&t->on_normal, a->text, a->length, i);
        }
    }
    ra_nfc_free(&nfc);
}

static void hash_number(ra_hasher *h, int64_t number)
{
    ra_hasher_add(h, &number, sizeof number);
}

static uint64_t hash_all(const ra_tokenizer *t)
{
    ra_hasher *h = ra_hasher_new();
    const ra_bpe *b = &t->bpe;
    hash_number(h, b->ignore_merges), hash_number(h, b->unknown), hash_number(h, t->nfc);
    for (int32_t id = 0; id < b->tokens; id++) { /* added tokens come below, whether BPE has them or not */
        if (b->start[id] < 0 || t->added_of[id] >= 0) continue;
        hash_number(h, id), hash_number(h, b->length[id]);
        ra_hasher_add(h, b->bytes.data + b->start[id], (size_t)b->length[id]);
    }
    for (size_t i = 0; i <= b->pair_mask; i++) { /* the table's order follows from its content and the order of the merges */
        hash_number(h, (int64_t)b->pairs[i].key), hash_number(h, b->pairs[i].rank);
    }
    for (int i = 0; i < t->pretok.n; i++) {
        const ra_step *s = &t->pretok.step[i];
        hash_number(h, s->kind), hash_number(h, s->drop_matches), hash_number(h, s->drop_gaps);
        if (s->pattern) ra_hasher_add(h, s->pattern, strlen(s->pattern));
    }
    for (int32_t i = 0; i < t->n_added; i++) {
        const ra_added *a = &t->added[i];
        hash_number(h, a->id);
        hash_number(h, a->special << 4 | a->single_word << 3 | a->lstrip << 2 | a->rstrip << 1 | a->normalized);
        ra_hasher_add(h, a->text, a->length);
    }
    hash_number(h, t->n_prefix), hash_number(h, t->n_suffix);
    ra_hasher_add(h, t->prefix, sizeof t->prefix);
    ra_hasher_add(h, t->suffix, sizeof t->suffix);
    return ra_hasher_end(h).low;
}

static bool has_suffix(const char *text, const char *suffix)
{
    size_t n = strlen(text), k = strlen(suffix);
    return n >= k && !strcmp(text + n - k, suffix);
}

static bool is_gguf(const char *path)
{
    ra_map map;
    if (ra_map_open(path, &map) != RA_OK) return false;
    bool yes = map.size >= 4 && !memcmp(map.data, "GGUF", 4);
    ra_map_close(&map);
    return yes;
}

static ra_err load(ra_tokenizer *t, const char *model)
{
    if (!ra_file_exists(model)) {
        return ra_fail(RA_ERR_IO, "%s: no such file or directory; a model directory, a tokenizer.json or a GGUF file", model);
    }
    if (!ra_file_is_dir(model)) {
        if (has_suffix(model, ".gguf") || is_gguf(model)) return ra_tok_load_gguf(t, model);
        const char *slash = strrchr(model, '/');
        char *dir = slash ? ra_strndup(model, (size_t)(slash - model) + 1) : ra_strdup(".");
        ra_err err = ra_tok_load_json(t, model, dir);
        free(dir);
        return err;
    }
    char *path = ra_path_join(model, "tokenizer.json");
    ra_err err = RA_OK;
    if (ra_file_exists(path)) {
        err = ra_tok_load_json(t, path, model);
    } else {
        err = ra_fail(RA_ERR_IO, "%s: no tokenizer.json in this directory", model);
    }
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
    if (err != RA_OK) {
        ra_tokenizer_close(t);
        return err;
    }
    index_added(t);
    t->hash = hash_all(t);
    *out = t;
    return RA_OK;
}

static void work_free(ra_tok_work *w)
{
    if (!w) return;
    ra_bpe_work_free(&w->bpe);
    ra_pretok_work_free(&w->pretok);
    ra_nfc_free(&w->nfc);
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
    ra_pretok_free(&t->pretok);
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
    int32_t id = ra_bytelevel_decode(token, n, &bytes) ? ra_bpe_find(&t->bpe, bytes.data, bytes.length) : -1;
    ra_buf_free(&bytes);
    return id;
}

uint64_t ra_tokenizer_hash(const ra_tokenizer *t)
{
    return t->hash;
}

const char *ra_tokenizer_chat_template(const ra_tokenizer *t)
{
    return t->chat_template;
}
