/* Triage: the table of METHOD section 2, words for rows, counts and their table, what is said when a set is empty, category names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../src/stage/triage.h"
#include <support/oraclemake.h>
#include <support/textfile.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static ra_comm world;

static void assert_in(const char *text, const char *part)
{
    if (!strstr(text, part)) fail_msg("'%s' is not in: %s", part, text);
}

static void test_action(void **state)
{
    (void)state;
    static const struct {
        int c_w, c_l;
        ra_action action;
    } table[] = {{0, 1, RA_ACTION_INVERT}, {0, 0, RA_ACTION_PUNISH},  {1, 0, RA_ACTION_RETAIN},
                 {1, 1, RA_ACTION_RETAIN}, {1, -1, RA_ACTION_RETAIN}, {0, -1, RA_ACTION_NONE},
                 {-1, 0, RA_ACTION_NONE},  {-1, 1, RA_ACTION_NONE},   {-1, -1, RA_ACTION_NONE}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        assert_int_equal(ra_triage_action(table[i].c_w, table[i].c_l), table[i].action);
    }
    static const char *const words[] = {"invert", "punish", "retain"};
    for (int a = 0; a < 3; a++) assert_string_equal(ra_triage_word(&(ra_triage_row){.action = (int8_t)a}), words[a]);
    static const char *const reasons[] = {"skipped", "malformed", "held_out", "undecided"};
    for (int i = 0; i < 4; i++) {
        assert_string_equal(ra_triage_word(&(ra_triage_row){.action = -1, .state = (int8_t)(RA_TRIAGE_SKIPPED + i)}), reasons[i]);
    }
    assert_int_equal(sizeof(ra_triage_row), 28);
}

static ra_oracle *two_rules(void)
{
    char *path = textfile_write_text(
        "p.yaml", "name: p\nrules:\n  - {name: short, require: {words: {max: 3}}}\n  - {name: kind, forbid: {contains: x}}\n");
    ra_oracle *oracle = NULL;
    if (test_oracle_open("auto", path, &oracle) != RA_OK) fail_msg("%s", ra_error_message());
    free(path);
    return oracle;
}

static ra_triage_row row_of(int state, int action, int c_w, int c_l, int rule_w, int rule_l, int category)
{
    return (ra_triage_row){.state = (int8_t)state,
                           .action = (int8_t)action,
                           .c_w = (int8_t)c_w,
                           .c_l = (int8_t)c_l,
                           .rule_w = (int16_t)rule_w,
                           .rule_l = (int16_t)rule_l,
                           .category = (int16_t)category};
}

static void test_counts_and_table(void **state)
{
    (void)state;
    ra_oracle *oracle = two_rules();
    ra_category_list categories = {0};
    assert_int_equal(ra_category_index(&categories, "law"), 0);
    assert_int_equal(ra_category_index(&categories, "art"), 1);
    assert_int_equal(ra_category_index(&categories, "law"), 0);
    assert_int_equal(ra_category_index(&categories, NULL), -1);
    const ra_triage_row rows[] = {row_of(RA_TRIAGE_USED, RA_ACTION_INVERT, 0, 1, 0, -1, 0),
                                  row_of(RA_TRIAGE_USED, RA_ACTION_PUNISH, 0, 0, 0, 1, 0),
                                  row_of(RA_TRIAGE_USED, RA_ACTION_RETAIN, 1, 0, -1, 1, 1),
                                  row_of(RA_TRIAGE_USED, RA_ACTION_RETAIN, 1, 1, -1, -1, -1),
                                  row_of(RA_TRIAGE_SKIPPED, RA_ACTION_NONE, -1, -1, -1, -1, -1),
                                  row_of(RA_TRIAGE_UNDECIDED, RA_ACTION_NONE, -1, 1, 1, -1, 1),
                                  row_of(RA_TRIAGE_HELD_OUT, RA_ACTION_NONE, 1, 1, -1, -1, 0)};
    ra_triage_counts counts;
    ra_triage_count(&counts, &world, rows, 7, categories.n, 2);
    assert_int_equal(counts.all.rows, 7);
    assert_int_equal(counts.all.action[RA_ACTION_RETAIN], 2);
    assert_int_equal(counts.all.judged[0], 5);
    assert_int_equal(counts.all.yes[0], 3);
    assert_int_equal(counts.all.judged[1], 6);
    assert_int_equal(counts.all.yes[1], 4);
    assert_int_equal(counts.category[0].rows, 3);
    assert_int_equal(counts.without_category.rows, 1);
    assert_int_equal(counts.rule[0][0], 2);
    assert_int_equal(counts.rule[1][1], 2);
    ra_buf text = {0};
    ra_triage_table(&counts, &categories, oracle, &text);
    assert_in(text.data, "  (all)                                  7         1         1         2     60.0 %     66.7 %\n");
    assert_in(text.data, "  law                                    3         1         1         0     33.3 %     66.7 %\n");
    assert_in(text.data, "  art                                    2         0         0         1    100.0 %     50.0 %\n");
    assert_in(text.data, "  (none)                                 1");
    assert_in(text.data, "rules that decided over y_w: short 2\n");
    assert_in(text.data, "rules that decided over y_l: kind 2\n");
    assert_in(text.data, "left out: 1 skipped, 0 malformed, 1 held out, 1 undecided\n");
    assert_true(strstr(text.data, "law") < strstr(text.data, "art")); /* the largest first */
    ra_buf_clear(&text);
    free(categories.name[0]); /* 35 characters of two bytes: cut after a whole one */
    categories.name[0] = ra_strdup(
        "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
        "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
        "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9");
    ra_triage_table(&counts, &categories, oracle, &text);
    assert_in(text.data, "\xc3\xa9         3         1");
    ra_buf_free(&text);
    ra_triage_counts_free(&counts);
    ra_category_free(&categories);
    ra_oracle_close(oracle);
}

static void advice(int64_t invert, int64_t punish, int64_t retain, const char *part)
{
    ra_triage_counts c = {.all.action = {invert, punish, retain}};
    ra_buf text = {0};
    ra_buf_adds(&text, "");
    ra_triage_advice(&c, &text);
    if (part) {
        assert_in(text.data, part);
    } else {
        assert_string_equal(text.data, "");
    }
    ra_buf_free(&text);
}

static void test_advice(void **state)
{
    (void)state;
    advice(1, 1, 1, NULL);
    advice(0, 0, 0, "No row has an action");
    advice(0, 0, 5, "Invert and Punish are empty: every preferred response already follows the new policy");
    advice(0, 5, 5, "Invert is empty");
    advice(5, 0, 5, "Punish is empty");
    advice(5, 5, 0, "Retain is empty");
    advice(5, 0, 0, "Retain is empty");
    advice(5, 0, 0, "Punish is empty");
}

static void test_categories(void **state)
{
    (void)state;
    ra_category_list list = {0};
    ra_triage_row rows[3] = {
        {.category = ra_category_index(&list, "b")}, {.category = ra_category_index(&list, "a")}, {.category = -1}};
    ra_category_merge(&list, &world, rows, 3);
    assert_int_equal(list.n, 2);
    assert_string_equal(list.name[0], "a");
    assert_int_equal(rows[0].category, 1);
    assert_int_equal(rows[1].category, 0);
    assert_int_equal(rows[2].category, -1);
    ra_category_free(&list);
    rows[0].category = ra_category_index(&list, "first");
    for (int i = 0; i < RA_MOST_CATEGORIES; i++) {
        char name[16];
        snprintf(name, sizeof name, "n%d", i);
        int16_t index = ra_category_index(&list, name);
        if (i == RA_MOST_CATEGORIES - 1) assert_int_equal(index, -1);
    }
    assert_true(list.overflow);
    ra_category_merge(&list, &world, rows, 1);
    assert_int_equal(list.n, 0);
    assert_int_equal(rows[0].category, -1);
    ra_category_free(&list);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_action),
        cmocka_unit_test(test_counts_and_table),
        cmocka_unit_test(test_advice),
        cmocka_unit_test(test_categories),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    if (ra_comm_init(&argc, &argv, &world) != RA_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, textfile_cleanup);
    ra_comm_finalize();
    return failed;
}
