/* Preference data as users have it: rows of JSON Lines (plain or .gz), read as a stream, a row at a time; nothing is held but the row.
 * The global sample id of a row is its 0-based row number in the concatenation of the files (blank lines do not count). */
#ifndef REALIGN_PREFDATA_H
#define REALIGN_PREFDATA_H
#include <realign/error.h>
#include <realign/settings.h>
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
    bool chosen_is_first;    /* y_w is response_0 (or response[0]); true for schemas without such an order */
    const char *why;         /* why the row cannot be used; NULL where it can */
} ra_row;

typedef enum {
    RA_ROW_OK,
    RA_ROW_SKIPPED,  /* well-formed, not usable as a pair (diverges before the last turn, empty response ...) */
    RA_ROW_MALFORMED /* not JSON, wrong types, missing keys, invalid UTF-8 */
} ra_row_status;

typedef struct ra_prefdata ra_prefdata;
typedef struct {
    int64_t rows;                                   /* of all shares, so far */
    int64_t used, skipped, malformed;               /* of the shares that were asked for */
    int64_t first_malformed[16], first_skipped[16]; /* the first row numbers (1-based, as an editor shows) and why */
    const char *why_malformed[16], *why_skipped[16];
} ra_data_counts;

/* `paths`: files; `schema`: "auto" or a known name; `malformed_limit`: more malformed rows than this is RA_ERR_DATA.
 * Schemas (doc/data.md): "pairs", "hh", "pku", "responses"; "prompts" reads the prompt alone of a row of any of them, or of
 * {prompt} or {messages}: chosen and rejected are then NULL. */
ra_err ra_prefdata_open(const char *const *paths, int n_paths, const char *schema, int64_t malformed_limit, ra_prefdata **out);
/* The next row whose id belongs to this share: blocks of `block` rows are dealt round-robin, (id / block) % ranks == rank. Other rows are passed over without
 * being parsed. *row points into the reader until the next call; *more is false at the end. Status says whether the row can be used; `row->id` is
 * always set. A malformed row beyond the limit, or an unreadable file, is an error that names file, row and reason. */
ra_err ra_prefdata_next(ra_prefdata *data, int rank, int ranks, int64_t block, const ra_row **row, ra_row_status *status,
                        bool *more);
const ra_data_counts *ra_prefdata_counts(const ra_prefdata *data);
const char *ra_prefdata_schema(const ra_prefdata *data); /* the recognised schema */
void ra_prefdata_close(ra_prefdata *data);
/* A row that outlives its reader, in one block of memory; `source` is shared by count. Free with ra_row_free, NULL too. */
ra_row *ra_row_copy(const ra_row *row);
void ra_row_free(ra_row *row);

/* Rows beyond these end the data, or are malformed; 0 leaves the limit as it is (no end; 64 MiB a row). */
void ra_prefdata_set_limits(ra_prefdata *data, int64_t max_rows, int64_t max_row_bytes);
/* Opens what data.path, data.schema, data.malformed_limit, data.limit and data.row_limit say, so that every stage reads the same rows. */
ra_err ra_prefdata_open_settings(const ra_settings *s, ra_prefdata **out);
/* Is this row kept away from training (data.held_out)? Drawn from seed and id alone. */
bool ra_row_held_out(const ra_settings *s, int64_t id);

#endif
