/* Settings: the schema, every kind of value, every error text, origins, sharing, and texts that read back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../src/params/schema.h"
#include <realign/settings.h>
#include <support/textfile.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void assert_in(const char *text, const char *part)
{
    if (!strstr(text, part)) fail_msg("'%s' is not in: %s", part, text);
}

static ra_err word(ra_settings *s, const char *text)
{
    char *copy = strdup(text);
    ra_err err = ra_settings_read_words(s, 1, &copy);
    free(copy);
    return err;
}

static void refused(const char *text, const char *part)
{
    ra_settings *s = ra_settings_new();
    assert_int_equal(word(s, text), RA_ERR_ARG);
    assert_in(ra_error_message(), part);
    ra_settings_free(s);
}

static void refused_file(const char *text, ra_err code, const char *part)
{
    char *path = textfile_write_text("bad.yaml", text);
    ra_settings *s = ra_settings_new();
    ra_err err = ra_settings_read_file(s, path);
    if (err != code) fail_msg("code %d (%s) for:\n%s", err, ra_error_message(), text);
    assert_in(ra_error_message(), part);
    ra_settings_free(s);
    free(path);
}

static void test_schema_is_sound(void **state)
{
    (void)state;
    int sections = 0;
    for (int i = 0; i < ra_schema_count; i++) {
        assert_non_null(ra_schema[i].name);
        assert_true(strlen(ra_schema[i].help) > 10);
        assert_int_equal(ra_schema_find(ra_schema[i].name), i);
        assert_non_null(ra_schema[i].unit);
        if (ra_schema[i].type != RA_KEY_LIST) assert_int_equal(ra_schema[i].type == RA_KEY_WORD, ra_schema[i].words != NULL);
        sections += ra_schema_section(ra_schema[i].name) != NULL;
    }
    assert_int_equal(sections, ra_schema_section_count);
}

static void test_defaults(void **state)
{
    (void)state;
    ra_settings *s = ra_settings_new();
    assert_true(ra_set_real(s, "beta") == 0.3);
    assert_true(ra_set_real(s, "train.lr") == 1e-4);
    assert_int_equal(ra_set_int(s, "gold.size"), 66);
    assert_int_equal(ra_set_int(s, "data.row_limit"), 64 << 20);
    assert_string_equal(ra_set_text(s, "method"), "trace");
    assert_string_equal(ra_set_text(s, "model"), "");
    assert_string_equal(ra_set_text(s, "reference"), "");
    assert_true(ra_set_bool(s, "train.kl"));
    const char *const *items;
    assert_int_equal(ra_set_list(s, "lora.targets", &items), 2);
    assert_string_equal(items[1], "v_proj");
    assert_int_equal(ra_set_list(s, "data.path", &items), 0);
    assert_false(ra_set_given(s, "beta"));
    ra_settings_free(s);
}

static void test_nearest(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b;
        int distance;
    } cases[] = {{"", "", 0},      {"", "abc", 3},           {"abc", "", 3}, {"ac", "abc", 1},
                 {"abc", "ac", 1}, {"kitten", "sitting", 3}, {"ab", "ba", 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(ra_edit_distance(cases[i].a, cases[i].b), cases[i].distance);
    static const char *const known[] = {"train.lr", "train.beta1", "beta", "model"};
    assert_string_equal(ra_nearest_name("lr", known, 4), "train.lr");
    assert_string_equal(ra_nearest_name("bete", known, 4), "beta");
    assert_string_equal(ra_nearest_name("tarin.beta1", known, 4), "train.beta1");
    assert_null(ra_nearest_name("something else", known, 4));
    assert_null(ra_nearest_name("", known, 0));
}

static void test_words(void **state)
{
    (void)state;
    ra_settings *s = ra_settings_new();
    const char *const *items;
    static const struct {
        const char *text;
        double seconds;
    } times[] = {{"90", 90},          {"10min", 600}, {"1h30min", 5400},      {"1.5 h", 5400},  {"250ms", 0.25},
                 {"23:59:00", 86340}, {"05:30", 330}, {"2-01:00:00", 176400}, {"1d 2h", 93600}, {"1e2", 100}};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        char text[64];
        snprintf(text, sizeof text, "run.wall_limit=%s", times[i].text);
        assert_int_equal(word(s, text), RA_OK);
        assert_true(ra_set_real(s, "run.wall_limit") == times[i].seconds);
    }
    assert_int_equal(word(s, "data.row_limit=1GiB"), RA_OK);
    assert_int_equal(ra_set_int(s, "data.row_limit"), 1 << 30);
    assert_int_equal(word(s, "data.row_limit=1.5 MB"), RA_OK);
    assert_int_equal(ra_set_int(s, "data.row_limit"), 1500000);
    assert_int_equal(word(s, "train.max_steps=1e3"), RA_OK);
    assert_int_equal(ra_set_int(s, "train.max_steps"), 1000);
    assert_int_equal(word(s, "data.path=[a.jsonl, b.jsonl.gz]"), RA_OK);
    assert_int_equal(ra_set_list(s, "data.path", &items), 2);
    assert_string_equal(items[1], "b.jsonl.gz");
    assert_int_equal(word(s, "data.path=one"), RA_OK);
    assert_int_equal(ra_set_list(s, "data.path", &items), 1);
    assert_int_equal(word(s, "lora.enabled=yes"), RA_OK);
    assert_true(ra_set_bool(s, "lora.enabled"));
    assert_int_equal(word(s, "model=a=b"), RA_OK); /* the first equals sign counts */
    assert_string_equal(ra_set_text(s, "model"), "a=b");
    assert_string_equal(ra_set_text(s, "reference"), "a=b");
    assert_string_equal(ra_set_text(s, "tokenizer"), "a=b");
    assert_int_equal(word(s, "reference=r"), RA_OK);
    assert_string_equal(ra_set_text(s, "reference"), "r");
    assert_int_equal(word(s, "run.dir=out/x"), RA_OK);
    assert_string_equal(ra_set_text(s, "run.stop_file"), "out/x/stop");
    assert_true(ra_set_given(s, "run.dir"));
    assert_false(ra_set_given(s, "run.stop_file"));
    ra_settings_free(s);
}

static void test_word_errors(void **state)
{
    (void)state;
    refused("bta=1", "bta: unknown key; did you mean beta?");
    refused("lr=1", "lr: unknown key; did you mean train.lr?");
    refused("trian.lr=1", "did you mean train.lr?");
    refused("zzzzzzzzzz=1", "unknown key; `realign --help`");
    refused("train=1", "train: a group of keys, not a value; it holds epochs, max_steps");
    refused("beta", "beta: not understood; expected key=value");
    refused("=1", "expected key=value");
    refused("beta=0", "a number above 0 to 1000");
    refused("beta=nan", "'nan' is not accepted");
    refused("beta=inf", "'inf' is not accepted");
    refused("beta=0x1p3", "not accepted");
    refused("beta=1e999", "not accepted");
    refused("beta=1 2", "not accepted");
    refused("seed=-1", "a whole number from 0 up");
    refused("seed=1.5", "a whole number");
    refused("gold.size=99999999999999999999999", "from 3 to 1000000");
    refused("method=tarce", "one of trace, dpo (nearest: trace)");
    refused("train.kl=maybe", "true or false");
    refused("run.wall_limit=10m", "10min, 1h30min or 23:59:00 (ms, s, min, h, d)");
    refused("run.wall_limit=10:75", "a time from 0 up");
    refused("run.wall_limit=-5", "a time from 0 up");
    refused("data.row_limit=2Gib", "(B, kB, MB, GB, TB, KiB, MiB, GiB, TiB)");
    refused("data.row_limit=10B", "from 1024");
    refused("lora.dropout=0.1", "0 alone (dropout would move the model off the reference");
    ra_settings *s = ra_settings_new();
    char *words[] = {"bta=1", "seed=7", "alpha_kl=x", "trian.lr=3"};
    assert_int_equal(ra_settings_read_words(s, 4, words), RA_ERR_ARG);
    assert_in(ra_error_message(), "command line: bta");
    assert_in(ra_error_message(), "\ncommand line: alpha_kl");
    assert_in(ra_error_message(), "\ncommand line: trian.lr");
    assert_int_equal(ra_set_int(s, "seed"), 7);
    ra_settings_free(s);
}

static void test_file(void **state)
{
    (void)state;
    char *path = textfile_write_text("demo.yaml",
                                     "# comment\nmodel: some/model\ndata:\n  path: [a.jsonl, \"b,c.jsonl\"]\n  max_tokens: 128\n"
                                     "train: {lr: 3e-5, warmup: 10}\ntrain.batch: 4\nrun.wall_limit: 10min\nweights:\n"
                                     "  normalise: mean\n");
    ra_settings *s = ra_settings_new();
    assert_int_equal(word(s, "train.warmup=20"), RA_OK);
    if (ra_settings_read_file(s, path) != RA_OK) fail_msg("%s", ra_error_message());
    const char *const *items;
    assert_int_equal(ra_set_list(s, "data.path", &items), 2);
    assert_string_equal(items[1], "b,c.jsonl");
    assert_int_equal(ra_set_int(s, "data.max_tokens"), 128);
    assert_true(ra_set_real(s, "train.lr") == 3e-5);
    assert_int_equal(ra_set_int(s, "train.warmup"), 20); /* the command line wins, whichever is read first */
    assert_int_equal(ra_set_int(s, "train.batch"), 4);
    assert_true(ra_set_real(s, "run.wall_limit") == 600);
    assert_string_equal(ra_set_text(s, "run.dir"), "output/demo");
    assert_string_equal(ra_set_text(s, "run.stop_file"), "output/demo/stop");

    ra_buf used = {0};
    ra_settings_write_yaml(s, &used);
    assert_in(used.data, "demo.yaml line 5");
    assert_in(used.data, "# command line; steps");
    assert_in(used.data, "\"b,c.jsonl\"");
    char *again = textfile_write("used.yaml", used.data, used.length);
    ra_settings *t = ra_settings_new();
    if (ra_settings_read_file(t, again) != RA_OK) fail_msg("%s", ra_error_message());
    const char *everything[] = {""};
    assert_true(ra_settings_hash(s, everything, 1) == ra_settings_hash(t, everything, 1));
    ra_settings_free(t);
    ra_settings_free(s);
    ra_buf_free(&used);
    free(again);
    free(path);
}

static void test_used_yaml_quotes(void **state)
{
    (void)state;
    static const char *const odd[] = {"",       "a b",    "x: y", "# no", "say \"hi\"", "back\\slash",       "~",      "null",
                                      "- item", "[1, 2]", "{a}",  "*a",   "tab\there",  "\xc3\xa9t\xc3\xa9", "trail ", " lead"};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        ra_settings *s = ra_settings_new(), *t = ra_settings_new();
        assert_int_equal(ra_set_put(s, "model", odd[i]), RA_OK);
        ra_buf used = {0};
        ra_settings_write_yaml(s, &used);
        char *path = textfile_write("odd.yaml", used.data, used.length);
        if (ra_settings_read_file(t, path) != RA_OK) fail_msg("%s: %s", odd[i], ra_error_message());
        assert_string_equal(ra_set_text(t, "model"), odd[i]);
        ra_buf_free(&used);
        free(path);
        ra_settings_free(s);
        ra_settings_free(t);
    }
}

static void test_file_errors(void **state)
{
    (void)state;
    refused_file("modle: x\n", RA_ERR_ARG, "bad.yaml:1: modle: unknown key; did you mean model?");
    refused_file("data: {pth: x}\n", RA_ERR_ARG, "bad.yaml:1: data.pth: unknown key; did you mean data.path?");
    refused_file("\n\nbeta: -1\n", RA_ERR_ARG, "bad.yaml:3: beta: '-1' is not accepted; give a number above 0 to 1000");
    refused_file("beta: 1\nbeta: 2\n", RA_ERR_ARG, ":2: beta: given twice");
    refused_file("train: {lr: 1e-3}\ntrain.lr: 1e-4\n", RA_ERR_ARG, ":2: train.lr: given twice");
    refused_file("beta:\n", RA_ERR_ARG, "beta: no value; give one, or leave the key out for its default (0.3)");
    refused_file("beta: [1]\n", RA_ERR_ARG, "beta: a list is not accepted; give a number");
    refused_file("beta: {a: 1}\n", RA_ERR_ARG, "beta: a map is not accepted");
    refused_file("nope: {a: 1}\n", RA_ERR_ARG, "nope: unknown key");
    refused_file("data: x\n", RA_ERR_ARG, "data: a group of keys, not a value; it holds path, schema");
    refused_file("data.path: [[a]]\n", RA_ERR_ARG, "data.path: an item is a list");
    refused_file("[a]: 1\n", RA_ERR_ARG, "a key is a list");
    refused_file("- a\n- b\n", RA_ERR_ARG, "the file holds a list; expected `key: value` lines");
    refused_file("just text\n", RA_ERR_ARG, "the file holds a single value");
    refused_file("a: b: c\n", RA_ERR_FORMAT, "bad.yaml:1:5: not YAML");
    refused_file("a: [1\n", RA_ERR_FORMAT, "not YAML");
    refused_file("beta: 1\n---\nbeta: 2\n", RA_ERR_FORMAT, "a second YAML document");
    refused_file("\xff\xfe\xfa", RA_ERR_FORMAT, "not YAML text");
    refused_file("data: &a {lora: *a}\n", RA_ERR_ARG, "unknown key"); /* a map that holds itself ends */
    refused_file("beta: 0\nsed: 1\nmethod: tract\n", RA_ERR_ARG, ":1: beta");
    assert_in(ra_error_message(), ":2: sed");
    assert_in(ra_error_message(), ":3: method");
    ra_settings *s = ra_settings_new();
    assert_int_equal(ra_settings_read_file(s, "/nonexistent/x.yaml"), RA_ERR_IO);
    assert_in(ra_error_message(), "/nonexistent/x.yaml");
    assert_int_equal(ra_settings_read_file(s, "/"), RA_ERR_IO);
    char *empty = textfile_write_text("empty.yaml", "");
    assert_int_equal(ra_settings_read_file(s, empty), RA_OK);
    free(empty);
    ra_settings_free(s);

    ra_buf many = {0}; /* more mistakes than a message holds: the rest is counted */
    for (int i = 0; i < 500; i++) ra_buf_addf(&many, "unknown_%d: 1\n", i);
    refused_file(many.data, RA_ERR_ARG, "\nand ");
    ra_buf_free(&many);
}

static void test_put_and_hash(void **state)
{
    (void)state;
    ra_settings *s = ra_settings_new();
    const char *training[] = {"train.", "beta"}, *data[] = {"data."};
    uint64_t h = ra_settings_hash(s, training, 2), d = ra_settings_hash(s, data, 1);
    assert_int_equal(word(s, "train.lr=1e-3"), RA_OK);
    assert_int_equal(ra_set_put(s, "train.lr", "2e-3"), RA_OK);
    assert_true(ra_set_real(s, "train.lr") == 2e-3);
    assert_true(ra_settings_hash(s, training, 2) != h);
    assert_true(ra_settings_hash(s, data, 1) == d);
    assert_int_equal(ra_set_put(s, "train.lr", "0.1e-3"), RA_OK);
    assert_true(ra_settings_hash(s, training, 2) == h); /* 1e-4 in another spelling */
    assert_int_equal(ra_set_put(s, "train.lr", "fast"), RA_ERR_ARG);
    assert_in(ra_error_message(), "set by the program: train.lr: 'fast' is not accepted");
    assert_int_equal(ra_set_put(s, "nope", "1"), RA_ERR_ARG);
    ra_settings_free(s);
}

static void test_texts(void **state)
{
    (void)state;
    ra_buf help = {0}, markdown = {0};
    ra_settings_help(&help);
    ra_settings_markdown(&markdown);
    for (int i = 0; i < ra_schema_count; i++) {
        char cell[80];
        snprintf(cell, sizeof cell, "| `%s` |", ra_schema[i].name);
        assert_in(markdown.data, cell);
        snprintf(cell, sizeof cell, "\n  %s  (", ra_schema[i].name);
        assert_in(help.data, cell);
    }
    FILE *file = fopen("doc/parameters.md", "rb");
    if (file) { /* run from the repository: the committed page is the table's */
        ra_buf page = {0};
        char block[4096];
        for (size_t n; (n = fread(block, 1, sizeof block, file)) > 0;) ra_buf_add(&page, block, n);
        fclose(file);
        assert_int_equal(page.length, markdown.length);
        assert_memory_equal(page.data, markdown.data, page.length);
        ra_buf_free(&page);
    }
    ra_buf_free(&help);
    ra_buf_free(&markdown);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--markdown") == 0) { /* what doc/parameters.md should hold */
        ra_buf page = {0};
        ra_settings_markdown(&page);
        fwrite(page.data, 1, page.length, stdout);
        ra_buf_free(&page);
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_schema_is_sound),  cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_nearest),          cmocka_unit_test(test_words),
        cmocka_unit_test(test_word_errors),      cmocka_unit_test(test_file),
        cmocka_unit_test(test_used_yaml_quotes), cmocka_unit_test(test_file_errors),
        cmocka_unit_test(test_put_and_hash),     cmocka_unit_test(test_texts),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, textfile_cleanup);
}
