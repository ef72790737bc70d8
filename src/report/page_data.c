/* Triage and impact weights. */
#include "page.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_LINES = 40 /* categories or rules in a table; the largest come first */ };

static const char *const set_name[RA_SETS] = {"Invert", "Punish", "Retain"};
static const ra_colour set_colour[RA_SETS] = {RA_COLOUR_BLUE, RA_COLOUR_VERMILION, RA_COLOUR_GREEN};

/* ---- triage ---- */

/* True where the store has no tokens for a row that triage uses. */
static bool without_tokens(const ra_run_files *r, int64_t i)
{
    return !r->store.why && r->store.n == r->triage.n && r->store.state[i] != 0;
}

ra_row_counts ra_count_rows(const ra_run_files *r)
{
    ra_row_counts c = {.rows = r->triage.n};
    for (int64_t i = 0; i < r->triage.n; i++) {
        int state = r->triage.status[i], action = r->triage.action[i];
        if (state == 0 && without_tokens(r, i)) {
            c.unusable++;
        } else {
            c.state[state]++;
            if (action >= 0) c.set[action]++;
        }
    }
    return c;
}

static void add_flow(ra_page *p, const ra_row_counts *c)
{
    enum { ROWS, USED, HELD_OUT, UNDECIDED, UNUSABLE, SKIPPED, MALFORMED, FIRST_SET, NODES = FIRST_SET + RA_SETS };
    ra_flow_node node[NODES] = {[ROWS] = {0, "Rows", c->rows, RA_COLOUR_INK},
                                [USED] = {1, "Usable", c->state[0], RA_COLOUR_SKY},
                                [HELD_OUT] = {1, "Held out for evaluation", c->state[3], RA_COLOUR_PURPLE},
                                [UNDECIDED] = {1, "Undecided by the policy", c->state[4], RA_COLOUR_GREY},
                                [UNUSABLE] = {1, "Empty or too long", c->unusable, RA_COLOUR_GREY},
                                [SKIPPED] = {1, "Skipped", c->state[1], RA_COLOUR_GREY},
                                [MALFORMED] = {1, "Malformed", c->state[2], RA_COLOUR_GREY}};
    ra_flow_link link[NODES] = {{ROWS, USED, c->state[0]},     {ROWS, HELD_OUT, c->state[3]}, {ROWS, UNDECIDED, c->state[4]},
                                {ROWS, UNUSABLE, c->unusable}, {ROWS, SKIPPED, c->state[1]},  {ROWS, MALFORMED, c->state[2]}};
    for (int k = 0; k < RA_SETS; k++) {
        node[FIRST_SET + k] = (ra_flow_node){2, set_name[k], c->set[k], set_colour[k]};
        link[6 + k] = (ra_flow_link){USED, FIRST_SET + k, c->set[k]};
    }
    ra_plot plot = {.title = "Preference rows under the new policy",
                    .description =
                        "Flow of preference rows to the sets Invert, Punish and Retain; the tables below hold the numbers.",
                    .width = 1060.0,
                    .height = 220.0};
    for (int i = HELD_OUT; i <= MALFORMED; i++) plot.height += node[i].value > 0 ? 32.0 : 0.0;
    ra_page_figure(p, "wide");
    ra_plot_flow(p->out, &plot, node, NODES, link, 6 + RA_SETS);
    ra_page_caption(p);
    ra_buf_adds(p->out,
                "What became of the rows. Invert: only the response not preferred complies, the preference is reversed. "
                "Punish: neither complies, both are made less likely. Retain: the preferred response complies and anchors "
                "the model. Shares are of all rows.");
    ra_page_figure_end(p);
}

typedef struct {
    const char *name;
    int64_t rows, set[RA_SETS], judged[2], yes[2];
} group;

static int by_rows(const void *a, const void *b)
{
    const group *x = a, *y = b;
    return x->rows != y->rows ? (x->rows < y->rows ? 1 : -1) : strcmp(x->name, y->name);
}

static void count_row(group *g, const ra_part_triage *t, int64_t i)
{
    const int8_t verdict[2] = {t->c_w[i], t->c_l[i]};
    g->rows++;
    if (t->action[i] >= 0) g->set[t->action[i]]++;
    for (int k = 0; k < 2; k++) {
        g->judged[k] += verdict[k] >= 0;
        g->yes[k] += verdict[k] == 1;
    }
}

static void add_group(ra_page *p, const group *g, bool sum)
{
    ra_buf_adds(p->out, sum ? "<tr class=\"sum\">" : "<tr>");
    ra_page_cell_text(p, g->name);
    ra_page_cell_count(p, g->rows);
    for (int k = 0; k < RA_SETS; k++) ra_page_cell_count(p, g->set[k]);
    for (int k = 0; k < 2; k++) ra_page_cell_percent(p, g->judged[k] ? (double)g->yes[k] / (double)g->judged[k] : NAN);
    ra_buf_adds(p->out, "</tr>\n");
}

static void add_more(ra_page *p, int64_t more, int columns)
{
    if (more > 0)
        ra_buf_addf(p->out, "<tr><td colspan=\"%d\">and %lld more, each with fewer</td></tr>\n", columns, (long long)more);
}

static void add_categories(ra_page *p)
{
    const ra_part_triage *t = &p->run->triage;
    int64_t n = t->n_categories + 1;
    group all = {.name = "All rows that could be read"}, *list = ra_calloc((size_t)n, sizeof *list);
    for (int64_t i = 0; i < t->n_categories; i++) list[i].name = t->categories[i];
    list[n - 1].name = "(no category)";
    for (int64_t i = 0; i < t->n; i++) {
        if (t->status[i] == 1 || t->status[i] == 2) continue;
        count_row(&all, t, i);
        count_row(&list[t->category[i] < 0 ? n - 1 : t->category[i]], t, i);
    }
    qsort(list, (size_t)n, sizeof *list, by_rows);
    ra_page_table(p,
                  "Rows, sets and share of compliant responses per category, held-out and too long rows among them. "
                  "y<sub>w</sub>: preferred under the old policy.",
                  "Category|>Rows|>Invert|>Punish|>Retain|>y<sub>w</sub> complies|>y<sub>l</sub> complies");
    add_group(p, &all, true);
    int64_t shown = 0;
    for (; shown < n && shown < MOST_LINES && list[shown].rows > 0 && t->n_categories > 0; shown++)
        add_group(p, &list[shown], false);
    add_more(p, t->n_categories > 0 ? t->n_categories - shown : 0, 7);
    ra_page_table_end(p);
    ra_free(list);
}

static void add_rules(ra_page *p)
{
    const ra_part_triage *t = &p->run->triage;
    if (t->n_rules == 0) return;
    group *list = ra_calloc((size_t)t->n_rules, sizeof *list); /* yes[k]: decisions against y_w, y_l */
    for (int64_t i = 0; i < t->n_rules; i++) list[i].name = t->rules[i];
    for (int64_t i = 0; i < t->n; i++) {
        const int rule[2] = {t->c_w[i] == 0 ? t->rule_w[i] : -1, t->c_l[i] == 0 ? t->rule_l[i] : -1};
        for (int k = 0; k < 2; k++) {
            if (rule[k] < 0) continue;
            list[rule[k]].yes[k]++;
            list[rule[k]].rows++;
        }
    }
    qsort(list, (size_t)t->n_rules, sizeof *list, by_rows);
    ra_page_table(p, "Responses that each rule decided against; the first rule that is broken decides.",
                  "Rule|>against y<sub>w</sub>|>against y<sub>l</sub>");
    int64_t shown = 0;
    for (; shown < t->n_rules && shown < MOST_LINES; shown++) {
        ra_buf_adds(p->out, "<tr>");
        ra_page_cell_text(p, list[shown].name);
        for (int k = 0; k < 2; k++) ra_page_cell_count(p, list[shown].yes[k]);
        ra_buf_adds(p->out, "</tr>\n");
    }
    add_more(p, t->n_rules - shown, 3);
    ra_page_table_end(p);
    ra_free(list);
}

/* Of a combination: every pair of its oracles. */
static void add_agreement(ra_page *p)
{
    const ra_part_triage *t = &p->run->triage;
    int64_t n = t->n_oracles;
    if (n < 2) return;
    ra_page_table(p, "How far the oracles of the combination agree on responses that both judged.",
                  "Oracles|>Both judged|>Equal|>Cohen's kappa");
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = i + 1; j < n; j++) {
            ra_buf names = {0};
            ra_buf_addf(&names, "%s, %s", t->oracles[i], t->oracles[j]);
            ra_buf_adds(p->out, "<tr>");
            ra_page_cell_text(p, names.data);
            ra_page_cell_count(p, t->both_judged[i * n + j]);
            ra_page_cell_percent(p, t->agree[i * n + j]);
            ra_page_cell_real(p, t->kappa[i * n + j], 3);
            ra_buf_adds(p->out, "</tr>\n");
            ra_buf_free(&names);
        }
    }
    ra_page_table_end(p);
}

/* What the tables cannot say: the agreement of all, and noise. */
static void add_oracle_facts(ra_page *p)
{
    const ra_part_triage *t = &p->run->triage;
    if (t->n_oracles > 1) {
        ra_buf_adds(p->out, "<p>Krippendorff's alpha of the combined oracles: ");
        ra_html_real(p->out, t->alpha, 3);
        ra_buf_adds(p->out, ".</p>\n");
    }
    if (t->noise > 0.0) {
        ra_buf_adds(p->out, "<p>Noise was added on purpose: each verdict was turned round with probability ");
        ra_html_real(p->out, t->noise, 3);
        ra_buf_adds(p->out, ", which befell ");
        ra_html_count(p->out, t->turned);
        ra_buf_adds(p->out, " of them. The evaluation below judges without noise.</p>\n");
    }
}

/* Nothing where the run has no corrections: few do. */
static void add_corrections(ra_page *p)
{
    static const char *const reasons[RA_CORRECTION_REASONS] = {"empty",     "too long",        "not compliant",
                                                               "undecided", "endpoint failed", "none in the data"};
    const ra_part_corrections *c = &p->run->corrections;
    const ra_part_weights *w = &p->run->weights;
    if (c->why || c->pairs == 0) return;
    ra_buf caption = {0};
    ra_buf_adds(&caption, "Corrections of Punish pairs, from the ");
    ra_html_text(&caption, c->corrector ? c->corrector : "?");
    ra_buf_adds(&caption, ", judged by the oracle of kind ");
    ra_html_text(&caption, c->oracle ? c->oracle : "?");
    ra_buf_addf(&caption, ". %lld candidates; pairs without a correction that complies fall back to eq. 2.",
                (long long)c->candidates);
    if (!w->why && w->corrected >= 0 && w->corrected != c->corrected)
        ra_buf_addf(&caption, " The weights of this run were made with %lld of them.", (long long)w->corrected);
    ra_page_table(p, caption.data, "Punish pairs|>Pairs|>Share");
    for (int i = -1; i < RA_CORRECTION_REASONS; i++) {
        int64_t n = i < 0 ? c->corrected : c->reason[i];
        if (i >= 0 && n == 0) continue;
        char *name = i < 0 ? ra_strdup("corrected (eq. 2c)") : ra_format("fell back: %s", reasons[i]);
        ra_buf_adds(p->out, i < 0 ? "<tr class=\"sum\">" : "<tr>");
        ra_page_cell_text(p, name);
        ra_page_cell_count(p, n);
        ra_page_cell_percent(p, (double)n / (double)c->pairs);
        ra_buf_adds(p->out, "</tr>\n");
        free(name);
    }
    ra_page_table_end(p);
    ra_buf_free(&caption);
}

void ra_page_triage(ra_page *p)
{
    const ra_part_triage *t = &p->run->triage;
    ra_page_section(p, "triage", "Triage of the preference data");
    if (t->why) {
        ra_page_absent(p, t->why);
    } else {
        ra_row_counts c = ra_count_rows(p->run);
        ra_buf_adds(p->out, "<p>Policy <b>");
        ra_html_text(p->out, t->policy ? t->policy : "?");
        ra_buf_adds(p->out, "</b>, judged by the oracle of kind ");
        ra_html_text(p->out, t->oracle ? t->oracle : "?");
        ra_buf_adds(p->out, ", sorted ");
        ra_html_count(p->out, c.rows);
        ra_buf_adds(p->out, " rows.</p>\n");
        add_oracle_facts(p);
        add_flow(p, &c);
        ra_buf_adds(p->out, "<div class=\"tables\">\n");
        add_categories(p);
        add_rules(p);
        add_corrections(p);
        add_agreement(p);
        ra_buf_adds(p->out, "</div>\n");
    }
    ra_page_section_end(p);
}

/* ---- weights ---- */

/* The conflicts of one set: weights and lengths (y_w + y_l). */
typedef struct {
    double *weight, *length;
    int64_t n;
} conflicts;

static conflicts take_conflicts(const ra_run_files *r, int set)
{
    const ra_part_weights *w = &r->weights;
    conflicts c = {ra_alloc((size_t)w->n, sizeof(double)), ra_alloc((size_t)w->n, sizeof(double)), 0};
    bool known = !r->triage.why && r->triage.n == w->n;
    for (int64_t i = 0; i < w->n; i++) {
        bool conflict = known ? r->triage.action[i] == set : set == RA_INVERT && isfinite(w->raw[i]);
        if (!conflict) continue;
        c.weight[c.n] = w->weight[i];
        c.length[c.n++] = (double)w->length[3 * i] + (double)w->length[3 * i + 1];
    }
    return c;
}

static void add_weight_facts(ra_page *p)
{
    const ra_part_weights *w = &p->run->weights;
    ra_buf *out = p->out;
    ra_buf_adds(out, "<p>");
    if (w->gold >= 0) {
        ra_buf_adds(out, "The gold batch of ");
        ra_html_count(out, w->gold);
        ra_buf_adds(out, " pairs has a gradient of norm ");
        ra_html_real(out, w->target_norm, 4);
        ra_buf_adds(out, "; its contraction with itself differs from the squared norm by ");
        ra_html_real(out, w->self_check, 2);
        ra_buf_adds(out, ". ");
    }
    ra_html_count(out, w->positive);
    ra_buf_adds(out, " of ");
    ra_html_count(out, w->conflicts);
    ra_buf_adds(out, " conflicts have a positive weight; the others pull away from the new policy and count for nothing. "
                     "Normalisation ");
    ra_html_text(out, w->normalise ? w->normalise : "?");
    ra_buf_adds(out, ": a conflict has weight ");
    ra_html_real(out, w->average, 3);
    ra_buf_adds(out, " on average, where the KL term of each Retain sample has alpha_kl.</p>\n");
}

void ra_page_weights(ra_page *p)
{
    const ra_run_files *r = p->run;
    ra_page_section(p, "weights", "Impact weights");
    if (r->weights.why) {
        ra_page_absent(p, r->weights.why);
        ra_page_section_end(p);
        return;
    }
    bool known = !r->triage.why && r->triage.n == r->weights.n;
    int sets = known ? 2 : 1;
    conflicts c[2];
    ra_series histogram[2], points[2];
    for (int k = 0; k < sets; k++) {
        c[k] = take_conflicts(r, k);
        const char *name = known ? set_name[k] : "Conflicts";
        histogram[k] = (ra_series){.name = name, .colour = set_colour[k], .n = c[k].n, .x = c[k].weight};
        points[k] = (ra_series){.name = name, .colour = set_colour[k], .n = c[k].n, .x = c[k].length, .y = c[k].weight};
    }
    add_weight_facts(p);
    ra_page_figure(p, "pair");
    ra_plot_histogram(p->out,
                      &(ra_plot){.title = "Distribution of weights",
                                 .description = "Stacked histogram of the impact weights of conflicts",
                                 .x_label = "impact weight w",
                                 .y_label = "conflicts"},
                      histogram, sets);
    ra_plot_scatter(p->out,
                    &(ra_plot){.title = "Weight against response length",
                               .description = "Scatter plot of impact weight against the tokens of both responses",
                               .x_label = "tokens of y_w and y_l together",
                               .y_label = "impact weight w",
                               .y_zero = true},
                    points, sets);
    ra_page_caption(p);
    ra_buf_adds(p->out, "Impact weights after clipping at 0 and normalisation. Their correlation with length is ");
    ra_html_real(p->out, r->weights.length_correlation, 2);
    ra_buf_adds(p->out, fabs(r->weights.length_correlation) > 0.5 ? "; summed log-probabilities favour long responses." : ".");
    ra_page_figure_end(p);
    for (int k = 0; k < sets; k++) {
        ra_free(c[k].weight);
        ra_free(c[k].length);
    }
    ra_page_section_end(p);
}
