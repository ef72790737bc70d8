/* What the report takes from a run directory. Each part is read for itself; `why` says in words why one is not there, and is NULL where it is. */
#ifndef RA_REPORT_RUN_FILES_H
#define RA_REPORT_RUN_FILES_H
#include <realign/h5.h>
#include <realign/report.h>

enum { RA_BEFORE, RA_AFTER, RA_SIDES };
enum { RA_INVERT, RA_PUNISH, RA_RETAIN, RA_SETS };
enum { RA_ROW_STATES = 5 /* used, skipped, malformed, held out, undecided */ };

typedef struct {
    char *why;
    bool valid;
    char **reason; /* (reasons) */
    int reasons;
} ra_part_verdict;

typedef struct {
    char *why;
    int64_t n;
    int8_t *action, *status;             /* (n) set, -1: none; see triage.h5 */
    int8_t *c_w, *c_l;                   /* (n) 1 compliant, 0 not, -1 unknown */
    int16_t *rule_w, *rule_l, *category; /* (n) indices, -1: none */
    char **rules, **categories;
    int64_t n_rules, n_categories;
    char *policy, *oracle, *oracle_hash, *data_hash, *schema;
    char **oracles; /* of a combination; their agreement in pairs, (n_oracles, n_oracles) */
    int64_t n_oracles, *both_judged;
    double *agree, *kappa, alpha;
    double noise;
    int64_t turned; /* verdicts, by noise */
} ra_part_triage;

enum { RA_CORRECTION_REASONS = 6 /* empty, too long, not compliant, undecided, endpoint failed, none in the data */ };
typedef struct {
    char *why;
    char *source, *corrector, *oracle;
    int64_t pairs, corrected, reason[RA_CORRECTION_REASONS], candidates;
} ra_part_corrections;

typedef struct {
    char *why;
    int64_t n;
    int32_t *state; /* (n) 0 usable, 1 skipped, 2 malformed, 3 empty, 4 too long */
    char *content_hash;
    char **depends_on;
    int64_t n_depends_on;
} ra_part_store;

typedef struct {
    char *why;
    int64_t n;
    double *weight, *raw; /* (n) */
    int32_t *length;      /* (n, 3) y_w, y_l, y_c */
    char *normalise, *precision;
    double average, length_correlation, target_norm, self_check;
    int64_t conflicts, positive, gold, corrected; /* -1: not known */
} ra_part_weights;

/* TPA of a group of prompts: n judged and Wilson's interval, before and after; the change with its interval and McNemar's p. */
typedef struct {
    double judged[RA_SIDES];
    ra_interval tpa[RA_SIDES], change;
    double p;
} ra_agreement;

typedef struct {
    char *why;
    bool trained;                /* there is an "after" */
    ra_agreement all, *category; /* (n_categories) */
    char **categories, **rules;
    int64_t n_categories, n_rules;
    int64_t *violations; /* (n_rules, 2) */
    int64_t improved, worsened;
    int64_t retain; /* samples whose drift was measured; 0: it was not */
    double *drift;  /* (retain) log p_theta - log p_ref of y_w, nat */
    double drift_mean, drift_absolute, drift_per_token;
    double perplexity[RA_SIDES]; /* NaN: not measured */
    int64_t perplexity_tokens;
} ra_part_evaluation;

typedef struct {
    int64_t id;
    char *category, *prompt, *response, *rule; /* category and rule may be NULL */
    int verdict;                               /* 1, 0, -1 unknown */
} ra_text;
typedef struct {
    char *why;
    ra_text *text; /* (n) in order of the file */
    int64_t n;
} ra_part_texts;

/* /provenance of one of the HDF5 files. */
typedef struct {
    const char *file;
    char *version, *git, *flags, *compiler, *libraries, *host, *date; /* NULL where it is not there */
    int64_t ranks, threads;
} ra_provenance;
enum { RA_MOST_PROVENANCE = 5 };

typedef struct {
    char *dir, *name;
    ra_part_verdict verdict;
    ra_part_triage triage;
    ra_part_corrections corrections;
    ra_part_store store;
    ra_part_weights weights;
    ra_part_evaluation evaluation;
    ra_part_texts texts[RA_SIDES];
    ra_table steps, timers;
    char *why_steps, *why_timers, *why_used;
    char *used; /* used.yaml */
    ra_provenance provenance[RA_MOST_PROVENANCE];
    int provenances;
} ra_run_files;

/* Reads what there is; RA_ERR_IO only where `dir` is no directory. Texts: at most `samples` of each side. */
ra_err ra_run_files_read(const char *dir, int64_t samples, ra_run_files *out);
void ra_run_files_free(ra_run_files *r);
/* The value of a dotted key in used.yaml, NULL where it is not there. Free with free. */
char *ra_run_files_setting(const ra_run_files *r, const char *key);

#endif
