/* Triage in numbers and words. */
#include "triage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN = 20 /* categories and rules in the table, the largest first */, NAME_WIDTH = 30 };

ra_action ra_triage_action(int c_w, int c_l)
{
    if (c_w == 1) return RA_ACTION_RETAIN;
    if (c_w != 0 || c_l < 0) return RA_ACTION_NONE;
    return c_l == 1 ? RA_ACTION_INVERT : RA_ACTION_PUNISH;
}

const char *ra_triage_word(const ra_triage_row *row)
{
    static const char *const actions[] = {"invert", "punish", "retain"};
    static const char *const states[] = {"none", "skipped", "malformed", "held_out", "undecided"};
    return row->action >= 0 ? actions[row->action] : states[row->state];
}

static void add_row(ra_triage_group *group, const ra_triage_row *row)
{
    group->rows++;
    if (row->action >= 0) group->action[row->action]++;
    const int8_t verdict[2] = {row->c_w, row->c_l};
    for (int i = 0; i < 2; i++) {
        group->judged[i] += verdict[i] >= 0;
        group->yes[i] += verdict[i] == 1;
    }
}

void ra_triage_count(ra_triage_counts *c, const ra_comm *comm, const ra_triage_row *rows, int64_t n, int n_categories,
                     int n_rules)
{
    *c = (ra_triage_counts){.n_categories = n_categories, .n_rules = n_rules};
    c->category = ra_calloc((size_t)n_categories, sizeof *c->category);
    for (int k = 0; k < 2; k++) c->rule[k] = ra_calloc((size_t)n_rules, sizeof *c->rule[k]);
    for (int64_t i = 0; i < n; i++) {
        const ra_triage_row *row = &rows[i];
        c->state[row->state]++;
        add_row(&c->all, row);
        if (row->state == RA_TRIAGE_SKIPPED || row->state == RA_TRIAGE_MALFORMED) continue;
        add_row(row->category >= 0 ? &c->category[row->category] : &c->without_category, row);
        if (row->c_w == 0 && row->rule_w >= 0) c->rule[0][row->rule_w]++;
        if (row->c_l == 0 && row->rule_l >= 0) c->rule[1][row->rule_l]++;
    }
    enum { GROUP = sizeof(ra_triage_group) / sizeof(int64_t) };
    ra_comm_sum_i64(comm, c->state, RA_TRIAGE_STATES);
    ra_comm_sum_i64(comm, &c->all.rows, GROUP);
    ra_comm_sum_i64(comm, &c->without_category.rows, GROUP);
    if (n_categories) ra_comm_sum_i64(comm, &c->category->rows, (int64_t)n_categories * GROUP);
    for (int k = 0; k < 2; k++) ra_comm_sum_i64(comm, c->rule[k], n_rules);
}

void ra_triage_counts_free(ra_triage_counts *c)
{
    ra_free(c->category);
    for (int k = 0; k < 2; k++) ra_free(c->rule[k]);
    *c = (ra_triage_counts){0};
}

/* ---- the table ---- */
static void add_share(ra_buf *out, int64_t part, int64_t whole)
{
    if (whole) {
        ra_buf_addf(out, "  %7.1f %%", 100.0 * (double)part / (double)whole);
    } else {
        ra_buf_adds(out, "          -");
    }
}

/* A name cut or filled to NAME_WIDTH characters; combining and wide ones are not reckoned with. */
static void add_name(ra_buf *out, const char *name)
{
    size_t bytes = 0;
    int width = 0;
    while (name[bytes] && width < NAME_WIDTH) {
        bytes++;
        while ((name[bytes] & 0xc0) == 0x80) bytes++;
        width++;
    }
    ra_buf_addf(out, "  %.*s%*s", (int)bytes, name, NAME_WIDTH - width, "");
}

static void add_line(ra_buf *out, const char *name, const ra_triage_group *g)
{
    add_name(out, name);
    ra_buf_addf(out, " %9lld %9lld %9lld %9lld", (long long)g->rows, (long long)g->action[RA_ACTION_INVERT],
                (long long)g->action[RA_ACTION_PUNISH], (long long)g->action[RA_ACTION_RETAIN]);
    for (int i = 0; i < 2; i++) add_share(out, g->yes[i], g->judged[i]);
    ra_buf_adds(out, "\n");
}

/* Index of the largest value not yet taken; the first of equals. */
static int take_largest(const int64_t *values, int n, bool *taken)
{
    int best = -1;
    for (int i = 0; i < n; i++) {
        if (!taken[i] && values[i] > 0 && (best < 0 || values[i] > values[best])) best = i;
    }
    if (best >= 0) taken[best] = true;
    return best;
}

static void add_categories(const ra_triage_counts *c, const ra_category_list *categories, ra_buf *out)
{
    int n = c->n_categories;
    bool *taken = ra_calloc((size_t)n, sizeof *taken);
    int64_t *rows = ra_calloc((size_t)n, sizeof *rows);
    for (int i = 0; i < n; i++) rows[i] = c->category[i].rows;
    for (int i = 0; i < n && i < SHOWN; i++) {
        int k = take_largest(rows, n, taken);
        if (k < 0) break;
        add_line(out, categories->name[k], &c->category[k]);
    }
    if (n > SHOWN) ra_buf_addf(out, "  and %d more categories\n", n - SHOWN);
    ra_free(taken);
    ra_free(rows);
}

static void add_rules(const ra_triage_counts *c, const ra_oracle *oracle, int which, ra_buf *out)
{
    bool *taken = ra_calloc((size_t)c->n_rules, sizeof *taken);
    ra_buf_addf(out, "  rules that decided over %s:", which ? "y_l" : "y_w");
    for (int i = 0; i < SHOWN; i++) {
        int k = take_largest(c->rule[which], c->n_rules, taken);
        if (k < 0 && i == 0) ra_buf_adds(out, " none");
        if (k < 0) break;
        ra_buf_addf(out, "%s %s %lld", i ? "," : "", ra_oracle_rule_name(oracle, k), (long long)c->rule[which][k]);
    }
    ra_buf_adds(out, "\n");
    ra_free(taken);
}

void ra_triage_table(const ra_triage_counts *c, const ra_category_list *categories, const ra_oracle *oracle, ra_buf *out)
{
    add_name(out, "category");
    ra_buf_addf(out, " %9s %9s %9s %9s  %9s  %9s\n", "rows", "invert", "punish", "retain", "y_w yes", "y_l yes");
    add_line(out, "(all)", &c->all);
    if (c->n_categories) {
        add_categories(c, categories, out);
        if (c->without_category.rows) add_line(out, "(none)", &c->without_category);
    }
    add_rules(c, oracle, 0, out);
    add_rules(c, oracle, 1, out);
    ra_buf_addf(out, "  left out: %lld skipped, %lld malformed, %lld held out, %lld undecided\n",
                (long long)c->state[RA_TRIAGE_SKIPPED], (long long)c->state[RA_TRIAGE_MALFORMED],
                (long long)c->state[RA_TRIAGE_HELD_OUT], (long long)c->state[RA_TRIAGE_UNDECIDED]);
}

/* ---- words ---- */
void ra_triage_advice(const ra_triage_counts *c, ra_buf *out)
{
    int64_t invert = c->all.action[RA_ACTION_INVERT], punish = c->all.action[RA_ACTION_PUNISH],
            retain = c->all.action[RA_ACTION_RETAIN];
    if (!invert && !punish && !retain) {
        ra_buf_adds(out, "No row has an action: there is nothing to train on. See above why rows were left out; data.held_out "
                         "and the policy's columns are "
                         "the usual reasons.\n");
        return;
    }
    if (!invert && !punish) {
        ra_buf_adds(out, "Invert and Punish are empty: every preferred response already follows the new policy, so there is no "
                         "conflict to learn from and "
                         "training would only hold the model where it is. Check that the policy is the new one, that its rules "
                         "are not too mild, and that "
                         "scopes (category, when) match the data.\n");
    } else if (!invert) {
        ra_buf_adds(out, "Invert is empty: no rejected response follows the new policy where the preferred one does not. The "
                         "model is only told what to stop "
                         "(Punish), never what to do instead. Give it corrections (correct.source, doc/corrections.md), or check "
                         "that the rules are not so "
                         "strict that hardly any response "
                         "passes them.\n");
    } else if (!punish) {
        ra_buf_adds(out, "Punish is empty: wherever the preferred response breaks the new policy, the rejected one follows it. "
                         "That is in order: the method is "
                         "then inversion with a KL anchor, and the gold batch comes from Retain and Invert alone.\n");
    }
    if (!retain) {
        ra_buf_adds(out, "Retain is empty: no preferred response follows the new policy, so the KL term has nothing to hold the "
                         "model by and abilities may "
                         "drift. Add rows that the new policy does not touch, or check that no rule applies to everything.\n");
    }
    if (c->state[RA_TRIAGE_UNDECIDED]) {
        ra_buf_addf(out, "%lld rows could not be decided by the policy and are left out.\n",
                    (long long)c->state[RA_TRIAGE_UNDECIDED]);
    }
}
