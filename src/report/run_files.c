/* Reading a run directory for the report: HDF5 files. */
#include "run_files_impl.h"

#include <realign/file.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- columns and attributes that may be missing ---- */

/* A whole column of `rows` x `width`, free with ra_free. */
static ra_err column(ra_h5 *h5, const char *name, hid_t type, size_t size, int64_t rows, int64_t width, void *out)
{
    int rank;
    int64_t shape[4] = {0};
    RA_TRY(ra_h5_shape(h5, name, &rank, shape));
    if (shape[0] != rows || (rank > 1 ? shape[1] : 1) != width || rank > 2) {
        return ra_fail(RA_ERR_FORMAT, "%s has %lld rows of %lld, where %lld of %lld were expected", name, (long long)shape[0],
                       (long long)(rank > 1 ? shape[1] : 1), (long long)rows, (long long)width);
    }
    void *data = ra_alloc((size_t)(rows * width), size);
    ra_err err = ra_h5_read(h5, name, type, 0, -1, data);
    if (err != RA_OK) {
        ra_free(data);
        return err;
    }
    *(void **)out = data;
    return RA_OK;
}

static ra_err row_count(ra_h5 *h5, const char *name, int64_t *n)
{
    int rank;
    int64_t shape[4] = {0};
    RA_TRY(ra_h5_shape(h5, name, &rank, shape));
    *n = shape[0];
    return RA_OK;
}

static double real_or_nan(ra_h5 *h5, const char *name)
{
    double value;
    return ra_h5_read_attr_f64(h5, "/", name, &value) == RA_OK ? value : NAN;
}

static int64_t count_or(ra_h5 *h5, const char *object, const char *name, int64_t otherwise)
{
    int64_t value;
    return ra_h5_read_attr_i64(h5, object, name, &value) == RA_OK ? value : otherwise;
}

static char *text_or_null(ra_h5 *h5, const char *object, const char *name)
{
    char *value = NULL;
    return ra_h5_read_attr_text(h5, object, name, &value) == RA_OK ? value : NULL;
}

/* An index outside of its list would be a crash later on. */
static ra_err check_indices(const char *name, const int16_t *index, int64_t rows, int64_t n)
{
    for (int64_t i = 0; i < rows; i++) {
        if (index[i] < -1 || index[i] >= n)
            return ra_fail(RA_ERR_FORMAT, "%s: row %lld holds %d; -1 to %lld were expected", name, (long long)i, index[i],
                           (long long)n - 1);
    }
    return RA_OK;
}

static ra_err check_bytes(const char *name, const int8_t *value, int64_t rows, int least, int most)
{
    for (int64_t i = 0; i < rows; i++) {
        if (value[i] < least || value[i] > most)
            return ra_fail(RA_ERR_FORMAT, "%s: row %lld holds %d; %d to %d were expected", name, (long long)i, value[i], least,
                           most);
    }
    return RA_OK;
}

/* ---- the files ---- */

static ra_err read_agreement(ra_h5 *h5, ra_part_triage *t)
{
    RA_TRY(ra_h5_read_strings(h5, "agreement/oracles", &t->oracles, &t->n_oracles));
    int64_t n = t->n_oracles;
    RA_TRY(column(h5, "agreement/units", H5T_NATIVE_INT64, sizeof *t->both_judged, n, n, &t->both_judged));
    RA_TRY(column(h5, "agreement/share", H5T_NATIVE_DOUBLE, sizeof *t->agree, n, n, &t->agree));
    RA_TRY(column(h5, "agreement/kappa", H5T_NATIVE_DOUBLE, sizeof *t->kappa, n, n, &t->kappa));
    return ra_h5_read_attr_f64(h5, "agreement", "krippendorff_alpha", &t->alpha);
}

static ra_err read_triage(ra_h5 *h5, ra_run_files *r)
{
    ra_part_triage *t = &r->triage;
    RA_TRY(row_count(h5, "action", &t->n));
    RA_TRY(column(h5, "action", H5T_NATIVE_INT8, 1, t->n, 1, &t->action));
    RA_TRY(column(h5, "status", H5T_NATIVE_INT8, 1, t->n, 1, &t->status));
    RA_TRY(column(h5, "c_w", H5T_NATIVE_INT8, 1, t->n, 1, &t->c_w));
    RA_TRY(column(h5, "c_l", H5T_NATIVE_INT8, 1, t->n, 1, &t->c_l));
    RA_TRY(column(h5, "rule_w", H5T_NATIVE_INT16, 2, t->n, 1, &t->rule_w));
    RA_TRY(column(h5, "rule_l", H5T_NATIVE_INT16, 2, t->n, 1, &t->rule_l));
    RA_TRY(column(h5, "category", H5T_NATIVE_INT16, 2, t->n, 1, &t->category));
    RA_TRY(ra_h5_read_strings(h5, "rules", &t->rules, &t->n_rules));
    RA_TRY(ra_h5_read_strings(h5, "categories", &t->categories, &t->n_categories));
    RA_TRY(check_bytes("action", t->action, t->n, -1, RA_SETS - 1));
    RA_TRY(check_bytes("status", t->status, t->n, 0, RA_ROW_STATES - 1));
    RA_TRY(check_indices("rule_w", t->rule_w, t->n, t->n_rules));
    RA_TRY(check_indices("rule_l", t->rule_l, t->n, t->n_rules));
    RA_TRY(check_indices("category", t->category, t->n, t->n_categories));
    t->policy = text_or_null(h5, "/", "policy");
    t->oracle = text_or_null(h5, "/", "oracle");
    t->oracle_hash = text_or_null(h5, "/", "oracle_hash");
    t->data_hash = text_or_null(h5, "/", "data_hash");
    t->schema = text_or_null(h5, "/", "schema");
    t->noise = real_or_nan(h5, "oracle_noise");
    t->turned = count_or(h5, "/", "n_turned_by_noise", 0);
    return ra_h5_has(h5, "agreement") ? read_agreement(h5, t) : RA_OK;
}

static ra_err read_corrections(ra_h5 *h5, ra_run_files *r)
{
    static const char *const names[RA_CORRECTION_REASONS] = {"n_empty",     "n_too_long",        "n_not_compliant",
                                                             "n_undecided", "n_endpoint_failed", "n_missing"};
    ra_part_corrections *c = &r->corrections;
    RA_TRY(ra_h5_read_attr_i64(h5, "/", "n_pairs", &c->pairs));
    RA_TRY(ra_h5_read_attr_i64(h5, "/", "n_corrected", &c->corrected));
    for (int i = 0; i < RA_CORRECTION_REASONS; i++) c->reason[i] = count_or(h5, "/", names[i], 0);
    c->candidates = count_or(h5, "/", "n_candidates", 0);
    c->source = text_or_null(h5, "/", "source");
    c->corrector = text_or_null(h5, "/", "corrector");
    c->oracle = text_or_null(h5, "/", "oracle");
    return RA_OK;
}

static ra_err read_store(ra_h5 *h5, ra_run_files *r)
{
    ra_part_store *s = &r->store;
    RA_TRY(row_count(h5, "sample/state", &s->n));
    RA_TRY(column(h5, "sample/state", H5T_NATIVE_INT32, sizeof *s->state, s->n, 1, &s->state));
    s->content_hash = text_or_null(h5, "/", "content_hash");
    if (ra_h5_has(h5, "depends_on")) RA_TRY(ra_h5_read_strings(h5, "depends_on", &s->depends_on, &s->n_depends_on));
    return RA_OK;
}

static ra_err read_weights(ra_h5 *h5, ra_run_files *r)
{
    ra_part_weights *w = &r->weights;
    RA_TRY(row_count(h5, "weight", &w->n));
    RA_TRY(column(h5, "weight", H5T_NATIVE_DOUBLE, sizeof *w->weight, w->n, 1, &w->weight));
    RA_TRY(column(h5, "raw", H5T_NATIVE_DOUBLE, sizeof *w->raw, w->n, 1, &w->raw));
    RA_TRY(column(h5, "length", H5T_NATIVE_INT32, sizeof *w->length, w->n, 3, &w->length));
    w->normalise = text_or_null(h5, "/", "normalise");
    w->precision = text_or_null(h5, "/", "hidden_type");
    w->average = real_or_nan(h5, "average_weight");
    w->length_correlation = real_or_nan(h5, "length_correlation");
    w->target_norm = real_or_nan(h5, "target_norm");
    w->self_check = real_or_nan(h5, "self_check");
    w->conflicts = count_or(h5, "/", "conflicts", -1);
    w->positive = count_or(h5, "/", "positive", -1);
    w->gold = count_or(h5, "/", "gold_size", -1);
    w->corrected = count_or(h5, "/", "corrected", -1);
    return RA_OK;
}

static ra_interval interval(ra_h5 *h5, const char *name)
{
    char *low = ra_format("%s_low", name), *high = ra_format("%s_high", name);
    ra_interval v = {real_or_nan(h5, name), real_or_nan(h5, low), real_or_nan(h5, high)};
    free(low);
    free(high);
    return v;
}

/* Twelve columns a category: judged, TPA, low, high before; the same after; change, low, high, p. */
static ra_err read_categories(ra_h5 *h5, ra_part_evaluation *e)
{
    enum { WIDTH = 12 };
    double *rows = NULL;
    RA_TRY(ra_h5_read_strings(h5, "categories", &e->categories, &e->n_categories));
    ra_err err = column(h5, "category_tpa", H5T_NATIVE_DOUBLE, sizeof *rows, e->n_categories, WIDTH, &rows);
    if (err != RA_OK) {
        e->n_categories = 0;
        return err;
    }
    e->category = ra_calloc((size_t)e->n_categories, sizeof *e->category);
    for (int64_t i = 0; i < e->n_categories; i++) {
        const double *v = rows + i * WIDTH;
        e->category[i] = (ra_agreement){
            .judged = {v[0], v[4]}, .tpa = {{v[1], v[2], v[3]}, {v[5], v[6], v[7]}}, .change = {v[8], v[9], v[10]}, .p = v[11]};
    }
    ra_free(rows);
    return RA_OK;
}

static ra_err read_drift(ra_h5 *h5, ra_part_evaluation *e)
{
    double *reference = NULL;
    int64_t n = 0;
    RA_TRY(row_count(h5, "retain/trained_logp", &n));
    RA_TRY(column(h5, "retain/trained_logp", H5T_NATIVE_DOUBLE, sizeof *e->drift, n, 1, &e->drift));
    RA_TRY(column(h5, "retain/reference_logp", H5T_NATIVE_DOUBLE, sizeof *reference, n, 1, &reference));
    for (int64_t i = 0; i < n; i++) e->drift[i] -= reference[i];
    ra_free(reference);
    e->retain = n;
    e->drift_mean = real_or_nan(h5, "retain_drift");
    e->drift_absolute = real_or_nan(h5, "retain_drift_absolute");
    e->drift_per_token = real_or_nan(h5, "retain_drift_per_token");
    return RA_OK;
}

static ra_err read_evaluation(ra_h5 *h5, ra_run_files *r)
{
    ra_part_evaluation *e = &r->evaluation;
    ra_agreement *a = &e->all;
    a->tpa[RA_BEFORE] = interval(h5, "tpa_before");
    a->tpa[RA_AFTER] = interval(h5, "tpa_after");
    a->change = interval(h5, "tpa_change");
    a->judged[RA_BEFORE] = real_or_nan(h5, "judged_before");
    a->judged[RA_AFTER] = real_or_nan(h5, "judged_after");
    a->p = real_or_nan(h5, "mcnemar_p");
    e->trained = ra_h5_has(h5, "after");
    e->improved = count_or(h5, "/", "improved", 0);
    e->worsened = count_or(h5, "/", "worsened", 0);
    e->perplexity[RA_BEFORE] = real_or_nan(h5, "perplexity_before");
    e->perplexity[RA_AFTER] = real_or_nan(h5, "perplexity_after");
    e->perplexity_tokens = count_or(h5, "/", "perplexity_tokens", 0);
    if (ra_h5_has(h5, "rules") && ra_h5_has(h5, "rule_violations")) {
        RA_TRY(ra_h5_read_strings(h5, "rules", &e->rules, &e->n_rules));
        RA_TRY(column(h5, "rule_violations", H5T_NATIVE_INT64, sizeof *e->violations, e->n_rules, RA_SIDES, &e->violations));
    }
    if (ra_h5_has(h5, "categories") && ra_h5_has(h5, "category_tpa")) RA_TRY(read_categories(h5, e));
    return ra_h5_has(h5, "retain") ? read_drift(h5, e) : RA_OK;
}

static void read_provenance(ra_h5 *h5, ra_run_files *r, const char *file)
{
    if (!ra_h5_has(h5, "/provenance") || r->provenances == RA_MOST_PROVENANCE) return;
    static const char group[] = "/provenance";
    r->provenance[r->provenances++] = (ra_provenance){.file = file,
                                                      .version = text_or_null(h5, group, "version"),
                                                      .git = text_or_null(h5, group, "git"),
                                                      .flags = text_or_null(h5, group, "flags"),
                                                      .compiler = text_or_null(h5, group, "compiler"),
                                                      .libraries = text_or_null(h5, group, "libraries"),
                                                      .host = text_or_null(h5, group, "host"),
                                                      .date = text_or_null(h5, group, "date"),
                                                      .ranks = count_or(h5, group, "ranks", 0),
                                                      .threads = count_or(h5, group, "threads_per_rank", 0)};
}

void ra_run_files_read_h5(ra_run_files *r)
{
    const struct {
        const char *name, *stage;
        ra_err (*read)(ra_h5 *h5, ra_run_files *r);
        char **why;
    } files[] = {{"store.h5", "prepare", read_store, &r->store.why},
                 {"triage.h5", "triage", read_triage, &r->triage.why},
                 {"corrections.h5", "correct", read_corrections, &r->corrections.why},
                 {"weights.h5", "weigh", read_weights, &r->weights.why},
                 {"evaluate.h5", "evaluate", read_evaluation, &r->evaluation.why}};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char *path = ra_path_join(r->dir, files[i].name);
        ra_h5 *h5 = NULL;
        if (!ra_file_exists(path)) {
            *files[i].why =
                ra_format("%s is not in the run directory: the stage %s has not been run.", files[i].name, files[i].stage);
        } else if (ra_h5_open(path, NULL, &h5) != RA_OK || ra_h5_verify_all(h5) != RA_OK || files[i].read(h5, r) != RA_OK) {
            *files[i].why = ra_format("%s cannot be used: %s", files[i].name, ra_error_message());
        }
        if (h5) read_provenance(h5, r, files[i].name);
        ra_h5_close(h5);
        free(path);
    }
}

/* ---- release ---- */

static void free_provenance(ra_provenance *p)
{
    free(p->version);
    free(p->git);
    free(p->flags);
    free(p->compiler);
    free(p->libraries);
    free(p->host);
    free(p->date);
}

void ra_run_files_free_h5(ra_run_files *r)
{
    ra_part_triage *t = &r->triage;
    void *const aligned[] = {t->action,
                             t->status,
                             t->c_w,
                             t->c_l,
                             t->rule_w,
                             t->rule_l,
                             t->category,
                             t->both_judged,
                             t->agree,
                             t->kappa,
                             r->store.state,
                             r->weights.raw,
                             r->weights.weight,
                             r->weights.length,
                             r->evaluation.category,
                             r->evaluation.violations,
                             r->evaluation.drift};
    void *const plain[] = {t->why,
                           t->rules,
                           t->categories,
                           t->policy,
                           t->oracle,
                           t->oracle_hash,
                           t->data_hash,
                           t->schema,
                           t->oracles,
                           r->corrections.why,
                           r->corrections.source,
                           r->corrections.corrector,
                           r->corrections.oracle,
                           r->store.why,
                           r->store.content_hash,
                           r->store.depends_on,
                           r->weights.why,
                           r->weights.normalise,
                           r->weights.precision,
                           r->evaluation.why,
                           r->evaluation.categories,
                           r->evaluation.rules};
    for (size_t i = 0; i < sizeof aligned / sizeof aligned[0]; i++) ra_free(aligned[i]);
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++) free(plain[i]);
    for (int i = 0; i < r->provenances; i++) free_provenance(&r->provenance[i]);
}
