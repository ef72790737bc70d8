/* tokenizer.json of Hugging Face's tokenizers library, BPE. What this reader does not know it refuses by name. */
#include "tok.h"

#include <realign/file.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    ra_tokenizer *t;
    const char *path;
} loader;

/* Is the key there with anything but null, false or an empty string? */
static bool is_set(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return value && !json_is_null(value) && !json_is_false(value) && !(json_is_string(value) && !json_string_length(value));
}

static ra_err load_vocabulary(loader *l, const json_t *vocab)
{
    if (!json_is_object(vocab) || !json_object_size(vocab)) {
        return ra_fail(RA_ERR_FORMAT, "%s: model.vocab must be an object of token: id", l->path);
    }
    ra_err err = RA_OK;
    const char *token;
    json_t *value;
    json_object_foreach((json_t *)vocab, token, value)
    {
        json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id > RA_TOK_MAX_ID) {
            err = ra_fail(RA_ERR_FORMAT, "%s: model.vocab: the id of \"%s\" must be a whole number from 0 to %d", l->path, token,
                          RA_TOK_MAX_ID);
            break;
        }
        if (id < l->t->bpe.tokens && l->t->bpe.start[id] >= 0) {
            err =
                ra_fail(RA_ERR_FORMAT, "%s: model.vocab: \"%s\" has id %d, which another token has too", l->path, token, (int)id);
            break;
        }
        if (*token && l->t->byte_level) {
            ra_tok_add_byte_level(l->t, (int32_t)id, token, strlen(token));
        } else if (*token) {
            ra_bpe_add_token(&l->t->bpe, (int32_t)id, RA_TOKEN_NORMAL, token, strlen(token));
        }
        if (id >= l->t->size) l->t->size = (int32_t)id + 1;
    }
    return err;
}

/* "left right" or ["left", "right"]. */
static bool merge_parts(const json_t *merge, const char **left, size_t *n_left, const char **right, size_t *n_right)
{
    if (json_is_string(merge)) {
        const char *text = json_string_value(merge);
        const char *space = strchr(text, ' ');
        if (!space || strchr(space + 1, ' ')) return false;
        *left = text, *n_left = (size_t)(space - text);
        *right = space + 1, *n_right = json_string_length(merge) - *n_left - 1;
    } else {
        const json_t *a = json_array_get(merge, 0), *b = json_array_get(merge, 1);
        if (json_array_size(merge) != 2 || !json_is_string(a) || !json_is_string(b)) return false;
        *left = json_string_value(a), *n_left = json_string_length(a);
        *right = json_string_value(b), *n_right = json_string_length(b);
    }
    return *n_left && *n_right;
}

static ra_err load_merges(loader *l, const json_t *merges)
{
    if (!json_is_array(merges)) return ra_fail(RA_ERR_FORMAT, "%s: model.merges must be an array", l->path);
    ra_bpe_index(&l->t->bpe);
    for (size_t i = 0; i < json_array_size(merges); i++) {
        const char *a, *b;
        size_t n_a, n_b;
        if (!merge_parts(json_array_get(merges, i), &a, &n_a, &b, &n_b)) {
            return ra_fail(RA_ERR_FORMAT, "%s: model.merges[%zu] must be \"left right\" or [\"left\", \"right\"]", l->path, i);
        }
        bool good = l->t->byte_level ? ra_tok_add_byte_level_merge(l->t, (uint32_t)i, a, n_a, b, n_b)
                                     : ra_bpe_add_merge(&l->t->bpe, (uint32_t)i, a, n_a, b, n_b);
        if (!good) {
            return ra_fail(RA_ERR_FORMAT, "%s: model.merges[%zu]: \"%.*s\", \"%.*s\" or both joined is not in model.vocab",
                           l->path, i, (int)n_a, a, (int)n_b, b);
        }
    }
    return RA_OK;
}

/* <0x00> to <0xFF>, and what else is done with characters that are no token. */
static ra_err load_unknowns(loader *l, const json_t *model)
{
    ra_bpe *b = &l->t->bpe;
    bool all = true;
    b->byte_fallback = ra_json_flag(model, "byte_fallback", false);
    b->fuse_unknown = ra_json_flag(model, "fuse_unk", false);
    for (int c = 0; c < 256; c++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)c);
        b->byte_token[c] = b->byte_fallback && b->chars ? ra_bpe_find(b, name, 6) : -1;
        all &= b->byte_token[c] >= 0;
    }
    bool complete = true;
    for (int c = 0; c < 256; c++) complete &= b->unit_id[c] >= 0;
    if (!b->chars && b->byte_fallback && !complete) {
        return ra_fail(RA_ERR_UNSUPPORTED, "%s: model.byte_fallback with a ByteLevel pre-tokenizer and bytes without a token",
                       l->path);
    }
    const char *unknown = ra_json_text(model, "unk_token");
    const json_t *id = unknown ? json_object_get(json_object_get(model, "vocab"), unknown) : NULL;
    if (unknown && !id && !all && !complete) {
        return ra_fail(RA_ERR_FORMAT, "%s: model.unk_token is \"%s\", which is not in model.vocab", l->path, unknown);
    }
    b->unknown = id ? (int32_t)json_integer_value(id) : -1;
    return RA_OK;
}

static ra_err check_model(loader *l, const json_t *model)
{
    const char *type = ra_json_text(model, "type");
    if (!json_is_object(model)) return ra_fail(RA_ERR_FORMAT, "%s: no model in it; is this a tokenizer.json?", l->path);
    if (type ? strcmp(type, "BPE") != 0 : !json_object_get(model, "merges")) {
        return ra_fail(RA_ERR_UNSUPPORTED,
                       "%s: a tokenizer model of type %s; BPE is what can be read (of WordPiece, Unigram and WordLevel nothing)",
                       l->path, type ? type : "unknown");
    }
    static const char *const REFUSED[] = {"dropout", "continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < sizeof REFUSED / sizeof *REFUSED; i++) {
        const json_t *value = json_object_get(model, REFUSED[i]);
        if (is_set(model, REFUSED[i]) && !(json_is_number(value) && json_number_value(value) == 0)) {
            return ra_fail(RA_ERR_UNSUPPORTED, "%s: model.%s is set; only BPE without it can be read", l->path, REFUSED[i]);
        }
    }
    return RA_OK;
}

static ra_err load_model(loader *l, const json_t *model)
{
    l->t->bpe.chars = !l->t->byte_level;
    l->t->bpe.ignore_merges = ra_json_flag(model, "ignore_merges", false);
    RA_TRY(load_vocabulary(l, json_object_get(model, "vocab")));
    RA_TRY(load_merges(l, json_object_get(model, "merges")));
    return load_unknowns(l, model);
}

static ra_err load_added(loader *l, const json_t *list)
{
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        const json_t *content = json_object_get(item, "content"), *id = json_object_get(item, "id");
        json_int_t number = json_is_integer(id) ? json_integer_value(id) : -1;
        if (!json_is_string(content) || number < 0 || number > RA_TOK_MAX_ID) {
            return ra_fail(RA_ERR_FORMAT, "%s: added_tokens[%zu] must have a content and an id from 0 to %d", l->path, i,
                           RA_TOK_MAX_ID);
        }
        bool special = ra_json_flag(item, "special", false);
        ra_tok_add(l->t, (ra_added){.id = (int32_t)number,
                                    .text = (char *)(uintptr_t)json_string_value(content),
                                    .length = json_string_length(content),
                                    .special = special,
                                    .single_word = ra_json_flag(item, "single_word", false),
                                    .lstrip = ra_json_flag(item, "lstrip", false),
                                    .rstrip = ra_json_flag(item, "rstrip", false),
                                    .normalized = ra_json_flag(item, "normalized", !special)});
    }
    return RA_OK;
}

static ra_err frame_add(loader *l, int32_t *frame, int *n, const json_t *id)
{
    json_int_t number = json_is_integer(id) ? json_integer_value(id) : -1;
    if (number < 0 || number > RA_TOK_MAX_ID || *n == RA_TOK_FRAME) {
        return ra_fail(RA_ERR_FORMAT, "%s: post_processor: bad id of a special token, or more than %d on one side", l->path,
                       RA_TOK_FRAME);
    }
    frame[(*n)++] = (int32_t)number;
    return RA_OK;
}

static ra_err load_frame(loader *l, const json_t *post)
{
    const json_t *specials = json_object_get(post, "special_tokens");
    bool after = false;
    size_t i, k;
    json_t *part, *id;
    json_array_foreach(json_object_get(post, "single"), i, part)
    {
        const char *name = ra_json_text(json_object_get(part, "SpecialToken"), "id");
        if (!name) {
            after = true;
            continue;
        }
        const json_t *ids = json_object_get(json_object_get(specials, name), "ids");
        if (!json_array_size(ids)) {
            return ra_fail(RA_ERR_FORMAT, "%s: post_processor: special token \"%s\" has no ids", l->path, name);
        }
        json_array_foreach(ids, k, id)
        {
            if (after) {
                RA_TRY(frame_add(l, l->t->suffix, &l->t->n_suffix, id));
            } else {
                RA_TRY(frame_add(l, l->t->prefix, &l->t->n_prefix, id));
            }
        }
    }
    return RA_OK;
}

/* ["<s>", 0] */
static ra_err load_frame_pair(loader *l, const json_t *post)
{
    RA_TRY(frame_add(l, l->t->prefix, &l->t->n_prefix, json_array_get(json_object_get(post, "cls"), 1)));
    return frame_add(l, l->t->suffix, &l->t->n_suffix, json_array_get(json_object_get(post, "sep"), 1));
}

static ra_err load_postprocessor(loader *l, const json_t *post)
{
    if (!post || json_is_null(post)) return RA_OK;
    const char *type = ra_json_text(post, "type");
    if (type && !strcmp(type, "ByteLevel")) return RA_OK; /* trims offsets only */
    if (type && !strcmp(type, "TemplateProcessing")) return load_frame(l, post);
    if (type && (!strcmp(type, "BertProcessing") || !strcmp(type, "RobertaProcessing"))) return load_frame_pair(l, post);
    if (type && !strcmp(type, "Sequence")) {
        size_t i;
        json_t *item;
        json_array_foreach(json_object_get(post, "processors"), i, item) RA_TRY(load_postprocessor(l, item));
        return RA_OK;
    }
    return ra_fail(RA_ERR_UNSUPPORTED,
                   "%s: post-processor %s; known: ByteLevel, TemplateProcessing, BertProcessing, RobertaProcessing, Sequence",
                   l->path, type ? type : "without a type");
}

static ra_err load_root(loader *l, const json_t *root)
{
    const json_t *model = json_object_get(root, "model");
    /* The small parts first: a tokenizer of another kind is refused before its vocabulary is taken apart. */
    RA_TRY(check_model(l, model));
    RA_TRY(ra_tok_json_normalizer(l->t, l->path, json_object_get(root, "normalizer")));
    RA_TRY(ra_tok_json_pretokenizer(l->t, l->path, json_object_get(root, "pre_tokenizer")));
    RA_TRY(ra_tok_json_decoder(l->t, l->path, json_object_get(root, "decoder")));
    RA_TRY(load_postprocessor(l, json_object_get(root, "post_processor")));
    RA_TRY(load_model(l, model));
    return load_added(l, json_object_get(root, "added_tokens"));
}

ra_err ra_tok_load_json(ra_tokenizer *t, const char *path)
{
    ra_buf text = {0};
    json_error_t error;
    RA_TRY(ra_file_read(path, &text));
    json_t *root = json_loadb(text.data ? text.data : "", text.length, JSON_ALLOW_NUL, &error);
    ra_buf_free(&text);
    if (!json_is_object(root)) {
        ra_err err = ra_fail(RA_ERR_FORMAT, "%s: line %d: %s", path, root ? 1 : error.line, root ? "not an object" : error.text);
        json_decref(root);
        return err;
    }
    loader l = {t, path};
    ra_err err = load_root(&l, root);
    json_decref(root);
    char *dir = ra_tok_dir_of(path);
    if (err == RA_OK) err = ra_tok_load_config(t, dir);
    free(dir);
    return err;
}
