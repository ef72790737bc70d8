#include "schema.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const ra_schema_accepts = "pairs {prompt, chosen, rejected}, hh {chosen, rejected} dialogues, pku {prompt, "
                                      "response_0, response_1, safer_response_id ...}, "
                                      "responses {prompt, response: [a, b]}";

static const char *const names[] = {"none", "pairs", "hh", "pku", "responses", "prompts"};

const char *ra_schema_kind_name(ra_schema_kind kind)
{
    return names[kind];
}

ra_schema_kind ra_schema_kind_of(const char *name)
{
    for (int i = 1; i < (int)(sizeof names / sizeof *names); i++) {
        if (strcmp(names[i], name) == 0) return (ra_schema_kind)i;
    }
    return RA_SCHEMA_NONE;
}

ra_schema_kind ra_schema_recognise(const json_t *row)
{
    const json_t *prompt = json_object_get(row, "prompt"), *chosen = json_object_get(row, "chosen");
    if (chosen && json_object_get(row, "rejected")) {
        return !prompt && json_is_string(chosen) ? RA_SCHEMA_HH : RA_SCHEMA_PAIRS;
    }
    if (prompt && json_object_get(row, "response_0") && json_object_get(row, "response_1")) return RA_SCHEMA_PKU;
    if (prompt && (json_is_array(json_object_get(row, "response")) || json_is_array(json_object_get(row, "responses")))) {
        return RA_SCHEMA_RESPONSES;
    }
    return RA_SCHEMA_NONE;
}

bool ra_schema_has_prompt(const json_t *row)
{
    return json_object_get(row, "prompt") || json_is_array(json_object_get(row, "messages"));
}

/* ---- the space ---- */
void ra_row_space_free(ra_row_space *space)
{
    free(space->messages);
    free(space->text);
    ra_buf_free(&space->why);
    *space = (ra_row_space){0};
}

void ra_row_reserve(ra_row_space *space, size_t bytes)
{
    size_t need = space->used + bytes;
    if (need <= space->size) return;
    space->size = need > 2 * space->size ? need : 2 * space->size;
    space->text = ra_realloc(space->text, space->size, 1);
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

const char *ra_row_keep(ra_row_space *space, const char *text, size_t n)
{
    while (n && is_space(*text)) text++, n--;
    while (n && is_space(text[n - 1])) n--;
    char *copy = space->text + space->used;
    memcpy(copy, text, n);
    copy[n] = '\0';
    space->used += n + 1;
    return copy;
}

void ra_row_add_message(ra_row_space *space, const char *role, const char *content)
{
    if (space->n == space->capacity) {
        space->capacity = space->capacity ? 2 * space->capacity : 16;
        space->messages = ra_realloc(space->messages, (size_t)space->capacity, sizeof *space->messages);
    }
    space->messages[space->n++] = (ra_message){role, content};
}

ra_row_status ra_row_refuse(ra_row_space *space, ra_row *row, ra_row_status status, const char *format, ...)
{
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    ra_buf_clear(&space->why);
    ra_buf_adds(&space->why, text);
    row->why = space->why.data;
    return status;
}

/* ---- pieces of a row ---- */
typedef struct {
    ra_row_space *space;
    ra_row *row;
    const json_t *source;
} reader;

static const char *type_name(const json_t *value)
{
    if (!value) return "missing";
    switch (json_typeof(value)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "a list";
    case JSON_STRING: return "a string";
    case JSON_INTEGER:
    case JSON_REAL: return "a number";
    case JSON_TRUE:
    case JSON_FALSE: return "true or false";
    case JSON_NULL: return "null";
    }
    return "unknown";
}

static ra_row_status malformed_type(const reader *r, const char *key, const json_t *value, const char *accepted)
{
    return ra_row_refuse(r->space, r->row, RA_ROW_MALFORMED, "`%s` is %s; expected %s", key, type_name(value), accepted);
}

/* An optional string column: absent and null are NULL. */
static ra_row_status optional_text(const reader *r, const char *key, const char **out)
{
    const json_t *value = json_object_get(r->source, key);
    if (!value || json_is_null(value)) return RA_ROW_OK;
    if (!json_is_string(value)) return malformed_type(r, key, value, "a string or null");
    *out = json_string_length(value) ? json_string_value(value) : NULL;
    return RA_ROW_OK;
}

static ra_row_status check_message(const reader *r, const char *key, size_t i, const json_t *message, ra_message *out)
{
    const json_t *role = json_object_get(message, "role"), *content = json_object_get(message, "content");
    if (!json_is_string(role) || !json_is_string(content)) {
        return ra_row_refuse(r->space, r->row, RA_ROW_MALFORMED, "`%s[%zu]` is %s; expected {\"role\": text, \"content\": text}",
                             key, i, json_is_object(message) ? "an object without them" : type_name(message));
    }
    static const char *const known[] = {"system", "user", "assistant"};
    for (int k = 0; k < 3; k++) {
        if (strcmp(json_string_value(role), known[k])) continue;
        *out = (ra_message){known[k], json_string_value(content)};
        return RA_ROW_OK;
    }
    return ra_row_refuse(r->space, r->row, RA_ROW_MALFORMED, "`%s[%zu].role` is '%.40s'; expected system, user or assistant", key,
                         i, json_string_value(role));
}

/* Adds messages [0, n) of a list to the prompt. */
static ra_row_status add_messages(const reader *r, const char *key, const json_t *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        ra_message message = {0};
        ra_row_status status = check_message(r, key, i, json_array_get(list, i), &message);
        if (status != RA_ROW_OK) return status;
        ra_row_add_message(r->space, message.role, message.content);
    }
    return RA_ROW_OK;
}

/* `prompt`: a text, a dialogue text that ends with an open assistant turn, or a message list. */
static ra_row_status add_prompt(const reader *r, const char *key)
{
    const json_t *prompt = json_object_get(r->source, key);
    const char *system = NULL;
    ra_row_status status = optional_text(r, "system", &system);
    if (status != RA_ROW_OK) return status;
    if (system) ra_row_add_message(r->space, "system", system);
    if (json_is_array(prompt)) {
        size_t n = json_array_size(prompt);
        return add_messages(r, key, prompt, n);
    }
    if (!json_is_string(prompt)) return malformed_type(r, key, prompt, "a string or a list of messages");
    const char *text = json_string_value(prompt);
    if (ra_hh_is_dialogue(text)) {
        size_t n = json_string_length(prompt), open = sizeof "\n\nAssistant:" - 1;
        while (n && is_space(text[n - 1])) n--;
        if (n >= open && memcmp(text + n - open, "\n\nAssistant:", open) == 0) {
            ra_row_reserve(r->space, 2 * n + 64);
            return ra_hh_add_turns(text, n - open, r->space, r->row);
        }
    }
    ra_row_add_message(r->space, "user", text);
    return RA_ROW_OK;
}

/* A response: a text, or a message list whose last one is the assistant's. *before: how many messages precede it. */
static ra_row_status read_response(const reader *r, const char *key, const json_t *value, const char **out, size_t *before)
{
    *before = 0;
    if (json_is_string(value)) {
        *out = json_string_value(value);
        return RA_ROW_OK;
    }
    size_t n = json_array_size(value);
    if (!json_is_array(value) || n == 0) {
        return malformed_type(r, key, value, n || !json_is_array(value) ? "a string or a list of messages" : "a message in it");
    }
    ra_message last = {0};
    ra_row_status status = check_message(r, key, n - 1, json_array_get(value, n - 1), &last);
    if (status != RA_ROW_OK) return status;
    if (strcmp(last.role, "assistant")) {
        return ra_row_refuse(r->space, r->row, RA_ROW_SKIPPED, "`%s` does not end with an assistant message", key);
    }
    *out = last.content;
    *before = n - 1;
    return RA_ROW_OK;
}

/* Both lists hold the same first n messages. */
static bool same_start(const json_t *a, const json_t *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!json_equal(json_array_get(a, i), json_array_get(b, i))) return false;
    }
    return true;
}

/* ---- schemas ---- */
static ra_row_status read_pair(const reader *r)
{
    const json_t *chosen = json_object_get(r->source, "chosen"), *rejected = json_object_get(r->source, "rejected");
    size_t before_chosen, before_rejected;
    ra_row_status status = read_response(r, "chosen", chosen, &r->row->chosen, &before_chosen);
    if (status == RA_ROW_OK) status = read_response(r, "rejected", rejected, &r->row->rejected, &before_rejected);
    if (status != RA_ROW_OK) return status;
    if (before_chosen != before_rejected || !same_start(chosen, rejected, before_chosen)) {
        return ra_row_refuse(r->space, r->row, RA_ROW_SKIPPED, "the dialogues diverge before the last turn");
    }
    /* Whole conversations carry their prompt; a `prompt` column beside them repeats it. */
    if (before_chosen) return add_messages(r, "chosen", chosen, before_chosen);
    return add_prompt(r, "prompt");
}

static ra_row_status read_hh(const reader *r)
{
    const json_t *chosen = json_object_get(r->source, "chosen"), *rejected = json_object_get(r->source, "rejected");
    if (!json_is_string(chosen)) return malformed_type(r, "chosen", chosen, "a string");
    if (!json_is_string(rejected)) return malformed_type(r, "rejected", rejected, "a string");
    return ra_hh_read(json_string_value(chosen), json_string_value(rejected), r->space, r->row);
}

/* 0 or 1 from a column, or -1 where it is absent or null. */
static ra_row_status read_index(const reader *r, const char *key, int *out)
{
    const json_t *value = json_object_get(r->source, key);
    *out = -1;
    if (!value || json_is_null(value)) return RA_ROW_OK;
    json_int_t index = json_integer_value(value);
    if (!json_is_integer(value) || index < 0 || index > 1) {
        return ra_row_refuse(r->space, r->row, RA_ROW_MALFORMED, "`%s` is %s; expected 0 or 1", key,
                             json_is_integer(value) ? "another number" : type_name(value));
    }
    *out = (int)index;
    return RA_ROW_OK;
}

static const char *first_true(const json_t *flags)
{
    const char *key;
    json_t *flag;
    json_object_foreach((json_t *)(uintptr_t)flags, key, flag)
    {
        if (json_is_true(flag)) return key;
    }
    return NULL;
}

/* PKU-SafeRLHF: chosen is the safe response; with both safe or both unsafe, the safer one (METHOD section 6). The category is the
 * first harm category of the rejected response, else of the chosen one. */
static ra_row_status read_pku(const reader *r)
{
    const json_t *response[2] = {json_object_get(r->source, "response_0"), json_object_get(r->source, "response_1")};
    const json_t *safe[2] = {json_object_get(r->source, "is_response_0_safe"), json_object_get(r->source, "is_response_1_safe")};
    static const char *const response_key[2] = {"response_0", "response_1"};
    static const char *const safe_key[2] = {"is_response_0_safe", "is_response_1_safe"};
    static const char *const harm_key[2] = {"response_0_harm_category", "response_1_harm_category"};
    for (int i = 0; i < 2; i++) {
        if (!json_is_string(response[i])) return malformed_type(r, response_key[i], response[i], "a string");
        if (!json_is_boolean(safe[i])) return malformed_type(r, safe_key[i], safe[i], "true or false");
    }
    int chosen = json_is_true(safe[0]) ? 0 : 1;
    if (json_is_true(safe[0]) == json_is_true(safe[1])) {
        int safer, better;
        ra_row_status status = read_index(r, "safer_response_id", &safer);
        if (status == RA_ROW_OK) status = read_index(r, "better_response_id", &better);
        if (status != RA_ROW_OK) return status;
        if (safer < 0) safer = better;
        if (safer < 0) return malformed_type(r, "safer_response_id", NULL, "0 or 1, as both responses are equally safe");
        chosen = safer;
    }
    r->row->chosen_is_first = chosen == 0;
    r->row->chosen = json_string_value(response[chosen]);
    r->row->rejected = json_string_value(response[1 - chosen]);
    r->row->category = first_true(json_object_get(r->source, harm_key[1 - chosen]));
    if (!r->row->category) r->row->category = first_true(json_object_get(r->source, harm_key[chosen]));
    return add_prompt(r, "prompt");
}

/* {prompt, response: [a, b]}: an index column names the better one; without one the first is. */
static ra_row_status read_responses(const reader *r)
{
    const json_t *both = json_object_get(r->source, "response");
    const char *key = both ? "response" : "responses";
    if (!both) both = json_object_get(r->source, key);
    if (!json_is_array(both)) return malformed_type(r, "response", both, "a list of two responses");
    if (json_array_size(both) != 2) {
        return ra_row_refuse(r->space, r->row, RA_ROW_SKIPPED, "`%s` holds %zu responses; a pair needs 2", key,
                             json_array_size(both));
    }
    static const char *const index_keys[] = {"safer_response_id", "better_response_id", "better", "preferred", "chosen"};
    int better = -1;
    for (size_t i = 0; i < sizeof index_keys / sizeof *index_keys && better < 0; i++) {
        ra_row_status status = read_index(r, index_keys[i], &better);
        if (status != RA_ROW_OK) return status;
    }
    if (better < 0) better = 0;
    r->row->chosen_is_first = better == 0;
    const char **slot[2] = {better == 0 ? &r->row->chosen : &r->row->rejected, better == 0 ? &r->row->rejected : &r->row->chosen};
    for (size_t i = 0; i < 2; i++) {
        size_t before;
        ra_row_status status = read_response(r, key, json_array_get(both, i), slot[i], &before);
        if (status != RA_ROW_OK) return status;
        if (before) return ra_row_refuse(r->space, r->row, RA_ROW_SKIPPED, "`%s[%zu]` holds a whole conversation", key, i);
    }
    return add_prompt(r, "prompt");
}

/* The prompt alone; a dialogue's last assistant turn is not part of it. */
static ra_row_status read_prompt_alone(const reader *r)
{
    const json_t *messages = json_object_get(r->source, "messages");
    if (json_object_get(r->source, "prompt") || !json_is_array(messages)) return add_prompt(r, "prompt");
    size_t n = json_array_size(messages);
    const json_t *role = json_object_get(n ? json_array_get(messages, n - 1) : NULL, "role");
    if (json_is_string(role) && strcmp(json_string_value(role), "assistant") == 0) n--;
    return add_messages(r, "messages", messages, n);
}

static bool is_blank(const char *text)
{
    while (is_space(*text)) text++;
    return *text == '\0';
}

ra_row_status ra_schema_read(ra_schema_kind kind, bool prompts_only, json_t *source, ra_row_space *space, ra_row *row)
{
    reader r = {space, row, source};
    space->n = 0;
    space->used = 0;
    int64_t id = row->id;
    *row = (ra_row){.id = id, .source = source, .chosen_is_first = true};
    if (!json_is_object(source))
        return ra_row_refuse(space, row, RA_ROW_MALFORMED, "the row is %s; expected an object", type_name(source));
    ra_row_status status = RA_ROW_MALFORMED;
    switch (kind) {
    case RA_SCHEMA_PAIRS: status = read_pair(&r); break;
    case RA_SCHEMA_HH: status = read_hh(&r); break;
    case RA_SCHEMA_PKU: status = read_pku(&r); break;
    case RA_SCHEMA_RESPONSES: status = read_responses(&r); break;
    case RA_SCHEMA_PROMPTS: status = read_prompt_alone(&r); break;
    case RA_SCHEMA_NONE: return ra_row_refuse(space, row, RA_ROW_MALFORMED, "no schema");
    }
    if (status == RA_ROW_OK && json_object_get(source, "category")) status = optional_text(&r, "category", &row->category);
    if (status == RA_ROW_OK) status = optional_text(&r, "correction", &row->correction);
    if (status != RA_ROW_OK) return status;
    if (prompts_only) row->chosen = row->rejected = NULL;
    row->prompt = space->messages;
    row->n_prompt = space->n;
    if (!space->n || strcmp(space->messages[space->n - 1].role, "user")) {
        return ra_row_refuse(space, row, RA_ROW_SKIPPED, "the prompt does not end with a user turn");
    }
    row->prompt_text = space->messages[space->n - 1].content;
    if (is_blank(row->prompt_text)) return ra_row_refuse(space, row, RA_ROW_SKIPPED, "the prompt is empty");
    if (row->chosen && is_blank(row->chosen)) return ra_row_refuse(space, row, RA_ROW_SKIPPED, "the chosen response is empty");
    if (row->rejected && is_blank(row->rejected))
        return ra_row_refuse(space, row, RA_ROW_SKIPPED, "the rejected response is empty");
    if (row->correction && is_blank(row->correction)) row->correction = NULL;
    return RA_ROW_OK;
}
