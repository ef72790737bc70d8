/* What lies beside a tokenizer's file: tokenizer_config.json and its smaller kin. */
#include "tok.h"

#include <realign/file.h>
#include <stdlib.h>
#include <string.h>

const char *ra_json_text(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

bool ra_json_flag(const json_t *object, const char *key, bool otherwise)
{
    const json_t *value = json_object_get(object, key);
    return json_is_boolean(value) ? json_boolean_value(value) : otherwise;
}

ra_err ra_json_object_file(const char *dir, const char *name, json_t **out)
{
    char *path = ra_path_join(dir, name);
    ra_err err = RA_OK;
    *out = NULL;
    if (ra_file_exists(path)) {
        json_error_t error;
        *out = json_load_file(path, 0, &error);
        /* A model_max_length of 1e30 in digits is common. */
        if (!*out && json_error_code(&error) == json_error_numeric_overflow) {
            *out = json_load_file(path, JSON_DECODE_INT_AS_REAL, &error);
        }
        if (!json_is_object(*out)) {
            err = ra_fail(RA_ERR_FORMAT, "%s: line %d: %s", path, error.line, *out ? "not an object" : error.text);
            json_decref(*out);
            *out = NULL;
        }
    }
    free(path);
    return err;
}

char *ra_tok_dir_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? ra_strndup(path, (size_t)(slash - path) + 1) : ra_strdup(".");
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
        const char *name = ra_json_text(item, "name");
        if (name && !strcmp(name, "default")) return ra_json_text(item, "template");
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

ra_err ra_tok_load_config(ra_tokenizer *t, const char *dir)
{
    json_t *config;
    load_stops(t, dir);
    RA_TRY(ra_json_object_file(dir, "tokenizer_config.json", &config));
    if (config) {
        int32_t bos = config_token(t, config, "bos_token"), eos = config_token(t, config, "eos_token");
        if (bos >= 0 || json_object_get(config, "bos_token")) t->bos = bos;
        if (eos >= 0 || json_object_get(config, "eos_token")) t->eos = eos;
        const char *text = config_template(config);
        if (text) t->chat_template = ra_strdup(text);
        json_decref(config);
    }
    char *jinja = ra_path_join(dir, "chat_template.jinja");
    ra_err err = RA_OK;
    if (ra_file_exists(jinja)) {
        ra_buf text = {0};
        err = ra_file_read(jinja, &text);
        free(t->chat_template);
        t->chat_template = ra_strdup(text.data ? text.data : "");
        ra_buf_free(&text);
    }
    free(jinja);
    return err;
}

typedef bool (*skipper)(const void *context, const ra_added *a);

static ra_err add_listed(ra_tokenizer *t, const char *where, json_int_t id, const json_t *content, const json_t *flags,
                         bool special, skipper skip, const void *context)
{
    if (!json_string_length(content) || id < 0 || id > RA_TOK_MAX_ID) {
        return ra_fail(RA_ERR_FORMAT, "%s: an added token needs a content and an id from 0 to %d", where, RA_TOK_MAX_ID);
    }
    ra_added a = {.id = (int32_t)id,
                  .text = (char *)(uintptr_t)json_string_value(content),
                  .length = json_string_length(content),
                  .special = special,
                  .single_word = ra_json_flag(flags, "single_word", false),
                  .lstrip = ra_json_flag(flags, "lstrip", false),
                  .rstrip = ra_json_flag(flags, "rstrip", false),
                  .normalized = ra_json_flag(flags, "normalized", false)};
    if (!skip || !skip(context, &a)) ra_tok_add(t, a);
    return RA_OK;
}

ra_err ra_tok_load_added_decoder(ra_tokenizer *t, const char *dir, skipper skip, const void *context, bool *listed)
{
    json_t *config, *list, *value;
    const char *key;
    RA_TRY(ra_json_object_file(dir, "tokenizer_config.json", &config));
    list = json_object_get(config, "added_tokens_decoder"); /* {"2": {"content": "<bos>", ...}} */
    *listed = json_object_size(list) > 0;
    ra_err err = RA_OK;
    json_object_foreach(list, key, value)
    {
        char *end;
        long id = strtol(key, &end, 10);
        err = add_listed(t, "tokenizer_config.json: added_tokens_decoder", *end || !*key ? -1 : id,
                         json_object_get(value, "content"), value, ra_json_flag(value, "special", false), skip, context);
        if (err != RA_OK) break;
    }
    json_decref(config);
    if (err != RA_OK || *listed) return err;
    RA_TRY(ra_json_object_file(dir, "added_tokens.json", &config)); /* {"<|im_end|>": 151645}: older directories */
    *listed = json_object_size(config) > 0;
    json_object_foreach(config, key, value)
    {
        json_t *content = json_string(key);
        err = add_listed(t, "added_tokens.json", json_is_integer(value) ? json_integer_value(value) : -1, content, NULL, true,
                         skip, context);
        json_decref(content);
        if (err != RA_OK) break;
    }
    json_decref(config);
    return err;
}

ra_err ra_tok_load_frame(ra_tokenizer *t, const char *dir, bool bos)
{
    json_t *config;
    RA_TRY(ra_json_object_file(dir, "tokenizer_config.json", &config));
    if (t->bos >= 0 && ra_json_flag(config, "add_bos_token", bos)) t->prefix[t->n_prefix++] = t->bos;
    if (t->eos >= 0 && ra_json_flag(config, "add_eos_token", false)) t->suffix[t->n_suffix++] = t->eos;
    json_decref(config);
    return RA_OK;
}
