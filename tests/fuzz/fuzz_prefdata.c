/* Mutated rows of every schema, policies and settings: an answer or an error, never a crash, a hang or (SAN=1) a leak. About two seconds;
 * REALIGN_FUZZ_SECONDS and REALIGN_FUZZ_SEED change that. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <realign/file.h>
#include <realign/mem.h>
#include <realign/oracle.h>
#include <realign/rng.h>
#include <realign/settings.h>
#include <realign/timer.h>
#include <support/oraclemake.h>
#include <support/textfile.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const rows[] = {
    "{\"prompt\": \"p\", \"chosen\": \"a b\", \"rejected\": \"c\", \"category\": \"k\", \"correction\": \"d\"}\n",
    "{\"prompt\": [{\"role\": \"user\", \"content\": \"u\"}], \"chosen\": [{\"role\": \"assistant\", \"content\": \"a\"}], "
    "\"rejected\": \"b\"}\n",
    "{\"chosen\": [{\"role\": \"user\", \"content\": \"u\"}, {\"role\": \"assistant\", \"content\": \"a\"}], \"rejected\": "
    "[{\"role\": \"user\", "
    "\"content\": \"u\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}\n",
    "{\"chosen\": \"\\n\\nHuman: q\\n\\nAssistant: r\\n\\nHuman: s\\n\\nHuman:\\n\\nAssistant: t\", \"rejected\": \"\\n\\nHuman: "
    "q\\n\\nAssistant: "
    "r\\n\\nHuman: s\\n\\nHuman:\\n\\nAssistant: v\"}\n",
    "{\"prompt\": \"p\", \"response_0\": \"x\", \"response_1\": \"y\", \"is_response_0_safe\": true, \"is_response_1_safe\": "
    "true, "
    "\"safer_response_id\": 1, \"better_response_id\": 0, \"response_0_harm_category\": {\"Drugs\": true}, "
    "\"response_0_severity_level\": 2}\n",
    "{\"conversations\": [{\"from\": \"system\", \"value\": \"s\"}, {\"from\": \"human\", \"value\": \"q\"}], \"chosen\": "
    "{\"from\": \"gpt\", "
    "\"value\": \"a\"}, \"rejected\": \"b\", \"system\": \"t\"}\n",
    "{\"instruction\": \"i\", \"input\": \"j\", \"history\": [[\"x\", \"y\"]], \"chosen\": [{\"role\": \"assistant\", "
    "\"content\": "
    "[{\"type\": \"text\", \"text\": \"a\"}, {\"type\": \"text\", \"text\": \"b\"}]}], \"rejected\": \"c\"}\n",
    "{\"question\": \"q\", \"response_j\": \"a\", \"response_k\": \"\\u00a0b\"}\n",
    "{\"prompt\": \"q\", \"completion\": \"a\", \"label\": false}\n",
    "{\"chosen\": \"be kind\\n\\nHuman: q\\n\\nAssistant: a\", \"rejected\": \"be kind\\n\\nHuman: q\\n\\nAssistant: b\"}\n",
    "{\"prompt\": \"\\n\\nHuman: q\\n\\nAssistant:\", \"response\": [\"a\", \"\\u00e9\\ud83d\\ude00\"], \"better\": 1}\n",
};

static const char *const policies[] = {
    "name: p\nrules:\n  - name: a\n    category: [k, l]\n    when: {regex: '\\bq+\\b'}\n    require: {words: {min: 1, max: 3}, "
    "not: {contains: [x, y]}}\n"
    "  - {name: b, target: prompt, ignore_case: false, forbid: {any: [{starts_with: \"a\"}, {ends_with: '?'}, {sentences: 2}]}}\n"
    "  - {name: c, forbid: {all: [{prompt: {absent: z}}, {response: {list_items: {min: 2}}}, {characters: {max: 9}}]}}\n",
    "name: l\nlabels:\n  forbid:\n    - {name: d, harm: [Drugs, Violence], severity: moderate}\n    - {name: s, safe: false}\n"
    "    - {name: q, column: 'q_{k}', equals: [bad, 3]}\n",
};

static const char *const settings[] = {
    "model: m\ndata:\n  path: [a.jsonl, \"b.jsonl\"]\n  max_tokens: 128\ntrain: {lr: 1e-4, warmup: 10, kl: "
    "false}\nrun.wall_limit: 1h30min\n"
    "beta: 0.3 # comment\nlora: &l {targets: [q_proj]}\ndata.row_limit: 2MiB\n",
};

/* Bytes that mean something in JSON, YAML, UTF-8 or a pattern. */
static const char *const pieces[] = {"{",
                                     "}",
                                     "[",
                                     "]",
                                     "\"",
                                     "\\",
                                     ":",
                                     ",",
                                     "\n",
                                     "\r",
                                     "\t",
                                     " ",
                                     "- ",
                                     "null",
                                     "true",
                                     "-1",
                                     "1e999",
                                     "0",
                                     "&a ",
                                     "*a",
                                     "\\u0000",
                                     "\\ud800",
                                     "\xff",
                                     "\xc3",
                                     "\xe2\x80\x99",
                                     "\xf0\x9f\x98\x80",
                                     "\xef\xbb\xbf",
                                     "Human:",
                                     "\n\nAssistant:",
                                     "(",
                                     ")*",
                                     "{9,}",
                                     "(?R)",
                                     "\\p{L}",
                                     "'",
                                     "|",
                                     ">",
                                     "#",
                                     "%YAML 1.1\n",
                                     "---\n",
                                     "!!str ",
                                     "<<: "};

static void mutate(ra_rng *rng, const char *seed, ra_buf *out)
{
    ra_buf_clear(out);
    ra_buf_adds(out, seed);
    for (uint64_t times = ra_rng_below(rng, 5); times > 0 && out->length; times--) {
        size_t at = (size_t)ra_rng_below(rng, out->length), n = 1 + (size_t)ra_rng_below(rng, 12);
        if (n > out->length - at) n = out->length - at;
        const char *piece = pieces[ra_rng_below(rng, sizeof pieces / sizeof *pieces)];
        switch (ra_rng_below(rng, 5)) {
        case 0: out->data[at] = (char)ra_rng_u32(rng); break;
        case 1: /* cut out */
            memmove(out->data + at, out->data + at + n, out->length - at - n);
            out->length -= n;
            break;
        case 2: out->length = at; break;
        case 3: /* put in */
            n = strlen(piece);
            ra_buf_reserve(out, n);
            memmove(out->data + at + n, out->data + at, out->length - at);
            memcpy(out->data + at, piece, n);
            out->length += n;
            break;
        default: /* repeat */
            ra_buf_reserve(out, n);
            memmove(out->data + at + n, out->data + at, out->length - at);
            out->length += n;
            break;
        }
    }
    ra_buf_adds(out, "");
}

static double seconds(void)
{
    const char *text = getenv("REALIGN_FUZZ_SECONDS");
    return text ? strtod(text, NULL) : 2.0;
}

static ra_rng start(const char *what)
{
    const char *text = getenv("REALIGN_FUZZ_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 10) : 20240607;
    printf("# %s: seed %llu\n", what, (unsigned long long)seed);
    return ra_rng_make(seed, RA_STREAM_TEST);
}

static void read_all(const char *path, const char *schema, ra_oracle *oracle)
{
    ra_prefdata *data;
    if (ra_prefdata_open(&path, 1, schema, 3, &data) != RA_OK) return;
    ra_prefdata_set_limits(data, 0, 4096);
    const ra_row *row;
    ra_row_status status;
    bool more;
    while (ra_prefdata_next(data, 0, 1, 1, &row, &status, &more) == RA_OK && more) {
        if (status != RA_ROW_OK) {
            assert_non_null(row->why);
            continue;
        }
        assert_true(row->n_prompt > 0 && row->prompt_text && row->source);
        ra_verdict verdict;
        ra_oracle_item item = {
            row->prompt_text, row->chosen ? row->chosen : "", row->category, row->source, row->chosen_is_first ? 0 : 1, NULL, 0};
        assert_int_equal(ra_oracle_judge(oracle, &item, 1, &verdict), RA_OK);
    }
    ra_prefdata_close(data);
}

/* A string that is longer than a row may be, brackets that nest deeper than they may, a NUL. */
static void add_monster(ra_rng *rng, ra_buf *file)
{
    static const char *const parts[] = {"x", "[", "{\"a\":", "\\", "]}"};
    const char *part = parts[ra_rng_below(rng, 5)];
    ra_buf_adds(file, ra_rng_below(rng, 2) ? "{\"prompt\": \"" : "");
    for (uint64_t n = ra_rng_below(rng, 9000); n > 0; n--) ra_buf_adds(file, part);
    if (ra_rng_below(rng, 2)) ra_buf_add(file, "\0\n", 2);
}

/* The rows as an array, with a comma or two too many or too few. */
static void make_array(ra_rng *rng, ra_buf *file)
{
    ra_buf array = {0};
    ra_buf_adds(&array, ra_rng_below(rng, 4) ? "[" : "\xef\xbb\xbf\r\n [");
    for (size_t i = 0; i < file->length; i++) {
        bool end = file->data[i] == '\n';
        ra_buf_add(&array, end && ra_rng_below(rng, 8) ? "," : &file->data[i], 1);
    }
    ra_buf_adds(&array, ra_rng_below(rng, 8) ? "]\n" : "");
    ra_buf_free(file);
    *file = array;
}

/* Writes rows.jsonl plain or packed; packed files are cut or damaged now and then. */
static void write_form(ra_rng *rng, ra_buf *file)
{
    if (!ra_rng_below(rng, 16)) add_monster(rng, file);
    if (!ra_rng_below(rng, 3)) make_array(rng, file);
    uint64_t form = ra_rng_below(rng, 8);
    char *path = form == 0   ? textfile_write_gz("rows.jsonl", file->data, file->length)
                 : form == 1 ? textfile_write_zst("rows.jsonl", file->data, file->length)
                             : textfile_write("rows.jsonl", file->data, file->length);
    ra_buf packed = {0};
    if (form < 2 && ra_rng_below(rng, 2) && ra_file_read(path, &packed) == RA_OK && packed.length > 8) {
        if (ra_rng_below(rng, 2)) packed.length -= 1 + (size_t)ra_rng_below(rng, packed.length / 2);
        packed.data[ra_rng_below(rng, packed.length)] = (char)ra_rng_u32(rng);
        free(textfile_write("rows.jsonl", packed.data, packed.length));
    }
    ra_buf_free(&packed);
    free(path);
}

static void test_rows(void **state)
{
    (void)state;
    ra_rng rng = start("rows");
    char *rules = textfile_write_text("rules.yaml", policies[0]), *path = textfile_path("rows.jsonl");
    ra_oracle *oracle = NULL;
    assert_int_equal(test_oracle_open("auto", rules, &oracle), RA_OK);
    ra_buf text = {0}, file = {0};
    enum { ROWS = sizeof rows / sizeof *rows };
    static const char *const schemas[] = {"auto",      "prompts",  "pairs",         "hh",      "pku",
                                          "responses", "sharegpt", "stackexchange", "labelled"};
    int runs = 0;
    for (double end = ra_now() + 0.5 * seconds(); ra_now() < end; runs++) {
        ra_buf_clear(&file);
        uint64_t kind = ra_rng_below(&rng, ROWS);
        for (uint64_t n = 1 + ra_rng_below(&rng, 6); n > 0; n--) {
            mutate(&rng, rows[ra_rng_below(&rng, 4) ? kind : ra_rng_below(&rng, ROWS)], &text);
            ra_buf_add(&file, text.data, text.length);
        }
        write_form(&rng, &file);
        read_all(path, schemas[ra_rng_below(&rng, 3) ? 0 : ra_rng_below(&rng, 9)], oracle);
    }
    printf("# %d files\n", runs);
    assert_true(runs > 20);
    ra_oracle_close(oracle);
    ra_buf_free(&text);
    ra_buf_free(&file);
    free(rules);
    free(path);
}

static void test_yaml(void **state)
{
    (void)state;
    ra_rng rng = start("policies and settings");
    char *path = textfile_path("text.yaml");
    ra_buf text = {0};
    json_t *row = json_loads(rows[4], 0, NULL);
    int runs = 0, accepted = 0;
    for (double end = ra_now() + 0.5 * seconds(); ra_now() < end; runs++) {
        bool is_policy = ra_rng_below(&rng, 3) > 0;
        mutate(&rng, is_policy ? policies[ra_rng_below(&rng, 2)] : settings[0], &text);
        free(textfile_write("text.yaml", text.data, text.length));
        ra_oracle *oracle = NULL;
        if (!is_policy) {
            ra_settings *s = ra_settings_new();
            accepted += ra_settings_read_file(s, path) == RA_OK;
            ra_settings_free(s);
        } else if (test_oracle_open("auto", path, &oracle) == RA_OK) {
            ra_oracle_item item = {"q? \xff", "a a a a a. A b?\n- c\n\xe2\x80\xa2 d", "k", row, 0, NULL, 0};
            ra_verdict verdict;
            assert_int_equal(ra_oracle_judge(oracle, &item, 1, &verdict), RA_OK);
            assert_in_range(verdict.compliant + 1, 0, 2);
            accepted++;
        }
        ra_oracle_close(oracle);
    }
    printf("# %d texts, %d accepted\n", runs, accepted);
    assert_true(runs > 20 && accepted > 0 && accepted < runs);
    json_decref(row);
    ra_buf_free(&text);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_yaml)};
    if (access("/dev/shm", W_OK) == 0) setenv("TMPDIR", "/dev/shm", 0); /* files in memory: fifty times as many */
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, textfile_cleanup);
}
