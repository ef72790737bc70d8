/* Which schema a row has, by its keys alone; columns under other names. */
#include "schema.h"

#include <stdlib.h>
#include <string.h>

const char *const ra_schema_accepts =
    "pairs {prompt, chosen, rejected} (prompt, question or instruction; texts or message lists), hh {chosen, rejected} "
    "dialogues, "
    "pku {prompt, response_0, response_1, safer_response_id ...}, responses {prompt, response: [a, b]}, "
    "sharegpt {conversations, chosen, rejected}, stackexchange {question, response_j, response_k}, "
    "labelled {prompt, completion, label}";

static const char *const names[RA_SCHEMAS] = {"none",     "pairs",         "hh",       "pku",    "responses",
                                              "sharegpt", "stackexchange", "labelled", "prompts"};

const char *ra_schema_kind_name(ra_schema_kind kind)
{
    return names[kind];
}

ra_schema_kind ra_schema_kind_of(const char *name)
{
    for (int i = 1; i < RA_SCHEMAS; i++) {
        if (strcmp(names[i], name) == 0) return (ra_schema_kind)i;
    }
    return RA_SCHEMA_NONE;
}

/* ---- columns ---- */
static const char *const known_columns[] = {"prompt",
                                            "question",
                                            "instruction",
                                            "input",
                                            "history",
                                            "system",
                                            "chosen",
                                            "rejected",
                                            "conversations",
                                            "messages",
                                            "category",
                                            "correction",
                                            "response",
                                            "responses",
                                            "response_0",
                                            "response_1",
                                            "response_j",
                                            "response_k",
                                            "completion",
                                            "label",
                                            "safer_response_id",
                                            "better_response_id"};
enum { KNOWN_COLUMNS = sizeof known_columns / sizeof *known_columns };

ra_err ra_columns_read(const char *const *items, int n, ra_columns *out)
{
    *out = (ra_columns){0};
    out->name = ra_realloc(NULL, (size_t)n + 1, sizeof *out->name);
    out->column = ra_realloc(NULL, (size_t)n + 1, sizeof *out->column);
    ra_err err = RA_OK;
    for (int i = 0; i < n && err == RA_OK; i++) {
        const char *equal = strchr(items[i], '=');
        size_t length = equal ? (size_t)(equal - items[i]) : 0;
        int k = 0;
        while (k < KNOWN_COLUMNS && (strlen(known_columns[k]) != length || strncmp(known_columns[k], items[i], length) != 0)) k++;
        if (!equal || !equal[1]) {
            err = ra_fail(RA_ERR_ARG, "data.columns: '%.80s'; give name: column, such as {prompt: question, chosen: best}",
                          items[i]);
        } else if (k == KNOWN_COLUMNS) {
            ra_buf all = {0};
            for (int j = 0; j < KNOWN_COLUMNS; j++) ra_buf_addf(&all, "%s%s", j ? ", " : "", known_columns[j]);
            err = ra_fail(RA_ERR_ARG,
                          "data.columns: '%.*s' is no column that realign reads; it reads %s (the other way round: our name "
                          "first, then the name in the data)",
                          (int)length, items[i], all.data);
            ra_buf_free(&all);
        } else {
            out->name[out->n] = ra_strndup(items[i], length);
            out->column[out->n++] = ra_strdup(equal + 1);
        }
    }
    if (err != RA_OK) ra_columns_free(out);
    return err;
}

void ra_columns_free(ra_columns *columns)
{
    for (int i = 0; i < columns->n; i++) {
        free(columns->name[i]);
        free(columns->column[i]);
    }
    free(columns->name);
    free(columns->column);
    *columns = (ra_columns){0};
}

const char *ra_column(const ra_columns *columns, const char *name)
{
    for (int i = 0; i < columns->n; i++) {
        if (strcmp(columns->name[i], name) == 0) return columns->column[i];
    }
    return name;
}

static const json_t *get(const json_t *row, const ra_columns *columns, const char *name)
{
    return json_object_get(row, ra_column(columns, name));
}

const char *ra_prompt_name(const json_t *row, const ra_columns *columns)
{
    static const char *const prompts[] = {"prompt", "question", "instruction"};
    for (size_t i = 0; i < sizeof prompts / sizeof *prompts; i++) {
        if (get(row, columns, prompts[i])) return prompts[i];
    }
    return NULL;
}

/* ---- recognition ---- */
static bool has_conversation(const json_t *row, const ra_columns *columns)
{
    return json_is_array(get(row, columns, "conversations")) || json_is_array(get(row, columns, "messages"));
}

static ra_schema_kind recognise_pair(const json_t *row, const ra_columns *columns)
{
    const json_t *chosen = get(row, columns, "chosen");
    if (!chosen || !get(row, columns, "rejected")) return RA_SCHEMA_NONE;
    if (ra_prompt_name(row, columns)) return RA_SCHEMA_PAIRS;
    bool whole =
        json_is_array(chosen) && json_array_size(chosen) > 1; /* `messages` beside whole conversations is a copy of one of them */
    if (!whole && has_conversation(row, columns)) return RA_SCHEMA_SHAREGPT;
    if (!json_is_string(chosen)) return RA_SCHEMA_PAIRS;
    return strstr(json_string_value(chosen), "Assistant:") ? RA_SCHEMA_HH : RA_SCHEMA_NONE;
}

unsigned ra_schema_recognise(const json_t *row, const ra_columns *columns)
{
    bool prompt = ra_prompt_name(row, columns) != NULL;
    unsigned found = 0;
    ra_schema_kind pair = recognise_pair(row, columns);
    if (pair != RA_SCHEMA_NONE) found |= 1u << pair;
    if (prompt && get(row, columns, "response_0") && get(row, columns, "response_1")) found |= 1u << RA_SCHEMA_PKU;
    if (prompt && get(row, columns, "response_j") && get(row, columns, "response_k")) found |= 1u << RA_SCHEMA_STACKEXCHANGE;
    if (prompt && (json_is_array(get(row, columns, "response")) || json_is_array(get(row, columns, "responses")))) {
        found |= 1u << RA_SCHEMA_RESPONSES;
    }
    const json_t *label = get(row, columns, "label");
    bool labelled = json_is_boolean(label) || json_is_integer(label);
    bool one = prompt && (get(row, columns, "completion") || json_is_string(get(row, columns, "response")));
    if (labelled && (one || (!prompt && has_conversation(row, columns)))) found |= 1u << RA_SCHEMA_LABELLED;
    return found;
}

bool ra_schema_has_prompt(const json_t *row, const ra_columns *columns)
{
    return ra_prompt_name(row, columns) || has_conversation(row, columns);
}
