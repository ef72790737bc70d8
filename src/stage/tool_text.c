/* realign tokenize, realign template: the tokenizer and the chat templates at a shell. */
#include <realign/tools.h>

#include <jansson.h>
#include <realign/tokenizer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *model, *template, *date;
    bool decode, keep_going;
    int flags;
    ra_tokenizer *tokenizer;
    ra_template *chat;
    ra_ids ids;
    ra_buf text;
    ra_rendered rendered;
} tool;

/* One line's value in, one value out. */
typedef ra_err (*convert)(tool *t, const json_t *in, json_t **out);

static const char *kind_of(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER:
    case JSON_REAL: return "a number";
    case JSON_NULL: return "null";
    default: return "true or false";
    }
}

static json_t *ids_json(const ra_ids *ids)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < ids->count; i++) json_array_append_new(list, json_integer(ids->id[i]));
    return list;
}

static ra_err encode_line(tool *t, const json_t *in, json_t **out)
{
    if (!json_is_string(in)) return ra_fail(RA_ERR_DATA, "%s where a string was expected", kind_of(in));
    ra_ids_clear(&t->ids);
    RA_TRY(ra_tokenizer_encode(t->tokenizer, json_string_value(in), json_string_length(in), t->flags, &t->ids));
    *out = ids_json(&t->ids);
    return RA_OK;
}

static ra_err decode_line(tool *t, const json_t *in, json_t **out)
{
    if (!json_is_array(in)) return ra_fail(RA_ERR_DATA, "%s where an array of ids was expected", kind_of(in));
    size_t n = json_array_size(in);
    int32_t *ids = ra_alloc(n, sizeof *ids);
    ra_err err = RA_OK;
    for (size_t i = 0; err == RA_OK && i < n; i++) {
        const json_t *id = json_array_get(in, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX) {
            err = ra_fail(RA_ERR_DATA, "element %zu must be a token id, a whole number from 0", i);
        } else {
            ids[i] = (int32_t)json_integer_value(id);
        }
    }
    ra_buf_clear(&t->text);
    if (err == RA_OK) err = ra_tokenizer_decode(t->tokenizer, ids, (int64_t)n, false, &t->text);
    ra_free(ids);
    if (err == RA_OK) *out = json_stringn(t->text.length ? t->text.data : "", t->text.length);
    return err;
}

static ra_err read_messages(const json_t *list, ra_message *messages)
{
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        const json_t *role = json_object_get(item, "role"), *content = json_object_get(item, "content");
        if (!json_is_string(role) || !json_is_string(content)) {
            return ra_fail(RA_ERR_DATA, "messages[%zu] must have a role and a content, both strings", i);
        }
        messages[i] = (ra_message){json_string_value(role), json_string_value(content)};
        if (strlen(messages[i].role) != json_string_length(role) || strlen(messages[i].content) != json_string_length(content)) {
            return ra_fail(RA_ERR_DATA, "messages[%zu] holds a NUL character, which no chat template can take", i);
        }
    }
    return RA_OK;
}

static ra_err template_line(tool *t, const json_t *in, json_t **out)
{
    const json_t *list = json_object_get(in, "messages"), *prompt = json_object_get(in, "add_generation_prompt");
    if (!json_is_array(list)) return ra_fail(RA_ERR_DATA, "{\"messages\": [...]} was expected");
    if (prompt && !json_is_boolean(prompt)) return ra_fail(RA_ERR_DATA, "add_generation_prompt must be true or false");
    size_t n = json_array_size(list);
    ra_message *messages = ra_calloc(n, sizeof *messages);
    ra_err err = read_messages(list, messages);
    if (err == RA_OK) err = ra_template_render(t->chat, messages, (int)n, json_is_true(prompt), &t->rendered);
    ra_free(messages);
    RA_TRY(err);
    const ra_rendered *r = &t->rendered;
    bool response = r->response_start >= 0;
    *out = json_object();
    json_object_set_new(*out, "text", json_stringn(r->text.length ? r->text.data : "", r->text.length));
    json_object_set_new(*out, "ids", ids_json(&r->ids));
    json_object_set_new(*out, "response_start", response ? json_integer(r->response_start) : json_null());
    json_object_set_new(*out, "response_end", response ? json_integer(r->response_end) : json_null());
    return RA_OK;
}

static ra_err one_line(tool *t, convert each, const char *line, size_t n)
{
    json_error_t error;
    json_t *in = json_loadb(line, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error), *out = NULL;
    if (!in) return ra_fail(RA_ERR_DATA, "not JSON: %s (column %d)", error.text, error.column);
    ra_err err = each(t, in, &out);
    json_decref(in);
    if (err == RA_ERR_DATA && t->keep_going) {
        out = json_pack("{ss}", "error", ra_error_message());
        err = out ? RA_OK : ra_fail(RA_ERR_DATA, "a message that is no UTF-8");
    }
    /* ASCII: U+0085 and U+2028 would end the line for some readers. */
    if (err == RA_OK &&
        (json_dumpf(out, stdout, JSON_COMPACT | JSON_ENCODE_ANY | JSON_ENSURE_ASCII) != 0 || putchar('\n') == EOF)) {
        err = ra_fail(RA_ERR_IO, "standard output: %m");
    }
    json_decref(out);
    return err;
}

static ra_err every_line(tool *t, const char *command, convert each)
{
    char *line = NULL;
    size_t capacity = 0;
    ssize_t n;
    ra_err err = RA_OK;
    for (long number = 1; err == RA_OK && (n = getline(&line, &capacity, stdin)) >= 0; number++) {
        err = one_line(t, each, line, (size_t)n);
        if (err != RA_OK) ra_fail_in(err, "%s: line %ld", command, number);
    }
    if (err == RA_OK && ferror(stdin)) err = ra_fail(RA_ERR_IO, "%s: standard input: %m", command);
    if (fflush(stdout) != 0 && err == RA_OK) err = ra_fail(RA_ERR_IO, "%s: standard output: %m", command);
    free(line);
    return err;
}

/* `accepted`: the options, for the message. */
static ra_err read_options(tool *t, int argc, char **argv, bool tokenize, const char *accepted)
{
    const char *command = tokenize ? "tokenize" : "template";
    for (int i = 0; i < argc; i++) {
        const char **value = !strcmp(argv[i], "--model")                   ? &t->model
                             : !tokenize && !strcmp(argv[i], "--template") ? &t->template
                             : !tokenize && !strcmp(argv[i], "--date")     ? &t->date
                                                                           : NULL;
        if (value && i + 1 == argc) return ra_fail(RA_ERR_ARG, "%s: %s needs a value", command, argv[i]);
        if (value) {
            *value = argv[++i];
        } else if (tokenize && !strcmp(argv[i], "--add-special")) {
            t->flags |= RA_ENCODE_ADD_SPECIAL;
        } else if (tokenize && !strcmp(argv[i], "--no-parse-special")) {
            t->flags |= RA_ENCODE_PLAIN;
        } else if (tokenize && !strcmp(argv[i], "--decode")) {
            t->decode = true;
        } else if (!tokenize && !strcmp(argv[i], "--keep-going")) {
            t->keep_going = true;
        } else {
            return ra_fail(RA_ERR_ARG, "%s: unknown option %s; accepted: %s", command, argv[i], accepted);
        }
    }
    if (!t->model) return ra_fail(RA_ERR_ARG, "%s: --model is missing: a model directory or a GGUF file", command);
    return ra_tokenizer_open(t->model, &t->tokenizer);
}

static void tool_close(tool *t)
{
    ra_template_close(t->chat);
    ra_tokenizer_close(t->tokenizer);
    ra_ids_free(&t->ids);
    ra_buf_free(&t->text);
    ra_rendered_free(&t->rendered);
}

ra_err ra_tool_tokenize(int argc, char **argv)
{
    tool t = {0};
    ra_err err = read_options(&t, argc, argv, true, "--model M, --add-special, --no-parse-special, --decode");
    if (err == RA_OK) err = every_line(&t, "tokenize", t.decode ? decode_line : encode_line);
    tool_close(&t);
    return err;
}

ra_err ra_tool_template(int argc, char **argv)
{
    tool t = {.template = "auto"};
    ra_err err = read_options(&t, argc, argv, false, "--model M, --template NAME, --date DATE, --keep-going");
    if (err == RA_OK) err = ra_template_open(t.template, t.tokenizer, &t.chat);
    if (err == RA_OK && t.date) err = ra_template_set_date(t.chat, t.date);
    if (err == RA_OK) err = every_line(&t, "template", template_line);
    tool_close(&t);
    return err;
}
