/* What the files of the triage stage share: the integers kept for a row, and what is counted over them. */
#ifndef RA_STAGE_TRIAGE_H
#define RA_STAGE_TRIAGE_H
#include <realign/comm.h>
#include <realign/h5.h>
#include <realign/mem.h>
#include <realign/oracle.h>
#include <realign/prefdata.h>
#include <stdint.h>

typedef enum { RA_ACTION_NONE = -1, RA_ACTION_INVERT, RA_ACTION_PUNISH, RA_ACTION_RETAIN } ra_action;

/* Why a row has an action, or has none. Values of the dataset /status. */
typedef enum {
    RA_TRIAGE_USED,
    RA_TRIAGE_SKIPPED,
    RA_TRIAGE_MALFORMED,
    RA_TRIAGE_HELD_OUT,
    RA_TRIAGE_UNDECIDED,
    RA_TRIAGE_STATES
} ra_triage_state;

typedef struct {
    int8_t state, action;                                   /* ra_triage_state, ra_action */
    int8_t c_w, c_l;                                        /* verdicts: 1 compliant, 0 not, -1 not judged or undecided */
    int16_t rule_w, rule_l, category;                       /* indices; -1: none */
    float probability_w, probability_l, margin_w, margin_l; /* as ra_verdict has them */
} ra_triage_row;

/* The table of METHOD section 2. RA_ACTION_NONE where a verdict that matters is -1. */
ra_action ra_triage_action(int c_w, int c_l);
/* "invert", "punish", "retain"; without an action why: "skipped", "malformed", "held_out", "undecided". */
const char *ra_triage_word(const ra_triage_row *row);

/* ---- names of categories: few, known only when all rows are read ---- */
enum { RA_MOST_CATEGORIES = 1000 };
typedef struct {
    char *name[RA_MOST_CATEGORIES];     /* by index */
    int16_t sorted[RA_MOST_CATEGORIES]; /* indices in order of their names */
    int n;
    bool overflow; /* there were more: the column holds free text, and no category is kept */
} ra_category_list;

/* The index of a name, added where it is new; -1 for NULL and after an overflow. */
int16_t ra_category_index(ra_category_list *list, const char *name);
/* Collective. Makes the list the same on all ranks, ordered by name (so that it does not depend on the ranks), and renames rows[0..n). */
void ra_category_merge(ra_category_list *list, const ra_comm *comm, ra_triage_row *rows, int64_t n);
void ra_category_free(ra_category_list *list);

/* ---- judging (triage_judge.c) ---- */
enum { RA_TRIAGE_BLOCK = 64 /* rows dealt at a time */ };

typedef struct {
    const ra_settings *s;
    const ra_comm *world;
    ra_oracle *oracle;
    ra_prefdata *data;
    ra_triage_row *rows; /* (n) of this rank's share, in ascending id; from malloc */
    int64_t n, capacity;
    ra_category_list categories;
} ra_triage_share;

/* Collective. Reads t->data to its end and judges both responses of every row of this rank's share. RA_ERR_DATA beyond oracle.undecided_limit; with a costly
 * oracle RA_ERR_STOPPED after an orderly stop, when its cache holds all that was heard. */
ra_err ra_triage_judge(ra_triage_share *t);

/* Collective. The stage with an oracle that is open; closes it. */
ra_err ra_triage_with(const ra_settings *s, const ra_comm *world, ra_oracle *oracle);

/* ---- counts and what is said about them ---- */
typedef struct {
    int64_t rows, action[3], judged[2], yes[2]; /* judged, yes: of y_w and y_l */
} ra_triage_group;

typedef struct {
    int64_t state[RA_TRIAGE_STATES];
    ra_triage_group all, without_category, *category; /* (n_categories) */
    int64_t *rule[2];                                 /* (n_rules) how often a rule decided over y_w, y_l */
    int n_categories, n_rules;
    int64_t flipped; /* verdicts that oracle.noise turned round */
} ra_triage_counts;

/* Collective. Counts rows[0..n) of this rank and adds over ranks. */
void ra_triage_count(ra_triage_counts *c, const ra_comm *comm, const ra_triage_row *rows, int64_t n, int n_categories,
                     int n_rules);
void ra_triage_counts_free(ra_triage_counts *c);
/* The table per category, yes-rates, deciding rules, rows left out. */
void ra_triage_table(const ra_triage_counts *c, const ra_category_list *categories, const ra_oracle *oracle, ra_buf *out);
/* What an empty set means for the method and what to check; nothing where no set is empty. Also undecided rows. */
void ra_triage_advice(const ra_triage_counts *c, ra_buf *out);

/* ---- agreement of combined oracles (triage_agreement.c) ---- */
/* `a` is of all ranks. For combinations. */
void ra_triage_agreement_table(const ra_agreement *a, const ra_oracle *oracle, ra_buf *out);
/* Collective over the file: the group /agreement. */
ra_err ra_triage_agreement_write(ra_h5 *file, const ra_agreement *a, const ra_oracle *oracle);

/* ---- files (triage_file.c) ---- */
typedef struct {
    const char *dir, *used_yaml, *schema, *key; /* key: data, policy and settings that the result depends on */
    const char *data_hash;
    const ra_oracle *oracle;
    const ra_category_list *categories;
    const ra_triage_counts *counts;
    const ra_agreement *agreement; /* of all ranks */
    double noise, threshold;       /* as the settings have them */
    int64_t first, count, total;   /* this rank holds rows [first, first + count) of total */
    const ra_triage_row *rows;
} ra_triage_result;

/* Collective. Writes dir/triage.jsonl and dir/triage.h5, each complete or not at all. */
ra_err ra_triage_write(const ra_triage_result *result, const ra_comm *comm);
/* Not collective. Is there a sound triage.h5 with this key, and a triage.jsonl? Otherwise `why` says what is not so. */
bool ra_triage_is_current(const char *dir, const char *key, ra_buf *why);

#endif
