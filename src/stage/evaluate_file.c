/* evaluate.h5, and the tables of the log. */
#include "evaluate.h"

#include <realign/file.h>
#include <realign/h5.h>
#include <realign/mem.h>

#include <stdlib.h>

static const char *const side_name[RA_SIDES] = {"before", "after"};

/* Every rank has all rows: rank 0 writes them. */
static ra_err put(ra_h5 *h5, const char *name, hid_t type, int64_t rows, int64_t width, const void *data, const char *description,
                  const char *unit)
{
    int64_t shape[2] = {rows, width};
    return ra_h5_write_all(h5, name, type, width > 1 ? 2 : 1, shape, data, description, unit);
}

static ra_err put_number(ra_h5 *h5, const char *what, const char *side, const char *end, double value)
{
    char *name = ra_format("%s_%s%s", what, side, end);
    ra_err err = ra_h5_write_attr_f64(h5, "/", name, value);
    free(name);
    return err;
}

static ra_err put_share(ra_h5 *h5, const char *side, const ra_share *s)
{
    RA_TRY(put_number(h5, "tpa", side, "", s->share));
    RA_TRY(put_number(h5, "tpa", side, "_low", s->low));
    RA_TRY(put_number(h5, "tpa", side, "_high", s->high));
    return put_number(h5, "judged", side, "", (double)s->n);
}

/* Verdicts, deciding rules and lengths of one side's answers. */
static ra_err put_answers(ra_h5 *h5, const ra_evaluation *e, int which)
{
    const ra_answers *a = &e->answers[which];
    int8_t *verdict = ra_alloc((size_t)a->n, 1);
    int16_t *rule = ra_alloc((size_t)a->n, sizeof *rule);
    int32_t *tokens = ra_alloc((size_t)a->n, sizeof *tokens);
    for (int64_t i = 0; i < a->n; i++) {
        verdict[i] = a->answer[i].verdict;
        rule[i] = a->answer[i].rule;
        tokens[i] = a->answer[i].tokens;
    }
    const void *data[] = {verdict, rule, tokens};
    const hid_t type[] = {H5T_NATIVE_INT8, H5T_NATIVE_INT16, H5T_NATIVE_INT32};
    static const char *const name[] = {"verdict", "rule", "tokens"}, *const unit[] = {"1", "index", "token"};
    static const char *const description[] = {"1 compliant, 0 not, -1 not judged", "deciding rule, index into /rules; -1: none",
                                              "new tokens of the answer, the closing one included"};
    ra_err err = RA_OK;
    for (int i = 0; i < 3 && err == RA_OK; i++) {
        char *path = ra_format("%s/%s", side_name[which], name[i]);
        err = put(h5, path, type[i], a->n, 1, data[i], description[i], unit[i]);
        free(path);
    }
    ra_free(verdict);
    ra_free(rule);
    ra_free(tokens);
    char *key = ra_format("answers_%s_key", side_name[which]);
    if (err == RA_OK) err = ra_h5_write_attr_text(h5, "/", key, a->key);
    free(key);
    return err;
}

static ra_err put_rules(ra_h5 *h5, const ra_evaluation *e)
{
    int n = ra_oracle_rule_count(e->oracle);
    if (n == 0) return RA_OK;
    const char **name = ra_calloc((size_t)n, sizeof *name);
    int64_t *violations = ra_calloc((size_t)n * RA_SIDES, sizeof *violations);
    for (int i = 0; i < n; i++) {
        name[i] = ra_oracle_rule_name(e->oracle, i);
        for (int side = 0; side < 1 + e->trained; side++) violations[i * RA_SIDES + side] = e->violations[side][i];
    }
    ra_err err = ra_h5_write_strings(h5, "rules", name, n, "names of the policy's rules");
    if (err == RA_OK)
        err = put(h5, "rule_violations", H5T_NATIVE_INT64, n, RA_SIDES, violations,
                  "answers that each rule decided against: before, after", "answers");
    ra_free(name);
    ra_free(violations);
    return err;
}

static ra_err put_categories(ra_h5 *h5, const ra_evaluation *e)
{
    enum { WIDTH = 12 };
    if (e->categories == 0) return RA_OK;
    double *row = ra_calloc((size_t)e->categories * WIDTH, sizeof *row);
    for (int i = 0; i < e->categories; i++) {
        double *to = row + i * WIDTH;
        for (int side = 0; side < 1 + e->trained; side++) {
            const ra_share *s = &e->category_tpa[side][i];
            const double values[] = {(double)s->n, s->share, s->low, s->high};
            for (int k = 0; k < 4; k++) to[4 * side + k] = values[k];
        }
        const ra_change *c = &e->category_change[i];
        const double values[] = {c->change, c->low, c->high, c->p};
        for (int k = 0; k < 4; k++) to[8 + k] = values[k];
    }
    ra_err err = ra_h5_write_strings(h5, "categories", e->category, e->categories, "categories of the prompts");
    if (err == RA_OK)
        err = put(h5, "category_tpa", H5T_NATIVE_DOUBLE, e->categories, WIDTH, row,
                  "judged, TPA, low, high before; the same after; change, low, high, McNemar p", "1");
    ra_free(row);
    return err;
}

static ra_err put_change(ra_h5 *h5, const ra_change *c)
{
    RA_TRY(ra_h5_write_attr_f64(h5, "/", "tpa_change", c->change));
    RA_TRY(ra_h5_write_attr_f64(h5, "/", "tpa_change_low", c->low));
    RA_TRY(ra_h5_write_attr_f64(h5, "/", "tpa_change_high", c->high));
    RA_TRY(ra_h5_write_attr_f64(h5, "/", "mcnemar_p", c->p));
    RA_TRY(ra_h5_write_attr_i64(h5, "/", "improved", c->improved));
    return ra_h5_write_attr_i64(h5, "/", "worsened", c->worsened);
}

static ra_err put_drift(ra_h5 *h5, const ra_drift *d)
{
    RA_TRY(put(h5, "retain/sample", H5T_NATIVE_INT64, d->n, 1, d->sample, "ids of the Retain samples", "sample"));
    RA_TRY(put(h5, "retain/reference_logp", H5T_NATIVE_DOUBLE, d->n, 1, d->reference, "log p_ref(y_w|x)", "nat"));
    RA_TRY(put(h5, "retain/trained_logp", H5T_NATIVE_DOUBLE, d->n, 1, d->trained, "log p_theta(y_w|x)", "nat"));
    RA_TRY(put(h5, "retain/tokens", H5T_NATIVE_INT32, d->n, 1, d->tokens, "scored tokens of y_w", "token"));
    RA_TRY(ra_h5_write_attr_i64(h5, "/", "retain_samples", d->n));
    RA_TRY(ra_h5_write_attr_f64(h5, "/", "retain_drift", d->mean));
    RA_TRY(ra_h5_write_attr_f64(h5, "/", "retain_drift_absolute", d->mean_absolute));
    return ra_h5_write_attr_f64(h5, "/", "retain_drift_per_token", d->mean_per_token);
}

static ra_err put_perplexity(ra_h5 *h5, const ra_evaluation *e)
{
    RA_TRY(ra_h5_write_attr_i64(h5, "/", "perplexity_window", RA_PERPLEXITY_WINDOW));
    RA_TRY(ra_h5_write_attr_i64(h5, "/", "perplexity_tokens", e->perplexity[RA_BEFORE].tokens));
    RA_TRY(ra_h5_write_attr_f64(h5, "/", "perplexity_before", e->perplexity[RA_BEFORE].perplexity));
    if (!e->trained) return RA_OK;
    return ra_h5_write_attr_f64(h5, "/", "perplexity_after", e->perplexity[RA_AFTER].perplexity);
}

static ra_err put_all(ra_h5 *h5, const ra_evaluation *e, const char *used)
{
    int64_t n = e->prompts.n, *id = ra_alloc((size_t)n, sizeof *id);
    for (int64_t i = 0; i < n; i++) id[i] = e->prompts.prompt[i].id;
    ra_err err = put(h5, "prompt", H5T_NATIVE_INT64, n, 1, id, "row of each prompt in its file", "row");
    ra_free(id);
    if (err == RA_OK)
        err = put(h5, "category_of", H5T_NATIVE_INT32, n, 1, e->category_of, "index into /categories; -1: none", "index");
    RA_TRY(err);
    for (int side = 0; side < 1 + e->trained; side++) {
        RA_TRY(put_answers(h5, e, side));
        RA_TRY(put_share(h5, side_name[side], &e->tpa[side]));
    }
    RA_TRY(put_rules(h5, e));
    RA_TRY(put_categories(h5, e));
    if (e->trained) RA_TRY(put_change(h5, &e->change));
    if (e->has_drift) RA_TRY(put_drift(h5, &e->drift));
    if (e->has_perplexity) RA_TRY(put_perplexity(h5, e));
    RA_TRY(ra_h5_write_attr_text(h5, "/", "policy", ra_oracle_policy(e->oracle)->name));
    return ra_h5_write_provenance(h5, e->world, used);
}

ra_err ra_evaluation_write(const ra_evaluation *e)
{
    char *path = ra_path_join(ra_set_text(e->s, "run.dir"), "evaluate.h5");
    ra_buf used = {0};
    ra_settings_write_yaml(e->s, &used);
    ra_h5 *h5 = NULL;
    ra_err err = ra_h5_create(path, e->world, &h5);
    if (err == RA_OK) err = put_all(h5, e, used.data);
    if (err == RA_OK) {
        err = ra_h5_commit(h5);
    } else {
        ra_h5_close(h5);
    }
    ra_buf_free(&used);
    free(path);
    return err;
}

/* ---- tables ---- */

static void add_share(ra_buf *out, const ra_share *s)
{
    ra_buf_addf(out, " %5.1f %% [%5.1f, %5.1f]", 100.0 * s->share, 100.0 * s->low, 100.0 * s->high);
}

static void add_row(ra_buf *out, const char *name, const ra_evaluation *e, const ra_share *before, const ra_share *after,
                    const ra_change *change)
{
    ra_buf_addf(out, "  %-24.24s %5lld", name, (long long)before->n);
    add_share(out, before);
    if (e->trained) {
        add_share(out, after);
        ra_buf_addf(out, " %+6.1f [%+6.1f, %+6.1f]  %.2g", 100.0 * change->change, 100.0 * change->low, 100.0 * change->high,
                    change->p);
    }
    ra_buf_adds(out, "\n");
}

void ra_evaluation_table(const ra_evaluation *e, ra_buf *out)
{
    ra_buf_addf(out, "  Target Policy Agreement under %s, 95 %% intervals\n  %-24s %5s %23s", ra_oracle_policy(e->oracle)->name,
                "", "n", "before");
    if (e->trained) ra_buf_addf(out, " %23s %24s  McNemar p", "after", "change in points");
    ra_buf_adds(out, "\n");
    add_row(out, "all", e, &e->tpa[RA_BEFORE], &e->tpa[RA_AFTER], &e->change);
    for (int i = 0; i < e->categories; i++)
        add_row(out, e->category[i], e, &e->category_tpa[RA_BEFORE][i], e->trained ? &e->category_tpa[RA_AFTER][i] : NULL,
                &e->category_change[i]);
    ra_buf_adds(out, "  answers a rule decided against\n");
    for (int i = 0; i < ra_oracle_rule_count(e->oracle); i++) {
        ra_buf_addf(out, "  %-24.24s %5lld", ra_oracle_rule_name(e->oracle, i), (long long)e->violations[RA_BEFORE][i]);
        if (e->trained) ra_buf_addf(out, " -> %lld", (long long)e->violations[RA_AFTER][i]);
        ra_buf_adds(out, "\n");
    }
    if (e->has_drift) {
        ra_buf_addf(out, "  drift of log p on %lld Retain samples: %+.4f nat a sample (absolute %.4f), %+.5f nat a token\n",
                    (long long)e->drift.n, e->drift.mean, e->drift.mean_absolute, e->drift.mean_per_token);
    }
    if (e->has_perplexity) {
        ra_buf_addf(out, "  perplexity of neutral text (%lld tokens): %.3f", (long long)e->perplexity[RA_BEFORE].tokens,
                    e->perplexity[RA_BEFORE].perplexity);
        if (e->trained) ra_buf_addf(out, " -> %.3f", e->perplexity[RA_AFTER].perplexity);
        ra_buf_adds(out, "\n");
    }
}
