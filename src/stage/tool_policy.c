/* `realign policy check`: is a policy file sound, and does the oracle answer its examples as their author does? */
#include "oracles.h"

#include <realign/mem.h>
#include <realign/tools.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const ra_policy *policy;
    ra_oracle *oracle;
    ra_verdict *verdict; /* (examples) */
    bool *judged;        /* (examples) the others lack the columns that the oracle looks at */
    bool show_text;
    int agree, disagree, undecided, passed_over;
} check;

static const char *word_of(int compliant)
{
    return compliant < 0 ? "cannot tell" : compliant ? "complies" : "breaks it";
}

static int words_in(const char *text)
{
    int words = 0;
    for (const char *at = text; *(at += strspn(at, " \t\r\n")); at += strcspn(at, " \t\r\n")) words++;
    return words;
}

static void describe(const ra_policy *p)
{
    printf("policy %s%s%s:", p->name, *p->version ? ", version " : "", p->version);
    const char *comma = "";
    if (p->rules) printf(" %d rules", p->rule_names.n), comma = ",";
    if (p->labels) printf("%s %d rules over labels", comma, p->label_names.n), comma = ",";
    if (p->text) printf("%s a text of %d words", comma, words_in(p->text)), comma = ",";
    printf("%s %d examples\n", comma, p->n_examples);
}

/* All examples in one call, as rows would be. */
static ra_err judge(check *c)
{
    int n = 0;
    ra_oracle_item *items = ra_calloc((size_t)c->policy->n_examples, sizeof *items);
    ra_verdict *verdicts = ra_calloc((size_t)c->policy->n_examples, sizeof *verdicts);
    for (int i = 0; i < c->policy->n_examples; i++) {
        const ra_policy_example *e = &c->policy->example[i];
        c->judged[i] = e->row || ra_oracle_judges_text(c->oracle);
        if (!c->judged[i]) continue;
        items[n++] = (ra_oracle_item){.prompt = e->prompt,
                                      .response = e->response,
                                      .category = e->category,
                                      .source = e->row,
                                      .response_index = e->row ? 0 : -1};
    }
    ra_err err = n ? ra_oracle_judge(c->oracle, items, n, verdicts) : RA_OK;
    n = 0;
    for (int i = 0; i < c->policy->n_examples && err == RA_OK; i++) {
        if (c->judged[i]) c->verdict[i] = verdicts[n++];
    }
    ra_free(verdicts);
    ra_free(items);
    return err;
}

static void print_text(const char *what, const char *text)
{
    printf("        %s: ", what);
    for (const char *at = text; *at; at++) {
        putchar(*at);
        if (*at == '\n') printf("          ");
    }
    putchar('\n');
}

static void print_example(check *c, int i)
{
    const ra_policy_example *e = &c->policy->example[i];
    const ra_verdict *v = &c->verdict[i];
    printf("  %4d %5zu  %-24.24s %-11s ", i + 1, e->line, e->category ? e->category : "-", word_of(e->compliant));
    if (!c->judged[i]) {
        c->passed_over++;
        printf("not judged: it has neither `harm:` nor `columns:`\n");
        return;
    }
    bool agrees = v->compliant == e->compliant;
    c->agree += agrees;
    c->undecided += v->compliant < 0;
    c->disagree += !agrees && v->compliant >= 0;
    printf("%-11s", word_of(v->compliant));
    if (ra_oracle_has_probability(c->oracle)) printf("  %.4f", v->probability);
    const char *rule = ra_oracle_rule_name(c->oracle, v->rule);
    printf("  %-9s%s\n", agrees ? "" : "DISAGREES", rule ? rule : "");
    if (!agrees && e->why) print_text("why", e->why);
    if (c->show_text) {
        print_text("prompt", e->prompt);
        print_text("response", e->response);
    }
}

static ra_err report(check *c)
{
    int n = c->policy->n_examples;
    if (n == 0) {
        printf("The file is sound. It has no examples to try the oracle on (doc/policies.md).\n");
        return RA_OK;
    }
    printf("  %4s %5s  %-24s %-11s %-11s%s  %-9s%s\n", "", "line", "category", "expected", "verdict",
           ra_oracle_has_probability(c->oracle) ? "  p     " : "", "", "rule");
    for (int i = 0; i < n; i++) print_example(c, i);
    printf("oracle %s: %d agree, %d disagree, %d undecided, %d not judged\n", ra_oracle_kind(c->oracle), c->agree, c->disagree,
           c->undecided, c->passed_over);
    if (c->passed_over == n)
        return ra_fail(RA_ERR_DATA, "none of the %d examples could be judged by %s", n, ra_oracle_kind(c->oracle));
    if (c->disagree + c->undecided == 0) return RA_OK;
    const char *why = ra_oracle_problem(c->oracle);
    return ra_fail(RA_ERR_DATA, "%d of %d examples come out otherwise%s%s%s", c->disagree + c->undecided, n - c->passed_over,
                   *why ? " (" : "", why, *why ? ")" : "");
}

static ra_err check_policy(const ra_settings *s, bool show_text)
{
    const ra_grid alone = ra_grid_alone();
    ra_policy *policy = NULL;
    RA_TRY(ra_policy_read(ra_set_text(s, "policy"), &policy));
    describe(policy);
    ra_policy_free(policy);
    fflush(stdout);
    check c = {.show_text = show_text};
    RA_TRY(ra_oracle_open_settings(s, &alone, NULL, &c.oracle));
    c.policy = ra_oracle_policy(c.oracle);
    c.verdict = ra_calloc((size_t)c.policy->n_examples, sizeof *c.verdict);
    c.judged = ra_calloc((size_t)c.policy->n_examples, sizeof *c.judged);
    ra_err err = judge(&c);
    if (err == RA_OK) err = report(&c);
    ra_free(c.verdict);
    ra_free(c.judged);
    ra_err closed = ra_oracle_close(c.oracle);
    return err == RA_OK ? closed : err;
}

ra_err ra_tool_policy(int argc, char **argv)
{
    static const char usage[] = "usage: realign policy check [--show-text] POLICY [key=value ...]";
    if (argc < 1 || strcmp(argv[0], "check") != 0) return ra_fail(RA_ERR_ARG, "%s", usage);
    int at = 1;
    bool show = at < argc && strcmp(argv[at], "--show-text") == 0;
    at += show;
    if (at >= argc || argv[at][0] == '-' || strchr(argv[at], '=')) return ra_fail(RA_ERR_ARG, "%s", usage);
    ra_settings *s = ra_settings_new();
    ra_err err = ra_settings_read_words(s, argc - at - 1, argv + at + 1);
    if (err == RA_OK) err = ra_set_put(s, "policy", argv[at]);
    /* a check leaves nothing behind, unless it was told where to keep what it heard */
    if (err == RA_OK && !ra_set_given(s, "oracle.cache") && !ra_set_given(s, "run.dir")) err = ra_set_put(s, "oracle.cache", "");
    if (err == RA_OK) err = check_policy(s, show);
    ra_settings_free(s);
    return err;
}
