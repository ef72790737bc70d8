/* Preference data as users have it: rows of JSON Lines (plain or .gz), read as a stream, a row at a time; nothing is held but the row.
 * The global sample id of a row is its 0-based row number in the concatenation of the files (blank lines do not count). */
#ifndef REALIGN_PREFDATA_H
#define REALIGN_PREFDATA_H
#include <realign/error.h>
#include <realign/tokenizer.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    int64_t id;              /* global row number from 0 */
    int n_prompt;            /* prompt messages: the conversation before the response */
    ra_message *prompt;      /* the last one is a user turn */
    const char *chosen;      /* y_w: text of the last assistant turn */
    const char *rejected;    /* y_l */
    const char *correction;  /* y_c or NULL */
    const char *category;    /* or NULL */
    const char *prompt_text; /* the last user turn, what rules look at */
    json_t *source;          /* the whole row, for oracles that read columns; borrowed */
    bool chosen_is_first;    /* for schemas with response_0/response_1: y_w is response_0 */
} ra_row;

typedef enum {
    RA_ROW_OK,
    RA_ROW_SKIPPED,  /* well-formed, not usable as a pair (diverges before the last turn, empty response ...) */
    RA_ROW_MALFORMED /* not JSON, wrong types, missing keys, invalid UTF-8 */
} ra_row_status;

typedef struct ra_prefdata ra_prefdata;
typedef struct {
    int64_t rows, used, skipped, malformed;
    int64_t first_malformed[16], first_skipped[16]; /* the first row numbers (1-based, as an editor shows) and why */
    const char *why_malformed[16], *why_skipped[16];
} ra_data_counts;

/* `paths`: files; `schema`: "auto" or a known name; `malformed_limit`: more malformed rows than this is RA_ERR_DATA. */
ra_err ra_prefdata_open(const char *const *paths, int n_paths, const char *schema, int64_t malformed_limit, ra_prefdata **out);
/* The next row whose id belongs to this share: blocks of `block` rows are dealt round-robin, (id / block) % ranks == rank. Other rows are passed over without
 * being parsed. *row points into the reader until the next call; *more is false at the end. Status says whether the row can be used; `row->id` is
 * always set. A malformed row beyond the limit, or an unreadable file, is an error that names file, row and reason. */
ra_err ra_prefdata_next(ra_prefdata *data, int rank, int ranks, int64_t block, const ra_row **row, ra_row_status *status,
                        bool *more);
const ra_data_counts *ra_prefdata_counts(const ra_prefdata *data);
const char *ra_prefdata_schema(const ra_prefdata *data); /* the recognised schema */
void ra_prefdata_close(ra_prefdata *data);

#endif
