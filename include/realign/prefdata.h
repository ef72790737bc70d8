/* Preference data as users have it: rows of JSON Lines or of a JSON array (plain, .gz, .zst; several files, folders of shards), read as a stream, a row at a time;
 * nothing is held but the row. The global sample id of a row is its 0-based row number in the concatenation of the files (blank lines do not count). */
#ifndef REALIGN_PREFDATA_H
#define REALIGN_PREFDATA_H
#include <realign/comm.h>
#include <realign/error.h>
#include <realign/hash.h>
#include <realign/settings.h>
#include <realign/tokenizer.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* Why a row cannot be used. */
typedef enum {
    RA_PROBLEM_NONE,
    RA_PROBLEM_MALFORMED, /* not JSON, wrong types, missing keys, invalid UTF-8, too long */
    RA_PROBLEM_DIALOGUE, /* no two answers to one prompt: the dialogues diverge early, no user turn at the end, a role that no template has */
    RA_PROBLEM_EMPTY,     /* the prompt or a response */
    RA_PROBLEM_IDENTICAL, /* both responses are the same text */
    RA_PROBLEM_UNPAIRED,  /* a single labelled response, or not two of them */
    RA_PROBLEM_DUPLICATE, /* prompt and responses of an earlier row */
    RA_PROBLEM_NOT_DRAWN, /* left out by data.weights */
    RA_PROBLEMS
} ra_row_problem;
const char *ra_row_problem_name(ra_row_problem problem); /* "malformed", "not drawn" ... */

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
    bool identical;          /* both responses are the same text, but for white space at the ends */
    bool chosen_is_first;    /* y_w is response_0 (or response[0]); true for schemas without such an order */
    ra_row_problem problem;  /* RA_PROBLEM_NONE where it can be used */
    const char *why;         /* the same in words; NULL where it can */
    const char *file;        /* where it stands: path and line of its beginning */
    int64_t line;
    int origin; /* the entry of data.path it comes from */
    uint64_t
        prompt_hash; /* of the whole prompt, without regard to case and white space: what data.held_out is drawn by; 0 without a prompt */
    ra_hash hash; /* of the prompt and both responses, exactly */
} ra_row;

typedef enum {
    RA_ROW_OK,
    RA_ROW_SKIPPED,  /* well-formed, not usable as a pair (diverges before the last turn, empty response ...), or not drawn */
    RA_ROW_MALFORMED /* not JSON, wrong types, missing keys, invalid UTF-8 */
} ra_row_status;

typedef struct ra_prefdata ra_prefdata;
enum { RA_DATA_FIRST = 16 };
typedef struct {
    int64_t rows;                     /* of all shares, so far */
    int64_t used, skipped, malformed; /* of the shares that were asked for */
    /* The first row numbers (1-based, as an editor shows) and why. Rows that were not drawn are counted, not listed. */
    int64_t first_malformed[RA_DATA_FIRST], first_skipped[RA_DATA_FIRST];
    const char *why_malformed[RA_DATA_FIRST], *why_skipped[RA_DATA_FIRST];
    int64_t problem[RA_PROBLEMS]; /* rows by problem */
} ra_data_counts;

/* `paths`: files or folders; `schema`: "auto" or a known name; `malformed_limit`: more malformed rows than this is RA_ERR_DATA.
 * Schemas: doc/data.md; with auto, each path may have its own. "prompts" reads the prompt alone of a row of any of them, or of {prompt} or {messages}:
 * chosen and rejected are then NULL. */
ra_err ra_prefdata_open(const char *const *paths, int n_paths, const char *schema, int64_t malformed_limit, ra_prefdata **out);
/* The next row whose id belongs to this share: blocks of `block` rows are dealt round-robin, (id / block) % ranks == rank. Other rows are passed over without
 * being parsed. *row points into the reader until the next call; *more is false at the end. Status says whether the row can be used; `row->id` is
 * always set. A malformed row beyond the limit, or an unreadable file, is an error that names file, row and reason. A single labelled response has status
 * RA_ROW_SKIPPED, problem RA_PROBLEM_UNPAIRED, and stands in `chosen` or `rejected`, the other of which is NULL. */
ra_err ra_prefdata_next(ra_prefdata *data, int rank, int ranks, int64_t block, const ra_row **row, ra_row_status *status,
                        bool *more);
const ra_data_counts *ra_prefdata_counts(const ra_prefdata *data);
const char *ra_prefdata_schema(const ra_prefdata *data);             /* the recognised schemas, "hh" or "hh, pku" */
const char *ra_prefdata_form(const ra_prefdata *data);               /* "JSON Lines", "a JSON array", of the file read last */
int ra_prefdata_origins(const ra_prefdata *data);                    /* entries of data.path */
const char *ra_prefdata_origin(const ra_prefdata *data, int origin); /* the entry, as it was given */
/* Rows read of an entry, of all shares, and those of them that data.weights drew. */
void ra_prefdata_origin_rows(const ra_prefdata *data, int origin, int64_t *rows, int64_t *drawn);
void ra_prefdata_close(ra_prefdata *data);
/* A row that outlives its reader, in one block of memory; `source` is shared by count. Free with ra_row_free, NULL too. */
ra_row *ra_row_copy(const ra_row *row);
void ra_row_free(ra_row *row);

/* Rows beyond these end the data, or are malformed; 0 leaves the limit as it is (no end; 64 MiB a row). */
void ra_prefdata_set_limits(ra_prefdata *data, int64_t max_rows, int64_t max_row_bytes);
/* Opens what data.path and the other keys under data say, so that every stage reads the same rows. */
ra_err ra_prefdata_open_settings(const ra_settings *s, ra_prefdata **out);
/* Collective. Where data.duplicates is drop, finds the rows that repeat an earlier one (a pass of its own over the data), so that this reader gives
 * them out as skipped; else does nothing. Blocks as in ra_prefdata_next. */
ra_err ra_prefdata_find_duplicates(ra_prefdata *data, const ra_settings *s, const ra_comm *comm);
/* Of every setting that says which rows there are and what they hold. */
uint64_t ra_prefdata_settings_hash(const ra_settings *s);
/* Is a row with this prompt kept away from training (data.held_out)? Drawn from seed and prompt alone: a prompt is never on both sides. */
bool ra_row_held_out(const ra_settings *s, uint64_t prompt_hash);

/* ---- files ---- */
/* Collective. Where data.path has "-", rank 0 writes standard input to run.dir/stdin.data once, so that all ranks and later stages read the same; with
 * nothing on standard input, what an earlier stage wrote is checked against its checksum and used. Else does nothing. */
ra_err ra_prefdata_spool(const ra_settings *s, const ra_comm *comm);
/* The files that data.path stands for, in reading order: folders opened, "-" replaced. *files is a block of *n strings; free with ra_prefdata_free_files. */
ra_err ra_prefdata_list_files(const ra_settings *s, char ***files, int *n);
void ra_prefdata_free_files(char **files, int n);
/* Collective. The hash of the content of all these files, shared among the ranks, as text. */
ra_err ra_prefdata_hash_files(const ra_settings *s, const ra_comm *comm, char text[33]);

/* ---- duplicates ---- */
typedef struct ra_duplicates ra_duplicates;
/* Hashes seen so far, each kept by one rank, whatever the number of ranks. */
ra_duplicates *ra_duplicates_new(const ra_comm *comm);
/* Collective. Rounds come in ascending ids: every id of a round lies above those of the rounds before; inside a round the ranks' ids may mix.
 *   hash, id [in] (n) ascending ids
 *   first   [out] (n) the lowest id with this hash: the own one where the row is the first */
void ra_duplicates_add(ra_duplicates *d, const ra_hash *hash, const int64_t *id, int n, int64_t *first);
void ra_duplicates_free(ra_duplicates *d);

#endif
