/* tokenizer.json of Hugging Face's tokenizers library, byte-level BPE. What this reader does not know it refuses by name. */
#include "tok.h"

#include <jansson.h>
#include <realign/file.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    ra_tokenizer *t;
    const char *path;
} loader;

static const char *text_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static bool flag_of(const json_t *object, const char *key, bool otherwise)
{
    const json_t *value = json_object_get(object, key);
    return json_is_boolean(value) ? json_boolean_value(value) : otherwise;
}

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
    ra_buf bytes = {0};
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
        ra_buf_clear(&bytes);
        /* A token outside of the byte-level alphabet cannot come out of BPE; it is an added token, or unreachable. */
        if (*token && ra_bytelevel_decode(token, strlen(token), &bytes)) {
            ra_bpe_add_token(&l->t->bpe, (int32_t)id, bytes.data, bytes.length);
        }
        if (id >= l->t->size) l->t->size = (int32_t)id + 1;
    }
    ra_buf_free(&bytes);
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
    ra_bpe_index(&l->t->bpe, json_array_size(merges));
    ra_buf left = {0}, right = {0};
    ra_err err = RA_OK;
    for (size_t i = 0; err == RA_OK && i < json_array_size(merges); i++) {
        const char *a, *b;
        size_t n_a, n_b;
        ra_buf_clear(&left);
        ra_buf_clear(&right);
        if (!merge_parts(json_array_get(merges, i), &a, &n_a, &b, &n_b)) {
            err = ra_fail(RA_ERR_FORMAT, "%s: model.merges[%zu] must be \"left right\" or [\"left\", \"right\"]", l->path, i);
        } else if (!ra_bytelevel_decode(a, n_a, &left) || !ra_bytelevel_decode(b, n_b, &right) ||
                   !ra_bpe_add_merge(&l->t->bpe, (uint32_t)i, left.data, left.length, right.data, right.length)) {
            err = ra_fail(RA_ERR_FORMAT, "%s: model.merges[%zu]: \"%.*s\", \"%.*s\" or both joined is not in model.vocab",
                          l->path, i, (int)n_a, a, (int)n_b, b);
        }
    }
    ra_buf_free(&left);
    ra_buf_free(&right);
    return err;
}

static ra_err load_model(loader *l, const json_t *model)
{
    const char *type = text_of(model, "type");
    if (!json_is_object(model)) return ra_fail(RA_ERR_FORMAT, "%s: no model in it; is this a tokenizer.json?", l->path);
    if (type ? strcmp(type, "BPE") != 0 : !json_object_get(model, "merges")) {
        return ra_fail(RA_ERR_UNSUPPORTED, "%s: a tokenizer model of type %s; byte-level BPE is what can be read", l->path,
                       type ? type : "unknown");
    }
    static const char *const REFUSED[] = {"dropout", "continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < sizeof REFUSED / sizeof *REFUSED; i++) {
        const json_t *value = json_object_get(model, REFUSED[i]);
        if (is_set(model, REFUSED[i]) && !(json_is_number(value) && json_number_value(value) == 0)) {
            return ra_fail(RA_ERR_UNSUPPORTED, "%s: model.%s is set; only byte-level BPE without it can be read", l->path,
                           REFUSED[i]);
        }
    }
    l->t->bpe.ignore_merges = flag_of(model, "ignore_merges", false);
    RA_TRY(load_vocabulary(l, json_object_get(model, "vocab")));
    const json_t *unknown = json_object_get(model, "unk_token");
    const json_t *unknown_id =
        json_is_string(unknown) ? json_object_get(json_object_get(model, "vocab"), json_string_value(unknown)) : NULL;
    l->t->bpe.unknown = unknown_id ? (int32_t)json_integer_value(unknown_id) : -1;
    RA_TRY(load_merges(l, json_object_get(model, "merges")));
    for (int c = 0; c < 256 && unknown_id && flag_of(model, "fuse_unk", false); c++) {
        if (l->t->bpe.byte_id[c] == l->t->bpe.unknown) {
            return ra_fail(RA_ERR_UNSUPPORTED, "%s: model.fuse_unk is set and byte 0x%02X has no token", l->path, (unsigned)c);
        }
    }
    return RA_OK;
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
        bool special = flag_of(item, "special", false);
        ra_tok_add(l->t, (ra_added){.id = (int32_t)number,
                                    .text = (char *)(uintptr_t)json_string_value(content),
                                    .length = json_string_length(content),
                                    .special = special,
                                    .single_word = flag_of(item, "single_word", false),
                                    .lstrip = flag_of(item, "lstrip", false),
                                    .rstrip = flag_of(item, "rstrip", false),
                                    .normalized = flag_of(item, "normalized", !special)});
    }
    return RA_OK;
}

static ra_err load_normalizer(loader *l, const json_t *n)
{
    if (!n || json_is_null(n)) return RA_OK;
    const char *type = text_of(n, "type");
    if (type && !strcmp(type, "NFC")) {
        l->t->nfc = true;
        return RA_OK;
    }
    if (type && !strcmp(type, "Sequence")) {
        size_t i;
        json_t *item;
        json_array_foreach(json_object_get(n, "normalizers"), i, item) RA_TRY(load_normalizer(l, item));
        return RA_OK;
    }
    return ra_fail(RA_ERR_UNSUPPORTED, "%s: normalizer %s; known: NFC, Sequence", l->path, type ? type : "without a type");
}

static char *quote_literal(const char *literal)
{
    ra_buf out = {0};
    for (; *literal; literal++) {
        if (strchr("\\^$.[]|()?*+{}-#", *literal)) ra_buf_adds(&out, "\\");
        ra_buf_add(&out, literal, 1);
    }
    ra_buf_adds(&out, "");
    return out.data;
}

static ra_err load_split(loader *l, const json_t *step)
{
    const json_t *pattern = json_object_get(step, "pattern");
    const char *regex = text_of(pattern, "Regex"), *literal = text_of(pattern, "String");
    const char *behaviour = text_of(step, "behavior");
    bool removed = behaviour && !strcmp(behaviour, "Removed");
    if (!regex && (!literal || !*literal)) {
        return ra_fail(RA_ERR_FORMAT, "%s: a Split pre-tokenizer needs a pattern: {\"Regex\": ...} or {\"String\": ...}",
                       l->path);
    }
    if (!removed && (!behaviour || strcmp(behaviour, "Isolated") != 0)) {
        return ra_fail(RA_ERR_UNSUPPORTED, "%s: Split with behavior %s; known: Isolated, Removed", l->path,
                       behaviour ? behaviour : "missing");
    }
    char *quoted = regex ? NULL : quote_literal(literal);
    bool invert = flag_of(step, "invert", false);
    /* A scanner makes every byte part of a word; what is dropped is a matter for the library. */
    ra_err err = ra_pretok_add_split(&l->t->pretok, l->path, regex ? regex : quoted, removed && invert);
    free(quoted);
    RA_TRY(err);
    ra_step *made = &l->t->pretok.step[l->t->pretok.n - 1];
    made->drop_matches = removed && !invert;
    made->drop_gaps = removed && invert;
    return RA_OK;
}

/* *level: a ByteLevel step was met; nothing may come after it. */
static ra_err load_pretokenizer(loader *l, const json_t *p, bool *level)
{
    const char *type = text_of(p, "type");
    if (type && *level) {
        return ra_fail(RA_ERR_UNSUPPORTED, "%s: the pre-tokenizer %s comes after ByteLevel, which must be the last", l->path,
                       type);
    }
    if (type && !strcmp(type, "Sequence")) {
        size_t i;
        json_t *item;
        json_array_foreach(json_object_get(p, "pretokenizers"), i, item) RA_TRY(load_pretokenizer(l, item, level));
        return RA_OK;
    }
    if (type && !strcmp(type, "Split")) return load_split(l, p);
    if (type && !strcmp(type, "Digits")) {
        bool each = flag_of(p, "individual_digits", false);
        return ra_pretok_add(&l->t->pretok, l->path, each ? RA_STEP_DIGITS : RA_STEP_DIGIT_RUNS);
    }
    if (type && !strcmp(type, "ByteLevel")) {
        *level = true;
        if (flag_of(p, "add_prefix_space", true)) RA_TRY(ra_pretok_add(&l->t->pretok, l->path, RA_STEP_PREFIX_SPACE));
        return flag_of(p, "use_regex", true) ? ra_pretok_add_split(&l->t->pretok, l->path, RA_PATTERN_GPT2, false) : RA_OK;
    }
    return ra_fail(RA_ERR_UNSUPPORTED, "%s: pre-tokenizer %s; known: Split, Digits, ByteLevel, Sequence", l->path,
                   type ? type : "missing");
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
        const char *name = text_of(json_object_get(part, "SpecialToken"), "id");
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

static ra_err load_postprocessor(loader *l, const json_t *post)
{
    if (!post || json_is_null(post)) return RA_OK;
    const char *type = text_of(post, "type");
    if (type && !strcmp(type, "ByteLevel")) return RA_OK; /* trims offsets only */
    if (type && !strcmp(type, "TemplateProcessing")) return load_frame(l, post);
    if (type && !strcmp(type, "Sequence")) {
        size_t i;
        json_t *item;
        json_array_foreach(json_object_get(post, "processors"), i, item) RA_TRY(load_postprocessor(l, item));
        return RA_OK;
    }
    return ra_fail(RA_ERR_UNSUPPORTED, "%s: post-processor %s; known: ByteLevel, TemplateProcessing, Sequence", l->path,
                   type ? type : "without a type");
}

static ra_err check_decoder(loader *l, const json_t *decoder)
{
    const char *type = text_of(decoder, "type");
    if (!decoder || json_is_null(decoder) || (type && !strcmp(type, "ByteLevel"))) return RA_OK;
    if (type && !strcmp(type, "Sequence")) {
        size_t i;
        json_t *item;
        json_array_foreach(json_object_get(decoder, "decoders"), i, item) RA_TRY(check_decoder(l, item));
        return RA_OK;
    }
    return ra_fail(RA_ERR_UNSUPPORTED, "%s: decoder %s; known: ByteLevel (SentencePiece models come in another form)", l->path,
                   type ? type : "without a type");
}

static ra_err load_root(loader *l, const json_t *root)
{
    bool level = false;
    if (is_set(json_object_get(root, "model"), "byte_fallback")) {
        return ra_fail(RA_ERR_UNSUPPORTED,
                       "%s: a SentencePiece tokenizer (model.byte_fallback is set); byte-level BPE is what can be read", l->path);
    }
    /* The small parts first: a tokenizer of another kind is refused before its vocabulary is taken apart. */
    const char *type = text_of(json_object_get(root, "model"), "type");
    if (!type || !strcmp(type, "BPE")) {
        RA_TRY(load_normalizer(l, json_object_get(root, "normalizer")));
        RA_TRY(check_decoder(l, json_object_get(root, "decoder")));
        const json_t *p = json_object_get(root, "pre_tokenizer");
        if (p && !json_is_null(p)) RA_TRY(load_pretokenizer(l, p, &level));
        if (!level && json_is_object(json_object_get(root, "model"))) {
            return ra_fail(RA_ERR_UNSUPPORTED, "%s: BPE without a ByteLevel pre-tokenizer; only byte-level BPE can be read",
                           l->path);
        }
        RA_TRY(load_postprocessor(l, json_object_get(root, "post_processor")));
    }
    RA_TRY(load_model(l, json_object_get(root, "model")));
    return load_added(l, json_object_get(root, "added_tokens"));
}

/* A token of tokenizer_config.json: "text" or {"content": "text"}. */
static int32_t config_token(const ra_tokenizer *t, const json_t *config, const char *key)
{
    const json_t *value = json_object_get(config, key);
    if (json_is_object(value)) value = json_object_get(value, "content");
    return json_is_string(value) ? ra_tokenizer_id(t, json_string_value(value)) : -1;
}

/* chat_template: a text, or a list of {name, template} of which "default" counts. */
static const char *config_template(const json_t *config)
{
    const json_t *value = json_object_get(config, "chat_template");
    size_t i;
    json_t *item;
    json_array_foreach(value, i, item)
    {
        const char *name = text_of(item, "name");
        if (name && !strcmp(name, "default")) return text_of(item, "template");
    }
    return json_string_value(value);
}

/* eos_token_id of generation_config.json: a number or a list; where the file is not there or not JSON, none. */
static void load_stops(ra_tokenizer *t, const char *dir)
{
    char *path = ra_path_join(dir, "generation_config.json");
    json_t *config = ra_file_exists(path) ? json_load_file(path, 0, NULL) : NULL;
    const json_t *value = json_object_get(config, "eos_token_id");
    size_t n = json_is_array(value) ? json_array_size(value) : 1;
    for (size_t i = 0; i < n && t->n_stop < RA_TOK_FRAME; i++) {
        const json_t *id = json_is_array(value) ? json_array_get(value, i) : value;
        if (json_is_integer(id) && json_integer_value(id) >= 0 && json_integer_value(id) < t->size) {
            t->stop[t->n_stop++] = (int32_t)json_integer_value(id);
        }
    }
    json_decref(config);
    free(path);
}

static ra_err load_config(ra_tokenizer *t, const char *dir)
{
    load_stops(t, dir);
    char *path = ra_path_join(dir, "tokenizer_config.json"), *jinja = ra_path_join(dir, "chat_template.jinja");
    ra_err err = RA_OK;
    if (ra_file_exists(path)) {
        json_error_t error;
        json_t *config = json_load_file(path, 0, &error);
        if (!json_is_object(config)) {
            err = ra_fail(RA_ERR_FORMAT, "%s: line %d: %s", path, error.line, config ? "not an object" : error.text);
        } else {
            t->bos = config_token(t, config, "bos_token");
            t->eos = config_token(t, config, "eos_token");
            const char *text = config_template(config);
            if (text) t->chat_template = ra_strdup(text);
        }
        json_decref(config);
    }
    if (err == RA_OK && ra_file_exists(jinja)) {
        ra_buf text = {0};
        err = ra_file_read(jinja, &text);
        free(t->chat_template);
        t->chat_template = ra_strdup(text.data ? text.data : "");
        ra_buf_free(&text);
    }
    free(path);
    free(jinja);
    return err;
}

ra_err ra_tok_load_json(ra_tokenizer *t, const char *json_path, const char *dir)
{
    ra_buf text = {0};
    json_error_t error;
    RA_TRY(ra_file_read(json_path, &text));
    json_t *root = json_loadb(text.data ? text.data : "", text.length, JSON_ALLOW_NUL, &error);
    ra_buf_free(&text);
    if (!json_is_object(root)) {
        ra_err err =
            ra_fail(RA_ERR_FORMAT, "%s: line %d: %s", json_path, root ? 1 : error.line, root ? "not an object" : error.text);
        json_decref(root);
        return err;
    }
    loader l = {t, json_path};
    ra_err err = load_root(&l, root);
    json_decref(root);
    return err == RA_OK ? load_config(t, dir) : err;
}
