/* Rows of every known schema, from JSON to prompt messages and responses. */
#ifndef RA_DATA_SCHEMA_H
#define RA_DATA_SCHEMA_H
#include <realign/mem.h>
#include <realign/prefdata.h>

typedef enum {
    RA_SCHEMA_NONE,
    RA_SCHEMA_PAIRS,
    RA_SCHEMA_HH,
    RA_SCHEMA_PKU,
    RA_SCHEMA_RESPONSES,
    RA_SCHEMA_SHAREGPT,
    RA_SCHEMA_STACKEXCHANGE,
    RA_SCHEMA_LABELLED,
    RA_SCHEMA_PROMPTS,
    RA_SCHEMAS
} ra_schema_kind;

/* Columns under other names: what we call `name` is `column` in the data. */
typedef struct {
    char **name, **column;
    int n;
} ra_columns;

/* What a row under construction points into; reused from row to row. */
typedef struct {
    ra_message *messages;
    int n, capacity;
    char *text; /* a block as large as any row needs: strings in it never move while a row is read */
    size_t used, size;
    ra_buf why;
} ra_row_space;

/* ---- recognition (schema.c) ---- */
const char *ra_schema_kind_name(ra_schema_kind kind);
ra_schema_kind ra_schema_kind_of(const char *name); /* RA_SCHEMA_NONE: unknown */
/* The schemas whose keys `row` has, one bit (1u << kind) each; never RA_SCHEMA_PROMPTS. */
unsigned ra_schema_recognise(const json_t *row, const ra_columns *columns);
bool ra_schema_has_prompt(const json_t *row, const ra_columns *columns); /* {prompt ...}, {messages ...} and the like */
extern const char *const ra_schema_accepts;                              /* the forms, for error messages */
/* "name=column" items. RA_ERR_ARG names data.columns and what is accepted. */
ra_err ra_columns_read(const char *const *items, int n, ra_columns *out);
void ra_columns_free(ra_columns *columns);
const char *ra_column(const ra_columns *columns, const char *name); /* what it is called in the data */
const char *ra_prompt_name(const json_t *row,
                           const ra_columns *columns); /* prompt, question or instruction: the one that is there; else NULL */

/* ---- rows (schema_rows.c) ---- */
/* Fills `row` (id, file, line and origin are the caller's) from `source`, which was parsed from `bytes` bytes of text. row->problem and row->why say what is
 * wrong with a row that is not RA_ROW_OK. */
ra_row_status ra_schema_read(ra_schema_kind kind, bool prompts_only, const ra_columns *columns, json_t *source, size_t bytes,
                             ra_row_space *space, ra_row *row);

/* ---- pieces shared by the schemas (row_parts.c) ---- */
typedef struct {
    ra_row_space *space;
    ra_row *row;
    const json_t *source;
    const ra_columns *columns;
} ra_row_reader;

void ra_row_space_free(ra_row_space *space);
/* Stores why, and returns the status that goes with the problem. */
ra_row_status ra_row_refuse(ra_row_space *space, ra_row *row, ra_row_problem problem, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void ra_row_add_message(ra_row_space *space, const char *role, const char *content);
/* n bytes in the space, trimmed at both ends, NUL-terminated. */
const char *ra_row_keep(ra_row_space *space, const char *text, size_t n);
/* `text` behind `before` and a separator, as a new string. */
const char *ra_row_join(ra_row_space *space, const char *before, const char *separator, const char *text);
/* Empties the space and makes room for `bytes` of kept text. */
void ra_row_begin(ra_row_space *space, size_t bytes);
bool ra_row_is_blank(const char *text);

const char *ra_json_type_name(const json_t *value);                 /* "a string", "missing" ... */
const json_t *ra_row_get(const ra_row_reader *r, const char *name); /* by our name of the column */
ra_row_status ra_row_bad_type(const ra_row_reader *r, const char *name, const json_t *value, const char *accepted);
/* An optional string column: absent, null and empty are NULL. */
ra_row_status ra_row_optional_text(const ra_row_reader *r, const char *name, const char **out);
/* {role, content} or {from, value}; content is a text or a list of text parts. */
ra_row_status ra_row_read_message(const ra_row_reader *r, const char *name, size_t i, const json_t *message, ra_message *out);
/* Adds messages [0, n) of a list to the prompt. */
ra_row_status ra_row_add_messages(const ra_row_reader *r, const char *name, const json_t *list, size_t n);
/* Adds the `system` column, where there is one and `turns` (a list, or anything else) does not begin with a system turn. */
ra_row_status ra_row_begin_system(const ra_row_reader *r, const json_t *turns);
/* The same, then the column `name`: a text, a dialogue text that ends with an open assistant turn, or a message list. */
ra_row_status ra_row_add_prompt(const ra_row_reader *r, const char *name);
/* A response: a text, one message, or a list whose last message is the assistant's. *before: how many messages precede it. */
ra_row_status ra_row_read_response(const ra_row_reader *r, const char *name, const json_t *value, const char **out,
                                   size_t *before);

/* ---- HH-RLHF dialogues (hh.c) ---- */
/* Adds the turns of "\n\nHuman: ... \n\nAssistant: ..." as messages; neighbours of one role are joined by a blank line. What stands before the first
 * turn, or a first turn of "System:", is a system message. */
ra_row_status ra_hh_add_turns(const char *text, size_t n, ra_row_space *space, ra_row *row);
ra_row_status ra_hh_read(const char *chosen, const char *rejected, ra_row_space *space, ra_row *row);
bool ra_hh_is_dialogue(const char *text);

/* ---- hashes of prompts and rows (row_hash.c) ---- */
/* Sets prompt_hash and hash. `scratch` is reused from row to row. */
void ra_row_make_hashes(ra_row *row, ra_buf *scratch);

#endif
