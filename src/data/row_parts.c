/* Pieces that rows of several schemas share: texts, messages, prompts, responses, and how a row is refused. */
#include "schema.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *ra_row_problem_name(ra_row_problem problem)
{
    static const char *const names[RA_PROBLEMS] = {"none",      "malformed", "unusable dialogue", "empty",
                                                   "identical", "unpaired",  "duplicate",         "not drawn"};
    return (unsigned)problem < RA_PROBLEMS ? names[problem] : "unknown";
}

/* ---- the space ---- */
void ra_row_space_free(ra_row_space *space)
{
    free(space->messages);
    free(space->text);
    ra_buf_free(&space->why);
    *space = (ra_row_space){0};
}

void ra_row_begin(ra_row_space *space, size_t bytes)
{
    space->n = 0;
    space->used = 0;
    if (bytes <= space->size) return;
    space->size = bytes > 2 * space->size ? bytes : 2 * space->size;
    free(space->text);
    space->text = ra_realloc(NULL, space->size, 1);
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

bool ra_row_is_blank(const char *text)
{
    while (is_space(*text)) text++;
    return *text == '\0';
}

static char *put(ra_row_space *space, const char *text, size_t n)
{
    if (space->used + n + 1 > space->size) ra_die("a row needs more than the %zu bytes of its space", space->size);
    char *copy = space->text + space->used;
    memcpy(copy, text, n);
    copy[n] = '\0';
    space->used += n + 1;
    return copy;
}

const char *ra_row_keep(ra_row_space *space, const char *text, size_t n)
{
    while (n && is_space(*text)) text++, n--;
    while (n && is_space(text[n - 1])) n--;
    return put(space, text, n);
}

const char *ra_row_join(ra_row_space *space, const char *before, const char *separator, const char *text)
{
    char *joined = put(space, before, strlen(before));
    space->used--;
    put(space, separator, strlen(separator));
    space->used--;
    put(space, text, strlen(text));
    return joined;
}

void ra_row_add_message(ra_row_space *space, const char *role, const char *content)
{
    if (space->n == space->capacity) {
        space->capacity = space->capacity ? 2 * space->capacity : 16;
        space->messages = ra_realloc(space->messages, (size_t)space->capacity, sizeof *space->messages);
    }
    space->messages[space->n++] = (ra_message){role, content};
}

ra_row_status ra_row_refuse(ra_row_space *space, ra_row *row, ra_row_problem problem, const char *format, ...)
{
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    ra_buf_clear(&space->why);
    ra_buf_adds(&space->why, text);
    row->why = space->why.data;
    row->problem = problem;
    return problem == RA_PROBLEM_MALFORMED ? RA_ROW_MALFORMED : RA_ROW_SKIPPED;
}

/* ---- columns ---- */
const json_t *ra_row_get(const ra_row_reader *r, const char *name)
{
    return json_object_get(r->source, ra_column(r->columns, name));
}

const char *ra_json_type_name(const json_t *value)
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

ra_row_status ra_row_bad_type(const ra_row_reader *r, const char *name, const json_t *value, const char *accepted)
{
    return ra_row_refuse(r->space, r->row, RA_PROBLEM_MALFORMED, "`%.80s` is %s; expected %s", ra_column(r->columns, name),
                         ra_json_type_name(value), accepted);
}

ra_row_status ra_row_optional_text(const ra_row_reader *r, const char *name, const char **out)
{
    const json_t *value = ra_row_get(r, name);
    if (!value || json_is_null(value)) return RA_ROW_OK;
    if (!json_is_string(value)) return ra_row_bad_type(r, name, value, "a string or null");
    *out = json_string_length(value) ? json_string_value(value) : NULL;
    return RA_ROW_OK;
}

/* ---- messages ---- */
static const struct {
    const char *word, *role; /* role NULL: no template has a place for it */
} roles[] = {
    {"user", "user"},        {"human", "user"},       {"prompter", "user"},     {"assistant", "assistant"},
    {"gpt", "assistant"},    {"model", "assistant"},  {"chatgpt", "assistant"}, {"bot", "assistant"},
    {"system", "system"},    {"developer", "system"}, {"tool", NULL},           {"function", NULL},
    {"function_call", NULL}, {"observation", NULL},   {"ipython", NULL},
};

/* A list of parts {type: text, text: ...}, joined by line ends. */
static ra_row_status join_parts(const ra_row_reader *r, const char *name, size_t i, const json_t *parts, const char **out)
{
    size_t k;
    const json_t *part;
    *out = "";
    json_array_foreach(parts, k, part)
    {
        const json_t *text = json_object_get(part, "text"), *type = json_object_get(part, "type");
        if (!json_is_string(text)) {
            return ra_row_refuse(r->space, r->row, RA_PROBLEM_DIALOGUE,
                                 "`%.80s[%zu]` has a part of type '%.40s'; only text can be used", name, i,
                                 json_is_string(type) ? json_string_value(type) : "unknown");
        }
        if (k == 0 && json_array_size(parts) == 1) *out = json_string_value(text);
    }
    if (json_array_size(parts) < 2) return RA_ROW_OK;
    char *start = r->space->text + r->space->used;
    json_array_foreach(parts, k, part)
    {
        const json_t *text = json_object_get(part, "text");
        if (k) r->space->text[r->space->used - 1] = '\n';
        put(r->space, json_string_value(text), json_string_length(text));
    }
    *out = start;
    return RA_ROW_OK;
}

ra_row_status ra_row_read_message(const ra_row_reader *r, const char *name, size_t i, const json_t *message, ra_message *out)
{
    const json_t *role = json_object_get(message, "role"), *content = json_object_get(message, "content");
    if (!role && !content) role = json_object_get(message, "from"), content = json_object_get(message, "value");
    name = ra_column(r->columns, name);
    if (!json_is_string(role) || (!json_is_string(content) && !json_is_array(content))) {
        return ra_row_refuse(
            r->space, r->row, RA_PROBLEM_MALFORMED,
            "`%.80s[%zu]` is %s; expected {\"role\": text, \"content\": text} or {\"from\": text, \"value\": text}", name, i,
            json_is_object(message) ? "an object without them" : ra_json_type_name(message));
    }
    const char *word = json_string_value(role);
    size_t k = 0, n = sizeof roles / sizeof *roles;
    while (k < n && strcmp(word, roles[k].word) != 0) k++;
    if (k == n || !roles[k].role) {
        return ra_row_refuse(r->space, r->row, k == n ? RA_PROBLEM_MALFORMED : RA_PROBLEM_DIALOGUE,
                             "`%.80s[%zu]` has the role '%.40s'; expected system, user (human) or assistant (gpt)", name, i,
                             word);
    }
    *out = (ra_message){roles[k].role, json_string_value(content)};
    return json_is_array(content) ? join_parts(r, name, i, content, &out->content) : RA_ROW_OK;
}

ra_row_status ra_row_add_messages(const ra_row_reader *r, const char *name, const json_t *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        ra_message message = {0};
        ra_row_status status = ra_row_read_message(r, name, i, json_array_get(list, i), &message);
        if (status != RA_ROW_OK) return status;
        ra_row_add_message(r->space, message.role, message.content);
    }
    return RA_ROW_OK;
}

/* ---- prompts and responses ---- */
static ra_row_status add_system(const ra_row_reader *r)
{
    const char *system = NULL;
    ra_row_status status = ra_row_optional_text(r, "system", &system);
    if (status != RA_ROW_OK || !system || ra_row_is_blank(system)) return status;
    ra_row_add_message(r->space, "system", system);
    return RA_ROW_OK;
}

static bool begins_with_system(const json_t *list)
{
    const json_t *first = json_array_get(list, 0), *role = json_object_get(first, "role");
    if (!role) role = json_object_get(first, "from");
    return json_is_string(role) && strcmp(json_string_value(role), "system") == 0;
}

ra_row_status ra_row_begin_system(const ra_row_reader *r, const json_t *turns)
{
    return begins_with_system(turns) ? RA_ROW_OK : add_system(r);
}

ra_row_status ra_row_add_prompt(const ra_row_reader *r, const char *name)
{
    const json_t *prompt = ra_row_get(r, name);
    ra_row_status status = ra_row_begin_system(r, prompt);
    if (status != RA_ROW_OK) return status;
    if (json_is_array(prompt)) return ra_row_add_messages(r, name, prompt, json_array_size(prompt));
    if (!json_is_string(prompt)) return ra_row_bad_type(r, name, prompt, "a string or a list of messages");
    const char *text = json_string_value(prompt);
    if (ra_hh_is_dialogue(text)) {
        size_t n = json_string_length(prompt), open = sizeof "\n\nAssistant:" - 1;
        while (n && is_space(text[n - 1])) n--;
        if (n >= open && memcmp(text + n - open, "\n\nAssistant:", open) == 0)
            return ra_hh_add_turns(text, n - open, r->space, r->row);
    }
    ra_row_add_message(r->space, "user", text);
    return RA_ROW_OK;
}

ra_row_status ra_row_read_response(const ra_row_reader *r, const char *name, const json_t *value, const char **out,
                                   size_t *before)
{
    *before = 0;
    if (json_is_string(value)) {
        *out = json_string_value(value);
        return RA_ROW_OK;
    }
    size_t n = json_is_object(value) ? 1 : json_array_size(value);
    if (n == 0)
        return ra_row_bad_type(r, name, value, json_is_array(value) ? "a message in it" : "a string or a list of messages");
    ra_message last = {0};
    ra_row_status status =
        ra_row_read_message(r, name, n - 1, json_is_object(value) ? value : json_array_get(value, n - 1), &last);
    if (status != RA_ROW_OK) return status;
    if (strcmp(last.role, "assistant") != 0) {
        return ra_row_refuse(r->space, r->row, RA_PROBLEM_DIALOGUE, "`%.80s` does not end with an assistant message",
                             ra_column(r->columns, name));
    }
    *out = last.content;
    *before = n - 1;
    return RA_ROW_OK;
}
