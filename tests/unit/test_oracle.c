/* Oracles: every condition, the counts, categories and scopes, the deciding rule, labels, every mistake a policy file can hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../src/oracle/text.h"
#include <realign/oracle.h>
#include <support/oraclemake.h>
#include <support/textfile.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void assert_in(const char *text, const char *part)
{
    if (!strstr(text, part)) fail_msg("'%s' is not in: %s", part, text);
}

static ra_oracle *open_policy(const char *kind, const char *yaml)
{
    char *path = textfile_write_text("policy.yaml", yaml);
    ra_oracle *oracle = NULL;
    if (test_oracle_open(kind, path, &oracle) != RA_OK) fail_msg("%s", ra_error_message());
    free(path);
    return oracle;
}

static void refused(const char *yaml, const char *part)
{
    char *path = textfile_write_text("policy.yaml", yaml);
    ra_oracle *oracle = NULL;
    ra_err err = test_oracle_open("auto", path, &oracle);
    assert_null(oracle);
    if (err == RA_OK) fail_msg("accepted: %s", yaml);
    assert_in(ra_error_message(), "policy.yaml");
    assert_in(ra_error_message(), part);
    free(path);
}

static ra_verdict judge(ra_oracle *oracle, const char *prompt, const char *response, const char *category)
{
    ra_oracle_item item = {.prompt = prompt, .response = response, .category = category, .response_index = -1};
    ra_verdict verdict;
    assert_int_equal(ra_oracle_judge(oracle, &item, 1, &verdict), RA_OK);
    return verdict;
}

/* Does `condition` hold for this response (and prompt)? */
static void holds(const char *condition, const char *prompt, const char *response, bool expected)
{
    char yaml[2048];
    snprintf(yaml, sizeof yaml, "name: t\nrules:\n  - name: r\n    require: %s\n", condition);
    ra_oracle *oracle = open_policy("auto", yaml);
    ra_verdict verdict = judge(oracle, prompt, response, NULL);
    if (verdict.compliant != expected) fail_msg("%s over '%s' gave %d", condition, response, verdict.compliant);
    assert_int_equal(verdict.rule, expected ? -1 : 0);
    assert_true(verdict.probability == (expected ? 1.0f : 0.0f));
    ra_oracle_close(oracle);
}

static void test_texts(void **state)
{
    (void)state;
    holds("{contains: Hello}", "", "say hello there", true);
    holds("{contains: Hello, ignore_case: false}", "", "say hello there", false);
    holds("{ignore_case: false, contains: hello}", "", "say hello there", true);
    holds("{contains: [no, \"one of\"]}", "", "One of many", true);
    holds("{contains: \"I'm\"}", "", "and I\xe2\x80\x99m here", true); /* a curly apostrophe */
    holds("{contains: \"\xe2\x80\x9cq\xe2\x80\x9d\"}", "", "a \"q\" b", true);
    holds("{contains: STRASSE}", "",
          "die stra\xc3\x9f"
          "e",
          true);
    holds("{contains: \"\xc3\x89T\xc3\x89\"}", "", "l'e\xcc\x81te\xcc\x81", true); /* composed against decomposed */
    holds("{absent: [bad, worse]}", "", "fine", true);
    holds("{absent: [bad, worse]}", "", "it got WORSE", false);
    holds("{starts_with: sure}", "", "  \n Sure, thing", true);
    holds("{starts_with: [no, yes]}", "", "Yes", true);
    holds("{starts_with: longer than it}", "", "long", false);
    holds("{ends_with: \"?\"}", "", "what? \n\n", true);
    holds("{ends_with: \"?\"}", "", "what?!", false);
    holds("{contains: x}", "", "", false);
    holds("{contains: \"\xef\xbf\xbd\"}", "", "bad \xff byte", true);
}

static void test_regex(void **state)
{
    (void)state;
    holds("{regex: '\\bmaybe\\b'}", "", "Maybe so", true);
    holds("{regex: '\\bmaybe\\b', ignore_case: false}", "", "Maybe so", false);
    holds("{regex: ['^x', 'y$']}", "", "only y", true);
    holds("{regex: '^\\p{Lu}\\w+'}", "", "\xc3\x89t\xc3\xa9", true);
    holds("{regex: '^.$'}", "", "\xe2\x82\xac", true); /* one character, three bytes */
    holds("{regex: '(?m)^b'}", "", "a\nb", true);
    holds("{regex: 'a'}", "",
          "\xff\xfe"
          "a",
          true);
}

static void test_trees(void **state)
{
    (void)state;
    holds("{all: [{contains: a}, {contains: b}]}", "", "a b", true);
    holds("{all: [{contains: a}, {contains: b}]}", "", "a", false);
    holds("{any: [{contains: a}, {contains: b}]}", "", "b", true);
    holds("{any: [{contains: a}, {contains: b}]}", "", "c", false);
    holds("{not: {contains: a}}", "", "b", true);
    holds("{not: {contains: a, words: 1}}", "", "a b", true); /* not (a and one word) */
    holds("{contains: a, words: {max: 2}}", "", "a b c", false);
    holds("{prompt: {contains: q}}", "the q", "none", true);
    holds("{prompt: {contains: q, response: {contains: z}}}", "the q", "z", true);
    holds("{any: [{prompt: {contains: nope}}, {not: {response: {words: {min: 5}}}}]}", "the q", "z", true);
}

static int64_t count(ra_count_kind kind, const char *text)
{
    ra_subject s = {0};
    ra_subject_set(&s, text);
    int64_t n = ra_subject_count(&s, kind);
    ra_subject_free(&s);
    return n;
}

static void test_counts(void **state)
{
    (void)state;
    static const struct {
        ra_count_kind kind;
        const char *text;
        int64_t n;
    } cases[] = {
        {RA_COUNT_WORDS, "", 0},
        {RA_COUNT_WORDS, "one", 1},
        {RA_COUNT_WORDS, "Don't stop the well-known 3.5 or 1,000!", 7},
        {RA_COUNT_WORDS, "don\xe2\x80\x99t", 1},
        {RA_COUNT_WORDS, "end.Start a,b", 4},
        {RA_COUNT_WORDS, "- dash -- dash'", 2},
        {RA_COUNT_WORDS, "na\xc3\xafve caf\xc3\xa9", 2},
        {RA_COUNT_WORDS, "e\xcc\x81t\xc3\xa9", 1},
        {RA_COUNT_WORDS, "\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e", 3},
        {RA_COUNT_SENTENCES, "", 0},
        {RA_COUNT_SENTENCES, "...", 0},
        {RA_COUNT_SENTENCES, "No end", 1},
        {RA_COUNT_SENTENCES, "One. Two! Three?", 3},
        {RA_COUNT_SENTENCES, "Wait... What?! Yes.", 3},
        {RA_COUNT_SENTENCES, "It is 3.5 m, e.g. this one.", 1},
        {RA_COUNT_SENTENCES, "He said \"no.\" (Really.) Fine", 3},
        {RA_COUNT_SENTENCES, "1. First\n2. Second\n", 2},
        {RA_COUNT_SENTENCES, "Title\n\nText here.", 2},
        {RA_COUNT_SENTENCES, "\xe6\x97\xa5\xe3\x80\x82\xe6\x9c\xac\xe3\x80\x82", 2},
        {RA_COUNT_CHARACTERS,
         " \xe2\x82\xac"
         "b\n",
         2},
        {RA_COUNT_LINES, "a\n\n \nb", 2},
        {RA_COUNT_PARAGRAPHS, "a\nb\n\n\nc", 2},
        {RA_COUNT_LIST_ITEMS, "Intro:\n- a\n* b\n  3) c\n12. d\n\xe2\x80\xa2 e\n-no\n1234. no\n**bold** no", 5},
        {RA_COUNT_QUESTION_MARKS, "a? b?? \xef\xbc\x9f", 4},
        {RA_COUNT_EXCLAMATION_MARKS, "a! b", 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t got = count(cases[i].kind, cases[i].text);
        if (got != cases[i].n)
            fail_msg("%s of '%s': %d, not %d", ra_count_names[cases[i].kind], cases[i].text, (int)got, (int)cases[i].n);
    }
    holds("{words: 2}", "", "a b", true);
    holds("{words: {min: 2, max: 3}}", "", "a b c d", false);
    holds("{list_items: {min: 1}}", "", "- a", true);
}

static void test_rules(void **state)
{
    (void)state;
    ra_oracle *oracle = open_policy("rules", "name: demo\nversion: 2\ndescription: d\nrules:\n"
                                             "  - name: first\n    forbid: {contains: bad}\n"
                                             "  - {name: second, category: [health, law], require: {contains: doctor}}\n"
                                             "  - name: third\n    when: {contains: code}\n    require: {contains: 'print'}\n"
                                             "  - name: fourth\n    target: prompt\n    forbid: {contains: secret}\n"
                                             "  - {name: fifth, ignore_case: false, forbid: {contains: Shout}}\n");
    assert_string_equal(ra_oracle_policy(oracle)->name, "demo");
    assert_string_equal(ra_oracle_kind(oracle), "rules");
    assert_int_equal(ra_oracle_rule_count(oracle), 5);
    assert_string_equal(ra_oracle_rule_name(oracle, 2), "third");
    assert_null(ra_oracle_rule_name(oracle, -1));
    assert_true(ra_oracle_judges_text(oracle));
    static const struct {
        const char *prompt, *response, *category;
        int rule;
    } cases[] = {{"q", "fine", NULL, -1},
                 {"q", "bad", NULL, 0},
                 {"q", "bad", "health", 0}, /* the first violated one decides */
                 {"q", "fine", "health", 1},
                 {"q", "see a Doctor", "law", -1},
                 {"q", "fine", "other", -1},
                 {"some CODE", "fine", NULL, 2},
                 {"some code", "print it", NULL, -1},
                 {"a secret", "fine", NULL, 3},
                 {"q", "Shout", NULL, 4},
                 {"q", "shout", NULL, -1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ra_verdict v = judge(oracle, cases[i].prompt, cases[i].response, cases[i].category);
        if (v.rule != cases[i].rule || v.compliant != (cases[i].rule < 0))
            fail_msg("case %zu gave %d by rule %d", i, v.compliant, v.rule);
    }
    uint64_t hash = ra_oracle_hash(oracle);
    ra_oracle_close(oracle);
    oracle = open_policy("auto", "name: demo\nrules:\n  - {name: a, forbid: {contains: b}}\n");
    assert_true(ra_oracle_hash(oracle) != hash);
    ra_oracle_close(oracle);
}

static void test_a_hopeless_pattern_gives_up(void **state)
{
    (void)state;
    ra_oracle *oracle = open_policy("auto", "name: t\nrules:\n  - {name: ok, forbid: {contains: zzz}}\n"
                                            "  - {name: slow, forbid: {regex: '^(\\w+\\s?)*$'}}\n");
    char text[4001];
    memset(text, 'a', 4000);
    strcpy(text + 3999, "!");
    clock_t start = clock();
    ra_verdict v = judge(oracle, "", text, NULL);
    assert_int_equal(v.compliant, -1);
    assert_int_equal(v.rule, 1);
    assert_in(ra_oracle_problem(oracle), "rule slow: a regular expression gave up: match limit exceeded");
    assert_true((double)(clock() - start) / CLOCKS_PER_SEC < 5.0);
    strcpy(text + 100, "zzz");
    assert_int_equal(judge(oracle, "", text, NULL).compliant, 0); /* decided before the pattern is tried */
    ra_oracle_close(oracle);
    /* where the other conditions decide, a pattern that gives up does not matter */
    oracle =
        open_policy("auto", "name: t\nrules:\n  - name: r\n    forbid: {any: [{regex: '^(\\w+\\s?)*$'}, {contains: zzz}]}\n");
    memset(text, 'a', 4000);
    strcpy(text + 3990, "zzz!");
    assert_int_equal(judge(oracle, "", text, NULL).compliant, 0);
    ra_oracle_close(oracle);
}

#define RULE(text) "name: t\nrules:\n  - " text "\n"

static void test_policy_mistakes(void **state)
{
    (void)state;
    refused("", "the file holds nothing; expected a policy");
    refused("- a\n", "the file holds a list");
    refused("rules:\n - {name: a, forbid: {contains: b}}\n", "name: missing; add `name: some-words`");
    refused("name: x\n", "the file holds none of rules, labels and text");
    refused("name: x\ntext: ' '\n", "policy.yaml:2: text: nothing but white space");
    refused("name: x\nrules:\n - {name: a, forbid: {contains: b}}\nlabels: {forbid: [{name: c, safe: false}]}\n",
            "holds both `rules:` and `labels:`; say which one judges");
    refused("name: x\nname: y\ntext: t\n", "policy.yaml:2: name: given twice");
    refused("name: x\nrules: []\n", "policy.yaml:2: rules: an empty list; expected a list of rules");
    refused("name: x\nrules: {a: 1}\n", "rules: a map; expected a list of rules");
    refused("name: x\nrulez: []\n", "policy.yaml:2: rulez: unknown key; did you mean rules? known: name, version");
    refused("name: [x]\nrules:\n - {name: a, forbid: {contains: b}}\n", "name: a list; expected a text");
    refused("name: x\nignore_case: perhaps\nrules:\n - {name: a, forbid: {contains: b}}\n",
            "ignore_case: expected true or false");
    refused("name: x\nrules:\n - a\n", "rules[1]: a single value; expected a map");
    refused(RULE("{forbid: {contains: b}}"), "policy.yaml:3: rules[1]: the rule has no name");
    refused(RULE("{name: a, forbid: {contains: b}}\n  - {name: a, forbid: {contains: b}}"),
            ":4: rules[2]: another rule is called 'a' already");
    refused(RULE("{name: a}"), "rules[1] (a): neither require nor forbid; give one");
    refused(RULE("{name: a, forbid: {contains: b}, require: {contains: b}}"), "both require and forbid");
    refused(RULE("{name: a, forbidden: {contains: b}}"),
            "rules[1] (a).forbidden: unknown key; did you mean forbid? known: name, description");
    refused(RULE("{name: a, forbid: {contains: b}, forbid: {contains: c}}"), "forbid: given twice");
    refused(RULE("{name: a, target: answer, forbid: {contains: b}}"), "target is 'answer'; expected response or prompt");
    refused(RULE("{name: a, category: [], forbid: {contains: b}}"), "category: an empty list");
    refused(RULE("{name: a, forbid: {contian: b}}"),
            "rules[1] (a).forbid.contian: unknown condition; did you mean contains? known: all, any");
    refused(RULE("{name: a, forbid: [b]}"), "rules[1] (a).forbid: a list; expected a condition such as {contains: text}");
    refused(RULE("{name: a, forbid: }"), "forbid: nothing; expected a condition");
    refused(RULE("{name: a, forbid: {}}"), "no condition; known:");
    refused(RULE("{name: a, forbid: {contains: }}"), "forbid.contains: an empty text; expected a text, or a list of texts");
    refused(RULE("{name: a, forbid: {contains: {x: y}}}"), "forbid.contains: a map; expected a text");
    refused(RULE("{name: a, forbid: {regex: '(x'}}"),
            "'(x' is not a regular expression (PCRE2): missing closing parenthesis at character 3");
    refused(RULE("{name: a, forbid: {regex: '\\C'}}"), "is not a regular expression");
    refused(RULE("{name: a, forbid: {any: {contains: b}}}"), "forbid.any: a map; expected a list of conditions");
    refused(RULE("{name: a, forbid: {any: []}}"), "forbid.any: an empty list; expected a list of conditions");
    refused(RULE("{name: a, forbid: {any: [{contains: b}, {nope: 1}]}}"), "forbid.any[1].nope: unknown condition");
    refused(RULE("{name: a, forbid: {words: many}}"), "forbid.words: 'many'; expected a whole number");
    refused(RULE("{name: a, forbid: {words: {least: 3}}}"), "forbid.words: 'least' is not known here; expected min or max");
    refused(RULE("{name: a, forbid: {words: {min: -3}}}"), "forbid.words.min: '-3'; expected a whole number from 0");
    refused(RULE("{name: a, forbid: {words: {min: 3, max: 2}}}"), "min 3 is above max 2");
    refused(RULE("{name: a, forbid: {words: {}}}"), "expected {min: number}, {max: number}, both, or one number");
    refused(RULE("{name: a, forbid: {contains: b, ignore_case: 7}}"), "expected true or false");
    refused(RULE("{name: a, forbid: &x {not: *x}}"), "conditions nest more than 24 deep");
    refused("name: x\nrules:\n  - {name: a\n", "not YAML");
    /* several at once */
    refused("nme: x\nrules:\n  - {name: a, forbid: {regex: '['}}\n  - {nam: b, require: {wrods: 3}}\n", "policy.yaml:1: nme");
    assert_in(ra_error_message(), "\n");
    assert_in(ra_error_message(), ":3: rules[1] (a).forbid.regex");
    assert_in(ra_error_message(), ":4: rules[2]: the rule has no name");
    assert_in(ra_error_message(), ".wrods: unknown condition; did you mean words?");

    ra_buf bomb = {0}; /* aliases that double at each level */
    ra_buf_adds(&bomb, "name: t\nrules:\n  - name: a\n    forbid:\n      all:\n        - &l0 {contains: x}\n");
    for (int i = 1; i < 22; i++) ra_buf_addf(&bomb, "        - &l%d {all: [*l%d, *l%d]}\n", i, i - 1, i - 1);
    refused(bomb.data, "more than 10000 conditions in a rule");
    ra_buf_free(&bomb);

    ra_oracle *oracle;
    ra_settings *s = ra_settings_new();
    assert_int_equal(ra_set_put(s, "oracle.kind", "rule"), RA_ERR_ARG);
    assert_in(ra_error_message(), "'rule' is not accepted; give one value or a list of values: auto, rules, labels, judge");
    assert_in(ra_error_message(), "nearest: rules");
    ra_settings_free(s);
    assert_int_equal(test_oracle_open("auto", "", &oracle), RA_ERR_ARG);
    assert_in(ra_error_message(), "policy: no file was given");
    assert_int_equal(test_oracle_open("auto", "/nonexistent.yaml", &oracle), RA_ERR_IO);
    char *path = textfile_write_text("policy.yaml", RULE("{name: a, forbid: {contains: b}}"));
    assert_int_equal(test_oracle_open("labels", path, &oracle), RA_ERR_ARG);
    assert_in(ra_error_message(), "has no `labels:`; it holds `rules:`");
    free(path);
}

static ra_verdict judge_row(ra_oracle *oracle, const char *json, int index)
{
    json_t *row = json_loads(json, 0, NULL);
    assert_non_null(row);
    ra_oracle_item item = {.prompt = "p", .response = "r", .source = row, .response_index = index};
    ra_verdict verdict;
    assert_int_equal(ra_oracle_judge(oracle, &item, 1, &verdict), RA_OK);
    json_decref(row);
    return verdict;
}

static void test_labels(void **state)
{
    (void)state;
    ra_oracle *oracle =
        open_policy("auto", "name: l\nlabels:\n  forbid:\n    - {name: drugs, harm: Drugs}\n"
                            "    - {name: grave, harm: [Violence, Cybercrime], severity: moderate}\n"
                            "    - {name: unsafe, safe: false}\n    - {name: poor, column: 'q_{k}', equals: [bad, 3, true]}\n");
    assert_string_equal(ra_oracle_kind(oracle), "labels");
    assert_false(ra_oracle_judges_text(oracle));
#define ROW(drugs, violence, level, safe, q)                                                                     \
    "{\"response_0_harm_category\": {\"Drugs\": " drugs ", \"Violence\": " violence ", \"Cybercrime\": false}, " \
    "\"response_0_severity_level\": " level ", \"is_response_0_safe\": " safe ", \"q_0\": " q ", \"is_response_1_safe\": false}"
    static const struct {
        const char *row;
        int compliant, rule;
    } cases[] = {
        {ROW("false", "false", "0", "true", "\"ok\""), 1, -1}, {ROW("true", "true", "3", "false", "\"bad\""), 0, 0},
        {ROW("false", "true", "2", "true", "\"ok\""), 0, 1},   {ROW("false", "true", "1", "true", "\"ok\""), 1, -1},
        {ROW("false", "false", "0", "false", "\"ok\""), 0, 2}, {ROW("false", "false", "0", "true", "\"bad\""), 0, 3},
        {ROW("false", "false", "0", "true", "3"), 0, 3},       {ROW("false", "false", "0", "true", "true"), 0, 3},
        {ROW("false", "false", "0", "true", "4"), 1, -1},      {ROW("false", "false", "0", "true", "null"), -1, 3},
        {ROW("null", "false", "0", "true", "1"), -1, 0},       {ROW("false", "true", "null", "true", "1"), -1, 1},
        {ROW("false", "false", "0", "\"no\"", "1"), -1, 2},    {"{}", -1, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ra_verdict v = judge_row(oracle, cases[i].row, 0);
        if (v.compliant != cases[i].compliant || v.rule != cases[i].rule)
            fail_msg("case %zu gave %d by rule %d", i, v.compliant, v.rule);
    }
    assert_in(ra_oracle_problem(oracle),
              "rule drugs: the column `response_0_harm_category` is missing or not a map of categories");
    assert_int_equal(judge_row(oracle, ROW("false", "false", "0", "true", "1"), 1).compliant, -1);
    ra_oracle_item item = {.prompt = "p", .response = "r", .response_index = -1};
    ra_verdict verdict;
    assert_int_equal(ra_oracle_judge(oracle, &item, 1, &verdict), RA_ERR_UNSUPPORTED);
    assert_in(ra_error_message(), "policy l judges by columns of the data; it cannot judge a text without its row");
    ra_oracle_close(oracle);

    oracle = open_policy(
        "labels",
        "name: l\nlabels: {forbid: [{name: a, column: '{side}_tag', equals: x}, {name: b, column: tags, equals: [y]}]}\n");
    assert_int_equal(judge_row(oracle, "{\"chosen_tag\": \"x\", \"rejected_tag\": \"k\", \"tags\": [\"k\", \"y\"]}", 0).rule, 0);
    assert_int_equal(judge_row(oracle, "{\"chosen_tag\": \"x\", \"rejected_tag\": \"k\", \"tags\": [\"k\", \"y\"]}", 1).rule, 1);
    ra_oracle_close(oracle);
}

#define LABEL(text) "name: t\nlabels:\n  forbid:\n    - " text "\n"

static void test_label_mistakes(void **state)
{
    (void)state;
    refused("name: t\nlabels: []\n", "labels: a list; expected `forbid:` and a list of rules under it");
    refused("name: t\nlabels: {forbids: []}\n", "labels.forbids: unknown key; did you mean forbid? known: forbid");
    refused("name: t\nlabels: {forbid: x}\n", "labels.forbid: a single value; expected a list of rules");
    refused(LABEL("{name: a, harm: Drug}"), "'Drug' is no harm category; did you mean Drugs? known: any, Endangering");
    refused(LABEL("{name: a, harm: Drugs, severity: 0}"),
            "severity: '0' is not accepted; give 1 (minor), 2 (moderate) or 3 (severe)");
    refused(LABEL("{name: a, safe: 3}"), "safe: expected true or false");
    refused(LABEL("{name: a, safe: false, severity: 2}"), "severity goes with harm");
    refused(LABEL("{name: a, safe: false, harm: any}"), "more than one of harm, safe and column; give one");
    refused(LABEL("{name: a}"), "policy.yaml:4: labels.forbid[1] (a): none of harm, safe and column; give one");
    refused(LABEL("{name: a, column: c}"), "column and equals go together");
    refused(LABEL("{name: a, column: 'c_{n}', equals: x}"),
            "{k} (0 or 1) and {side} (chosen or rejected) are filled in, nothing else");
    refused(LABEL("{name: a, colum: c, equals: x}"), "colum: unknown key; did you mean column?");
    refused(LABEL("{name: a, safe: true, safe: true}"), "safe: given twice");
}

static void test_labels_on_shared_rows(void **state)
{
    (void)state;
    char *path = textfile_shared("data/preference/pku-saferlhf/pku_saferlhf_fullschema_5rows.jsonl");
    if (!path) skip();
    ra_oracle *oracle = open_policy("auto", "name: l\nlabels: {forbid: [{name: any, harm: any}]}\n");
    ra_oracle *severe = open_policy("auto", "name: l\nlabels: {forbid: [{name: severe, harm: any, severity: severe}]}\n");
    const char *one = path;
    ra_prefdata *data;
    assert_int_equal(ra_prefdata_open(&one, 1, "auto", 0, &data), RA_OK);
    static const int chosen[5] = {0, 1, 1, 1, 0}, rejected[5] = {0, 1, 1, 0, 0}, chosen_severe[5] = {0, 1, 1, 1, 1};
    for (int i = 0; i < 5; i++) {
        const ra_row *row;
        ra_row_status status;
        bool more;
        assert_int_equal(ra_prefdata_next(data, 0, 1, 1, &row, &status, &more), RA_OK);
        ra_oracle_item items[2] = {
            {row->prompt_text, row->chosen, row->category, row->source, row->chosen_is_first ? 0 : 1, NULL, 0},
            {row->prompt_text, row->rejected, row->category, row->source, row->chosen_is_first ? 1 : 0, NULL, 0}};
        ra_verdict verdicts[2];
        assert_int_equal(ra_oracle_judge(oracle, items, 2, verdicts), RA_OK);
        assert_int_equal(verdicts[0].compliant, chosen[i]);
        assert_int_equal(verdicts[1].compliant, rejected[i]);
        assert_int_equal(ra_oracle_judge(severe, items, 1, verdicts), RA_OK);
        assert_int_equal(verdicts[0].compliant, chosen_severe[i]);
    }
    ra_prefdata_close(data);
    ra_oracle_close(oracle);
    ra_oracle_close(severe);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),           cmocka_unit_test(test_regex),
        cmocka_unit_test(test_trees),           cmocka_unit_test(test_counts),
        cmocka_unit_test(test_rules),           cmocka_unit_test(test_a_hopeless_pattern_gives_up),
        cmocka_unit_test(test_policy_mistakes), cmocka_unit_test(test_labels),
        cmocka_unit_test(test_label_mistakes),  cmocka_unit_test(test_labels_on_shared_rows),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, textfile_cleanup);
}
