/* What a row of each schema says: its prompt, the preferred and the other response. */
#include "schema.h"

#include <string.h>

/* Adds the messages that precede the responses of two whole conversations, which must be the same in both. */
static ra_row_status add_common_start(const ra_row_reader *r, const json_t *chosen, const json_t *rejected, size_t n_chosen,
                                      size_t n_rejected)
{
    ra_row_status status = ra_row_begin_system(r, chosen);
    if (status == RA_ROW_OK) status = ra_row_add_messages(r, "chosen", chosen, n_chosen);
    int first = r->space->n - (int)n_chosen;
    bool same = n_chosen == n_rejected;
    for (size_t i = 0; i < n_rejected && same && status == RA_ROW_OK; i++) {
        ra_message other = {0}, mine = r->space->messages[first + (int)i];
        status = ra_row_read_message(r, "rejected", i, json_array_get(rejected, i), &other);
        same = status != RA_ROW_OK || (strcmp(mine.role, other.role) == 0 && strcmp(mine.content, other.content) == 0);
    }
    if (status != RA_ROW_OK || same) return status;
    return ra_row_refuse(r->space, r->row, RA_PROBLEM_DIALOGUE, "the dialogues diverge before the last turn");
}

/* prompt, question, or instruction with what LLaMA-Factory's Alpaca form puts beside it. */
static ra_row_status add_any_prompt(const ra_row_reader *r)
{
    const char *name = ra_prompt_name(r->source, r->columns), *input = NULL;
    if (!name) name = "prompt";
    if (strcmp(name, "instruction") != 0) return ra_row_add_prompt(r, name);
    const json_t *history = ra_row_get(r, "history"), *pair, *instruction = ra_row_get(r, name);
    size_t i;
    ra_row_status status = ra_row_optional_text(r, "input", &input);
    if (status == RA_ROW_OK && history && !json_is_null(history) && !json_is_array(history))
        status = ra_row_bad_type(r, "history", history, "a list of [question, answer]");
    if (status == RA_ROW_OK && json_array_size(history)) status = ra_row_begin_system(r, NULL);
    if (status != RA_ROW_OK) return status;
    json_array_foreach(history, i, pair)
    {
        const json_t *question = json_array_get(pair, 0), *answer = json_array_get(pair, 1);
        if (!json_is_string(question) || !json_is_string(answer))
            return ra_row_bad_type(r, "history", history, "a list of [question, answer]");
        ra_row_add_message(r->space, "user", json_string_value(question));
        ra_row_add_message(r->space, "assistant", json_string_value(answer));
    }
    if (json_array_size(history) && json_is_string(instruction)) {
        ra_row_add_message(r->space, "user", json_string_value(instruction));
    } else {
        status = ra_row_add_prompt(r, name);
    }
    if (status != RA_ROW_OK || !input || ra_row_is_blank(input)) return status;
    if (r->space->n == 0) return ra_row_refuse(r->space, r->row, RA_PROBLEM_DIALOGUE, "the prompt does not end with a user turn");
    ra_message *last = &r->space->messages[r->space->n - 1];
    last->content = ra_row_join(r->space, last->content, "\n", input);
    return RA_ROW_OK;
}

/* A text that is no answer but the dialogue from its first turn on. */
static bool is_whole_dialogue(const json_t *value)
{
    const char *text = json_string_value(value);
    if (!text || !ra_hh_is_dialogue(text)) return false;
    text += strspn(text, " \t\r\n");
    return strncmp(text, "Human:", 6) == 0;
}

static ra_row_status read_pair(const ra_row_reader *r)
{
    const json_t *chosen = ra_row_get(r, "chosen"), *rejected = ra_row_get(r, "rejected");
    size_t before_chosen, before_rejected;
    ra_row_status status = ra_row_read_response(r, "chosen", chosen, &r->row->chosen, &before_chosen);
    if (status == RA_ROW_OK) status = ra_row_read_response(r, "rejected", rejected, &r->row->rejected, &before_rejected);
    if (status != RA_ROW_OK) return status;
    /* Whole conversations carry their prompt; a `prompt` column beside them repeats it. */
    if (before_chosen || before_rejected) return add_common_start(r, chosen, rejected, before_chosen, before_rejected);
    if (is_whole_dialogue(chosen) && is_whole_dialogue(rejected))
        return ra_hh_read(json_string_value(chosen), json_string_value(rejected), r->space, r->row);
    return add_any_prompt(r);
}

static ra_row_status read_hh(const ra_row_reader *r)
{
    const json_t *chosen = ra_row_get(r, "chosen"), *rejected = ra_row_get(r, "rejected");
    if (!json_is_string(chosen)) return ra_row_bad_type(r, "chosen", chosen, "a string");
    if (!json_is_string(rejected)) return ra_row_bad_type(r, "rejected", rejected, "a string");
    return ra_hh_read(json_string_value(chosen), json_string_value(rejected), r->space, r->row);
}

/* A conversation that ends with a user turn, and two answers to it. */
static ra_row_status read_sharegpt(const ra_row_reader *r)
{
    const char *name = ra_row_get(r, "conversations") ? "conversations" : "messages";
    const json_t *turns = ra_row_get(r, name);
    if (!json_is_array(turns)) return ra_row_bad_type(r, name, turns, "a list of messages");
    size_t before[2];
    ra_row_status status = ra_row_read_response(r, "chosen", ra_row_get(r, "chosen"), &r->row->chosen, &before[0]);
    if (status == RA_ROW_OK)
        status = ra_row_read_response(r, "rejected", ra_row_get(r, "rejected"), &r->row->rejected, &before[1]);
    if (status == RA_ROW_OK && before[0] + before[1]) {
        return ra_row_refuse(r->space, r->row, RA_PROBLEM_DIALOGUE, "a response holds several messages beside `%.80s`",
                             ra_column(r->columns, name));
    }
    return status == RA_ROW_OK ? ra_row_add_prompt(r, name) : status;
}

/* 0 or 1 from a column, or -1 where it is absent or null. */
static ra_row_status read_index(const ra_row_reader *r, const char *name, int *out)
{
    const json_t *value = ra_row_get(r, name);
    *out = -1;
    if (!value || json_is_null(value)) return RA_ROW_OK;
    json_int_t index = json_integer_value(value);
    if (json_is_integer(value) && (index < 0 || index > 1)) {
        return ra_row_refuse(r->space, r->row, RA_PROBLEM_MALFORMED, "`%.80s` is another number; expected 0 or 1",
                             ra_column(r->columns, name));
    }
    if (!json_is_integer(value)) return ra_row_bad_type(r, name, value, "0 or 1");
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

/* PKU-SafeRLHF: chosen is the safe response; with both safe or both unsafe, or without these flags, the safer one (METHOD section 6). The category is the
 * first harm category of the rejected response, else of the chosen one. */
static ra_row_status read_pku(const ra_row_reader *r)
{
    static const char *const response_name[2] = {"response_0", "response_1"};
    static const char *const safe_name[2] = {"is_response_0_safe", "is_response_1_safe"};
    static const char *const harm_name[2] = {"response_0_harm_category", "response_1_harm_category"};
    const json_t *response[2], *safe[2];
    for (int i = 0; i < 2; i++) {
        response[i] = ra_row_get(r, response_name[i]);
        safe[i] = ra_row_get(r, safe_name[i]);
        if (json_is_null(safe[i])) safe[i] = NULL; /* as tables write a column that a row has not */
        if (!json_is_string(response[i])) return ra_row_bad_type(r, response_name[i], response[i], "a string");
    }
    bool flags = safe[0] || safe[1];
    for (int i = 0; i < 2 && flags; i++) {
        if (!json_is_boolean(safe[i])) return ra_row_bad_type(r, safe_name[i], safe[i], "true or false");
    }
    int chosen = json_is_true(safe[0]) ? 0 : 1;
    if (json_is_true(safe[0]) == json_is_true(safe[1])) {
        int safer;
        ra_row_status status = read_index(r, "safer_response_id", &safer);
        if (status == RA_ROW_OK && safer < 0) status = read_index(r, "better_response_id", &safer);
        if (status != RA_ROW_OK) return status;
        if (safer < 0)
            return ra_row_bad_type(r, "safer_response_id", NULL,
                                   flags ? "0 or 1, as both responses are equally safe"
                                         : "0 or 1, as there is no is_response_0_safe");
        chosen = safer;
    }
    r->row->chosen_is_first = chosen == 0;
    r->row->chosen = json_string_value(response[chosen]);
    r->row->rejected = json_string_value(response[1 - chosen]);
    r->row->category = first_true(ra_row_get(r, harm_name[1 - chosen]));
    if (!r->row->category) r->row->category = first_true(ra_row_get(r, harm_name[chosen]));
    return add_any_prompt(r);
}

/* {prompt, response: [a, b]}: an index column names the better one; without one the first is. */
static ra_row_status read_responses(const ra_row_reader *r)
{
    const char *name = ra_row_get(r, "response") ? "response" : ra_row_get(r, "responses") ? "responses" : "response";
    const json_t *both = ra_row_get(r, name);
    if (!json_is_array(both)) return ra_row_bad_type(r, name, both, "a list of two responses");
    if (json_array_size(both) != 2) {
        return ra_row_refuse(r->space, r->row, RA_PROBLEM_UNPAIRED, "`%.80s` holds %zu responses; a pair needs 2",
                             ra_column(r->columns, name), json_array_size(both));
    }
    static const char *const index_names[] = {"safer_response_id", "better_response_id", "better", "preferred", "chosen"};
    int better = -1;
    for (size_t i = 0; i < sizeof index_names / sizeof *index_names && better < 0; i++) {
        ra_row_status status = read_index(r, index_names[i], &better);
        if (status != RA_ROW_OK) return status;
    }
    if (better < 0) better = 0;
    r->row->chosen_is_first = better == 0;
    const char **slot[2] = {better == 0 ? &r->row->chosen : &r->row->rejected, better == 0 ? &r->row->rejected : &r->row->chosen};
    for (size_t i = 0; i < 2; i++) {
        size_t before;
        ra_row_status status = ra_row_read_response(r, name, json_array_get(both, i), slot[i], &before);
        if (status != RA_ROW_OK) return status;
        if (before)
            return ra_row_refuse(r->space, r->row, RA_PROBLEM_DIALOGUE, "`%.80s[%zu]` holds a whole conversation",
                                 ra_column(r->columns, name), i);
    }
    return add_any_prompt(r);
}

/* StackExchange paired: response_j has the more votes. */
static ra_row_status read_stackexchange(const ra_row_reader *r)
{
    size_t before[2];
    ra_row_status status = ra_row_read_response(r, "response_j", ra_row_get(r, "response_j"), &r->row->chosen, &before[0]);
    if (status == RA_ROW_OK)
        status = ra_row_read_response(r, "response_k", ra_row_get(r, "response_k"), &r->row->rejected, &before[1]);
    if (status == RA_ROW_OK && before[0] + before[1])
        return ra_row_refuse(r->space, r->row, RA_PROBLEM_DIALOGUE, "a response holds a whole conversation");
    return status == RA_ROW_OK ? add_any_prompt(r) : status;
}

/* KTO: one response with a label. It goes to the side that its label says; the caller refuses the row as a pair when all else is well. */
static ra_row_status read_labelled(const ra_row_reader *r)
{
    const json_t *label = ra_row_get(r, "label");
    json_int_t number = json_integer_value(label);
    if (!json_is_boolean(label) && !(json_is_integer(label) && (number == 0 || number == 1)))
        return ra_row_bad_type(r, "label", label, "true or false (or 1 or 0)");
    const char **side = json_is_true(label) || number == 1 ? &r->row->chosen : &r->row->rejected;
    const char *turns = ra_row_get(r, "messages") ? "messages" : "conversations";
    const char *name = ra_row_get(r, "completion") ? "completion" : ra_row_get(r, "response") ? "response" : turns;
    const json_t *response = ra_row_get(r, name);
    size_t before;
    ra_row_status status = ra_row_read_response(r, name, response, side, &before);
    if (status != RA_ROW_OK || !before) return status == RA_ROW_OK ? add_any_prompt(r) : status;
    status = ra_row_begin_system(r, response);
    return status == RA_ROW_OK ? ra_row_add_messages(r, name, response, before) : status;
}

/* The prompt alone; a dialogue's last assistant turn is not part of it. */
static ra_row_status read_prompt_alone(const ra_row_reader *r)
{
    const char *name = ra_row_get(r, "messages") ? "messages" : "conversations";
    const json_t *turns = ra_row_get(r, name);
    if (ra_prompt_name(r->source, r->columns) || !json_is_array(turns)) return add_any_prompt(r);
    ra_row_status status = ra_row_begin_system(r, turns);
    if (status == RA_ROW_OK) status = ra_row_add_messages(r, name, turns, json_array_size(turns));
    int n = r->space->n;
    if (status == RA_ROW_OK && n && strcmp(r->space->messages[n - 1].role, "assistant") == 0) r->space->n--;
    return status;
}

/* ---- any row ---- */
static ra_row_status refuse_empty(const ra_row_reader *r, const char *what)
{
    return ra_row_refuse(r->space, r->row, RA_PROBLEM_EMPTY, "the %s is empty", what);
}

/* What every usable row has. */
static ra_row_status check(const ra_row_reader *r, ra_schema_kind kind)
{
    ra_row *row = r->row;
    if (!row->n_prompt || strcmp(row->prompt[row->n_prompt - 1].role, "user") != 0) {
        return ra_row_refuse(r->space, row, RA_PROBLEM_DIALOGUE, "the prompt does not end with a user turn");
    }
    row->prompt_text = row->prompt[row->n_prompt - 1].content;
    if (ra_row_is_blank(row->prompt_text)) return refuse_empty(r, "prompt");
    if (row->chosen && ra_row_is_blank(row->chosen)) return refuse_empty(r, "chosen response");
    if (row->rejected && ra_row_is_blank(row->rejected)) return refuse_empty(r, "rejected response");
    if (row->correction && ra_row_is_blank(row->correction)) row->correction = NULL;
    if (kind == RA_SCHEMA_LABELLED && (row->chosen || row->rejected)) {
        return ra_row_refuse(r->space, row, RA_PROBLEM_UNPAIRED, "a single response labelled %s; trace and dpo learn from pairs",
                             row->chosen ? "good" : "bad");
    }
    return RA_ROW_OK;
}

ra_row_status ra_schema_read(ra_schema_kind kind, bool prompts_only, const ra_columns *columns, json_t *source, size_t bytes,
                             ra_row_space *space, ra_row *row)
{
    const ra_row_reader reader = {space, row, source, columns}, *r = &reader;
    ra_row_begin(space,
                 4 * bytes +
                     1024); /* decoded text is no longer than its JSON; turns of two dialogues, parts and inputs are copied */
    row->source = source;
    row->chosen_is_first = true;
    if (!json_is_object(source))
        return ra_row_refuse(space, row, RA_PROBLEM_MALFORMED, "the row is %s; expected an object", ra_json_type_name(source));
    ra_row_status status = RA_ROW_MALFORMED;
    switch (kind) {
    case RA_SCHEMA_PAIRS: status = read_pair(r); break;
    case RA_SCHEMA_HH: status = read_hh(r); break;
    case RA_SCHEMA_PKU: status = read_pku(r); break;
    case RA_SCHEMA_RESPONSES: status = read_responses(r); break;
    case RA_SCHEMA_SHAREGPT: status = read_sharegpt(r); break;
    case RA_SCHEMA_STACKEXCHANGE: status = read_stackexchange(r); break;
    case RA_SCHEMA_LABELLED: status = read_labelled(r); break;
    case RA_SCHEMA_PROMPTS: status = read_prompt_alone(r); break;
    case RA_SCHEMA_NONE:
    case RA_SCHEMAS: return ra_row_refuse(space, row, RA_PROBLEM_MALFORMED, "no schema");
    }
    if (status == RA_ROW_OK && ra_row_get(r, "category")) status = ra_row_optional_text(r, "category", &row->category);
    if (status == RA_ROW_OK) status = ra_row_optional_text(r, "correction", &row->correction);
    if (status != RA_ROW_OK) return status;
    if (prompts_only) row->chosen = row->rejected = NULL;
    row->prompt = space->messages;
    row->n_prompt = space->n;
    return check(r, kind);
}
