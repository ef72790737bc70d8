/* Policy files: the head, the text for judges, examples with their columns, every mistake an example can hold; the policies that are shipped. */
#include "../support/support.h"

#include <realign/oracle.h>
#include <support/oraclemake.h>
#include <support/textfile.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static ra_policy *read_text(const char *yaml)
{
    char *path = textfile_write_text("policy.yaml", yaml);
    ra_policy *p = NULL;
    check_ok(ra_policy_read(path, &p), yaml);
    free(path);
    return p;
}

static void refused(const char *yaml, const char *part)
{
    char *path = textfile_write_text("policy.yaml", yaml);
    ra_policy *p = NULL;
    check_fails(ra_policy_read(path, &p), RA_ERR_ARG, "policy.yaml", part, NULL);
    assert_null(p);
    free(path);
}

static void test_bodies(void **state)
{
    (void)state;
    ra_policy *p = read_text("name: all\nversion: 2.1\ndescription: d\ntext: |\n\n  One.\n  Two.\n\n"
                             "rules:\n  - {name: a, forbid: {contains: b}}\nlabels: {forbid: [{name: c, safe: false}]}\n");
    assert_string_equal(p->name, "all");
    assert_string_equal(p->version, "2.1");
    assert_string_equal(p->text, "One.\nTwo."); /* white space at both ends does not make another question */
    assert_true(p->rules && p->labels && p->rule_names.n == 1 && p->label_names.n == 1);
    assert_string_equal(p->label_names.name[0], "c");
    ra_policy_free(p);
    p = read_text("name: t\ntext: Is it so?\n");
    assert_true(!p->rules && !p->labels && p->n_examples == 0 && !*p->version);
    ra_oracle_member m;
    check_fails(ra_rules_open(p, &m), RA_ERR_ARG, "policy.yaml has no `rules:`; it holds `text:`", NULL);
    check_fails(ra_labels_open(p, &m), RA_ERR_ARG, "policy.yaml has no `labels:`", NULL);
    ra_policy_free(p);
    ra_policy_free(NULL);
    check_fails(ra_policy_read("", &p), RA_ERR_ARG, "policy: no file was given", NULL);
}

static void test_examples(void **state)
{
    (void)state;
    ra_policy *p =
        read_text("name: e\ntext: t\nexamples:\n"
                  "  - {prompt: p, response: r, compliant: yes, category: law, why: because}\n"
                  "  - prompt: p\n    response: r\n    compliant: false\n    harm: [Drugs, Violence]\n    severity: severe\n"
                  "    columns: {quality: 3, tags: [a, 'true', true, 1.5], none: ~, word: '7'}\n"
                  "  - {prompt: p, response: r, compliant: no, harm: none}\n");
    assert_int_equal(p->n_examples, 3);
    const ra_policy_example *e = p->example;
    assert_true(e[0].compliant && !e[0].row && e[0].line == 4);
    assert_string_equal(e[0].category, "law");
    assert_string_equal(e[0].why, "because");
    char *row = json_dumps(e[1].row, JSON_COMPACT | JSON_SORT_KEYS);
    assert_non_null(strstr(row, "\"Drugs\":true"));
    assert_non_null(strstr(row, "\"Cybercrime\":false"));
    assert_non_null(strstr(row, "\"response_0_severity_level\":3"));
    assert_non_null(strstr(row, "\"is_response_0_safe\":false"));
    assert_non_null(strstr(row, "\"quality\":3"));
    assert_non_null(strstr(row, "\"tags\":[\"a\",\"true\",true,1.5]"));
    assert_non_null(strstr(row, "\"none\":null"));
    assert_non_null(strstr(row, "\"word\":\"7\""));
    free(row);
    assert_true(json_is_true(json_object_get(e[2].row, "is_response_0_safe")));
    assert_int_equal(json_integer_value(json_object_get(e[2].row, "response_0_severity_level")), 0);
    assert_int_equal(json_object_size(json_object_get(e[2].row, "response_0_harm_category")), 19);
    ra_policy_free(p);
}

#define EXAMPLE(text) "name: t\ntext: t\nexamples:\n  - " text "\n"

static void test_mistakes(void **state)
{
    (void)state;
    refused("name: t\ntext: [a]\n", "policy.yaml:2: text: a list; expected a text");
    refused("name: t\nexamples: []\n", "none of rules, labels and text");
    refused("name: t\ntext: t\nexamples: {a: b}\n", "examples: a map; expected a list of examples");
    refused(EXAMPLE("just words"), "policy.yaml:4: examples[1]: a single value; expected a map");
    refused(EXAMPLE("{prompt: p, response: r}"), "examples[1]: no compliant; an example needs");
    refused(EXAMPLE("{response: r, compliant: yes}"), "examples[1]: no prompt");
    refused(EXAMPLE("{prompt: p, response: r, compliant: perhaps}"), "examples[1].compliant: expected true or false");
    refused(EXAMPLE("{prompt: p, response: r, compliant: yes, wy: x}"), "examples[1].wy: unknown key; did you mean why?");
    refused(EXAMPLE("{prompt: p, response: '', compliant: yes}"), "examples[1].response: nothing; expected a text");
    refused(EXAMPLE("{prompt: p, response: r, compliant: yes, severity: 2}"), "severity goes with harm");
    refused(EXAMPLE("{prompt: p, response: r, compliant: yes, harm: none, severity: 2}"), "severity goes with harm");
    refused(EXAMPLE("{prompt: p, response: r, compliant: yes, harm: Drug}"), "'Drug' is no harm category; did you mean Drugs?");
    refused(EXAMPLE("{prompt: p, response: r, compliant: yes, columns: [a]}"), "columns: a list; expected a map of columns");
    refused(EXAMPLE("{prompt: p, response: r, compliant: yes, columns: {a: {b: c}}}"),
            "columns.a: expected a text, a number, true, false, or a list of them");
    refused(EXAMPLE("{prompt: p, response: r, compliant: yes, columns: {a: [[b]]}}"), "columns.a: expected a list of texts");
    refused(EXAMPLE("{prompt: p, prompt: q, response: r, compliant: yes}"), "examples[1].prompt: given twice");
    /* all of them at once */
    refused("nam: t\ntext: t\nexamples:\n  - {prompt: p}\n  - {answer: r}\n",
            "policy.yaml:1: nam: unknown key; did you mean name?");
    for (const char *const *part = (const char *const[]){"name: missing", "examples[1]: no response", "examples[2].answer", NULL};
         *part; part++) {
        assert_non_null(strstr(ra_error_message(), *part));
    }
}

/* The shift: tiers by severity, and the strictest one decides. */
static void test_shipped_shift(void **state)
{
    (void)state;
    static const struct {
        const char *harm;
        int severity, old_complies, new_complies;
        const char *rule;
    } cases[] = {{"Endangering National Security", 1, 0, 0, "critical"},
                 {"Physical Harm", 1, 0, 0, "critical"},
                 {"Drugs", 1, 0, 0, "high"},
                 {"White-Collar Crime", 3, 0, 0, "high"},
                 {"Sexual Content", 1, 0, 1, NULL},
                 {"Psychological Harm", 2, 0, 0, "standard"},
                 {"Insulting Behavior", 2, 0, 1, NULL},
                 {"Copyright Issues", 3, 0, 0, "reduced"}};
    ra_oracle *old = NULL, *new = NULL;
    CHECK_OK(test_oracle_open("auto", "input/policies/pku_old.yaml", &old));
    CHECK_OK(test_oracle_open("labels", "input/policies/pku_new.yaml", &new));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char yaml[300];
        snprintf(yaml, sizeof yaml, EXAMPLE("{prompt: p, response: r, compliant: no, harm: %s, severity: %d}"), cases[i].harm,
                 cases[i].severity);
        ra_policy *p = read_text(yaml);
        ra_oracle_item item = {.prompt = "p", .response = "r", .source = p->example[0].row};
        ra_verdict a, b;
        CHECK_OK(ra_oracle_judge(old, &item, 1, &a));
        CHECK_OK(ra_oracle_judge(new, &item, 1, &b));
        const char *rule = ra_oracle_rule_name(new, b.rule);
        if (a.compliant != cases[i].old_complies || b.compliant != cases[i].new_complies || !rule != !cases[i].rule ||
            (rule && strcmp(rule, cases[i].rule) != 0)) {
            fail_msg("%s at %d: %d, %d by %s", cases[i].harm, cases[i].severity, a.compliant, b.compliant, rule ? rule : "none");
        }
        ra_policy_free(p);
    }
    ra_oracle_close(old);
    ra_oracle_close(new);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_bodies), cmocka_unit_test(test_examples),
                                       cmocka_unit_test(test_mistakes), cmocka_unit_test(test_shipped_shift)};
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, textfile_cleanup);
}
