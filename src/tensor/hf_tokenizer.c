/* Tokenizer files beside a converted model: copied from a directory, or made from a GGUF's embedded vocabulary (byte-level BPE here). */
#include "hf_tokenizer.h"

#include <realign/file.h>
#include <realign/hfdir.h>
#include <realign/mem.h>

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#define LETTERS_AND_REST "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"

/* What stands in the original tokenizer.json for each name in tokenizer.ggml.pre. */
typedef struct {
    const char *pre;
    const char *split;  /* regular expression that isolates the pieces, NULL: ByteLevel's own */
    bool digits;        /* every digit alone */
    bool nfc;           /* normalizer */
    bool ignore_merges; /* a piece that is a token stays whole */
    bool bos;           /* in front of every text, unless the metadata says otherwise */
    bool trim_offsets;
} recipe;

static const recipe recipes[] = {
    {"smollm", NULL, true, false, false, false, true},
    {"gpt-2", NULL, false, false, false, false, true},
    {"llama-bpe", CONTRACTIONS "\\p{N}{1,3}" LETTERS_AND_REST, false, false, true, true, true},
    {"qwen2", CONTRACTIONS "\\p{N}" LETTERS_AND_REST, false, true, false, false, false},
};
enum { RECIPES = sizeof recipes / sizeof recipes[0] };

typedef struct {
    ra_hf_vocabulary of;
    const recipe *how;
    ra_str *merge;
    int64_t merges;
    int64_t after_normal; /* id behind the last normal token */
    bool tail; /* the added tokens follow the normal ones without a gap: they stay out of the vocabulary, as in the originals */
} vocabulary;

static bool added(const vocabulary *v, int64_t id)
{
    return v->of.type[id] == RA_GGUF_CONTROL || v->of.type[id] == RA_GGUF_USER_DEFINED;
}

static ra_err read_vocabulary(vocabulary *v)
{
    ra_str model = {"", 0}, pre = {"", 0};
    ra_gguf_text(v->of.g, "tokenizer.ggml.model", &model);
    ra_gguf_text(v->of.g, "tokenizer.ggml.pre", &pre);
    if (model.length != 4 || memcmp(model.data, "gpt2", 4) != 0) {
        return ra_fail(RA_ERR_UNSUPPORTED,
                       "%s: tokenizer.ggml.model is \"%.*s\"; tokenizer files can be made of \"gpt2\" and \"llama\" only: name "
                       "a directory with tokenizer files by --tokenizer DIR, or --tokenizer none",
                       v->of.path, (int)(model.length < 60 ? model.length : 60), model.data);
    }
    for (int i = 0; i < RECIPES; i++) {
        if (strlen(recipes[i].pre) == pre.length && memcmp(recipes[i].pre, pre.data, pre.length) == 0) v->how = &recipes[i];
    }
    if (!v->how) {
        return ra_fail(RA_ERR_UNSUPPORTED,
                       "%s: tokenizer.ggml.pre is \"%.*s\"; known are smollm, gpt-2, llama-bpe and qwen2: name a directory with "
                       "tokenizer files by --tokenizer DIR, or --tokenizer none",
                       v->of.path, (int)(pre.length < 60 ? pre.length : 60), pre.data);
    }
    int64_t types;
    if (!ra_gguf_text_array(v->of.g, "tokenizer.ggml.tokens", &v->of.token, &v->of.tokens) ||
        !ra_gguf_text_array(v->of.g, "tokenizer.ggml.merges", &v->merge, &v->merges) ||
        !ra_gguf_i64_array(v->of.g, "tokenizer.ggml.token_type", &v->of.type, &types)) {
        return ra_fail(RA_ERR_FORMAT, "%s: tokenizer.ggml.tokens, .merges or .token_type is missing or has another type",
                       v->of.path);
    }
    if (types != v->of.tokens) {
        return ra_fail(RA_ERR_FORMAT, "%s: %lld tokens, but %lld token types", v->of.path, (long long)v->of.tokens,
                       (long long)types);
    }
    int64_t last = -1;
    for (int64_t id = 0; id < v->of.tokens; id++) {
        if (v->of.type[id] == RA_GGUF_NORMAL) v->after_normal = id + 1;
        if (added(v, id)) last = id;
    }
    v->tail = true;
    for (int64_t id = 0; id <= last; id++) v->tail = v->tail && (added(v, id) == (id >= v->after_normal));
    return RA_OK;
}

static json_t *added_token(const ra_hf_vocabulary *v, int64_t id, bool with_id)
{
    json_t *t = json_pack("{s:s%, s:b, s:b, s:b, s:b, s:b}", "content", v->token[id].data, v->token[id].length, "single_word", 0,
                          "lstrip", 0, "rstrip", 0, "normalized", 0, "special", v->type[id] != RA_GGUF_USER_DEFINED);
    if (!t || !with_id) return t;
    json_t *ordered = json_pack("{s:I}", "id", (json_int_t)id);
    json_object_update(ordered, t);
    json_decref(t);
    return ordered;
}

static json_t *byte_level(bool add_prefix_space, bool trim_offsets, bool use_regex)
{
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", add_prefix_space, "trim_offsets",
                     trim_offsets, "use_regex", use_regex);
}

static json_t *pre_tokenizer(const recipe *how)
{
    json_t *last = byte_level(false, how->trim_offsets, how->split == NULL);
    if (how->digits) {
        return json_pack("{s:s, s:[{s:s, s:b}, o]}", "type", "Sequence", "pretokenizers", "type", "Digits", "individual_digits",
                         1, last);
    }
    if (!how->split) return last;
    return json_pack("{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, o]}", "type", "Sequence", "pretokenizers", "type", "Split", "pattern",
                     "Regex", how->split, "behavior", "Isolated", "invert", 0, last);
}

static json_t *token_text(const ra_hf_vocabulary *v, const char *key)
{
    int64_t id;
    if (!ra_gguf_i64(v->g, key, &id) || id < 0 || id >= v->tokens) return json_null();
    return json_stringn(v->token[id].data, v->token[id].length);
}

/* BOS in front and EOS behind, as the metadata's flags say. */
static json_t *post_processor(const vocabulary *v)
{
    int64_t bos = v->how->bos, eos = 0, id;
    ra_gguf_i64(v->of.g, "tokenizer.ggml.add_bos_token", &bos);
    ra_gguf_i64(v->of.g, "tokenizer.ggml.add_eos_token", &eos);
    if (!bos && !eos) return json_null();
    json_t *single = json_array(), *pair = json_array(), *special = json_object();
    for (int part = 0; part < 2; part++) {
        for (int place = 0; place < 3; place++) { /* BOS, the text, EOS */
            json_t *item = NULL;
            const char *key = place == 0 ? "tokenizer.ggml.bos_token_id" : "tokenizer.ggml.eos_token_id";
            if (place == 1) {
                item = json_pack("{s:{s:s, s:i}}", "Sequence", "id", part ? "B" : "A", "type_id", part);
            } else if ((place == 0 ? bos : eos) && ra_gguf_i64(v->of.g, key, &id) && id >= 0 && id < v->of.tokens) {
                json_t *text = token_text(&v->of, key);
                json_object_set_new(special, json_string_value(text),
                                    json_pack("{s:O, s:[I], s:[O]}", "id", text, "ids", (json_int_t)id, "tokens", text));
                item = json_pack("{s:{s:o, s:i}}", "SpecialToken", "id", text, "type_id", part);
            }
            if (!item) continue;
            if (part == 0) json_array_append(single, item);
            json_array_append_new(pair, item);
        }
    }
    return json_pack("{s:s, s:o, s:o, s:o}", "type", "TemplateProcessing", "single", single, "pair", pair, "special_tokens",
                     special);
}

static ra_err vocabulary_json(const vocabulary *v, json_t **vocab, json_t **merges, json_t **added_tokens)
{
    *vocab = json_object();
    *merges = json_array();
    *added_tokens = json_array();
    for (int64_t id = 0; id < v->of.tokens; id++) {
        const ra_str text = v->of.token[id];
        if (added(v, id) && json_array_append_new(*added_tokens, added_token(&v->of, id, true)) != 0) {
            return ra_fail(RA_ERR_FORMAT, "%s: token %lld is not UTF-8", v->of.path, (long long)id);
        }
        if (v->of.type[id] != RA_GGUF_NORMAL && !(added(v, id) && !v->tail)) continue;
        char *key = ra_strndup(text.data, text.length);
        bool good = strlen(key) == text.length && !json_object_get(*vocab, key) &&
                    json_object_set_new(*vocab, key, json_integer(id)) == 0;
        free(key);
        if (!good)
            return ra_fail(RA_ERR_FORMAT, "%s: token %lld is not UTF-8, holds a NUL or occurs twice", v->of.path, (long long)id);
    }
    for (int64_t i = 0; i < v->merges; i++) {
        if (json_array_append_new(*merges, json_stringn(v->merge[i].data, v->merge[i].length)) != 0) {
            return ra_fail(RA_ERR_FORMAT, "%s: merge %lld is not UTF-8", v->of.path, (long long)i);
        }
    }
    return RA_OK;
}

static ra_err write_tokenizer(const vocabulary *v, const char *out_dir)
{
    json_t *vocab, *merges, *added_tokens;
    ra_err err = vocabulary_json(v, &vocab, &merges, &added_tokens);
    json_t *model = json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout", "unk_token",
                              "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0, "byte_fallback", 0,
                              "ignore_merges", v->how->ignore_merges, "vocab", vocab, "merges", merges);
    json_t *root = json_pack(
        "{s:s, s:n, s:n, s:o, s:o, s:o, s:o, s:o, s:o}", "version", "1.0", "truncation", "padding", "added_tokens", added_tokens,
        "normalizer", v->how->nfc ? json_pack("{s:s}", "type", "NFC") : json_null(), "pre_tokenizer", pre_tokenizer(v->how),
        "post_processor", post_processor(v), "decoder", byte_level(true, true, true), "model", model);
    if (err == RA_OK) err = ra_hf_write_json(out_dir, "tokenizer.json", root);
    json_decref(root);
    return err;
}

ra_err ra_hf_write_tokenizer_config(const ra_hf_vocabulary *v, const ra_modelfile *model, bool user_defined, json_t *config,
                                    const char *out_dir)
{
    json_t *decoder = json_object();
    for (int64_t id = 0; id < v->tokens; id++) {
        int64_t type = v->type[id];
        if (type != RA_GGUF_CONTROL && (user_defined ? type != RA_GGUF_USER_DEFINED : type != RA_GGUF_UNKNOWN)) continue;
        char *key = ra_format("%lld", (long long)id);
        json_object_set_new(decoder, key, added_token(v, id, false));
        free(key);
    }
    json_object_set_new(config, "added_tokens_decoder", decoder);
    json_object_set_new(config, "bos_token", token_text(v, "tokenizer.ggml.bos_token_id"));
    json_object_set_new(config, "eos_token", token_text(v, "tokenizer.ggml.eos_token_id"));
    json_object_set_new(config, "unk_token", token_text(v, "tokenizer.ggml.unknown_token_id"));
    json_object_set_new(config, "pad_token", token_text(v, "tokenizer.ggml.padding_token_id"));
    ra_str template;
    if (ra_gguf_text(v->g, "tokenizer.chat_template", &template)) {
        json_object_set_new(config, "chat_template", json_stringn(template.data, template.length));
    }
    json_object_set_new(config, "clean_up_tokenization_spaces", json_false());
    char *text;
    if (ra_modelfile_config_json(model, &text) == RA_OK) { /* a vocabulary alone has no context length */
        json_t *shape = json_loads(text, 0, NULL);
        json_object_set(config, "model_max_length", json_object_get(shape, "max_position_embeddings"));
        json_decref(shape);
        free(text);
    }
    ra_err err = ra_hf_write_json(out_dir, "tokenizer_config.json", config);
    json_decref(config);
    return err;
}

static ra_err write_byte_level(const ra_modelfile *model, const char *out_dir)
{
    vocabulary v = {.of = {.path = ra_modelfile_path(model), .g = ra_modelfile_gguf(model)}};
    ra_err err = read_vocabulary(&v);
    if (err == RA_OK) err = write_tokenizer(&v, out_dir);
    if (err == RA_OK) {
        json_t *config = json_pack("{s:b, s:s}", "add_prefix_space", 0, "tokenizer_class", "PreTrainedTokenizerFast");
        err = ra_hf_write_tokenizer_config(&v.of, model, true, config, out_dir);
    }
    free(v.of.token);
    free(v.merge);
    free(v.of.type);
    return err;
}

ra_err ra_hf_gguf_tokenizer(const ra_modelfile *model, const char *out_dir)
{
    ra_str kind = {"", 0};
    ra_gguf_text(ra_modelfile_gguf(model), "tokenizer.ggml.model", &kind);
    bool pieces = kind.length == 5 && !memcmp(kind.data, "llama", 5);
    return pieces ? ra_hf_write_sentencepiece(model, out_dir) : write_byte_level(model, out_dir);
}

static bool is_tokenizer_file(const char *name)
{
    static const char *const exact[] = {"vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json", "vocab.txt"};
    for (size_t i = 0; i < sizeof exact / sizeof exact[0]; i++) {
        if (strcmp(name, exact[i]) == 0) return true;
    }
    size_t n = strlen(name);
    bool part = n > 5 && strcmp(name + n - 5, ".part") == 0;
    if (n > 9 && strcmp(name + n - 9, ".tiktoken") == 0) return true;
    return !part && (strncmp(name, "tokenizer", 9) == 0 || strncmp(name, "chat_template", 13) == 0);
}

ra_err ra_hf_copy_tokenizer(const char *from_dir, const char *out_dir, int *copied)
{
    *copied = 0;
    DIR *dir = opendir(from_dir);
    if (!dir) return ra_fail(RA_ERR_IO, "%s: %m", from_dir);
    ra_err err = RA_OK;
    for (const struct dirent *entry; err == RA_OK && (entry = readdir(dir));) {
        if (!is_tokenizer_file(entry->d_name)) continue;
        char *from = ra_path_join(from_dir, entry->d_name), *to = ra_path_join(out_dir, entry->d_name);
        if (!ra_file_is_dir(from)) {
            err = ra_file_copy(from, to);
            (*copied)++;
        }
        free(from);
        free(to);
    }
    closedir(dir);
    return err;
}
