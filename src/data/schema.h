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
    RA_SCHEMA_PROMPTS
} ra_schema_kind;

/* What a row under construction points into; reused from row to row. */
typedef struct {
    ra_message *messages;
    int n, capacity;
    char *text; /* a block as large as any row needs: strings in it never move while a row is read */
    size_t used, size;
    ra_buf why;
} ra_row_space;

const char *ra_schema_kind_name(ra_schema_kind kind);
ra_schema_kind ra_schema_kind_of(const char *name);    /* RA_SCHEMA_NONE: unknown */
ra_schema_kind ra_schema_recognise(const json_t *row); /* by its keys; never RA_SCHEMA_PROMPTS */
bool ra_schema_has_prompt(const json_t *row);          /* {prompt ...} or {messages ...} */
extern const char *const ra_schema_accepts;            /* the forms, for error messages */

/* Fills `row` (id and source are the caller's) from `source`. row->why says what is wrong with a row that is not RA_ROW_OK. */
ra_row_status ra_schema_read(ra_schema_kind kind, bool prompts_only, json_t *source, ra_row_space *space, ra_row *row);
void ra_row_space_free(ra_row_space *space);

/* ---- pieces shared by the schemas ---- */
/* Stores why, and returns the status. */
ra_row_status ra_row_refuse(ra_row_space *space, ra_row *row, ra_row_status status, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void ra_row_add_message(ra_row_space *space, const char *role, const char *content);
/* n bytes in the space, trimmed at both ends, NUL-terminated. */
const char *ra_row_keep(ra_row_space *space, const char *text, size_t n);
/* Room for `bytes` more of kept text; call before pointers into the space are made. */
void ra_row_reserve(ra_row_space *space, size_t bytes);

/* ---- HH-RLHF dialogues (hh.c) ---- */
/* Adds the turns of "\n\nHuman: ... \n\nAssistant: ..." as messages; neighbours of one role are joined by a blank line. */
ra_row_status ra_hh_add_turns(const char *text, size_t n, ra_row_space *space, ra_row *row);
ra_row_status ra_hh_read(const char *chosen, const char *rejected, ra_row_space *space, ra_row *row);
bool ra_hh_is_dialogue(const char *text);

#endif
