/* Preference data: every schema and form, every reason to refuse a row or a file, shares, gzip, the shared data sets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <realign/mem.h>
#include <realign/prefdata.h>
#include <support/textfile.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void assert_in(const char *text, const char *part)
{
    if (!text || !strstr(text, part)) fail_msg("'%s' is not in: %s", part, text ? text : "(null)");
}

static ra_prefdata *open_one(const char *path, const char *schema, int64_t limit)
{
    ra_prefdata *data = NULL;
    if (ra_prefdata_open(&path, 1, schema, limit, &data) != RA_OK) fail_msg("%s", ra_error_message());
    return data;
}

static ra_prefdata *open_text(const char *text, const char *schema)
{
    char *path = textfile_write_text("rows.jsonl", text);
    ra_prefdata *data = open_one(path, schema, 1000);
    free(path);
    return data;
}

static const ra_row *next(ra_prefdata *data, ra_row_status *status)
{
    const ra_row *row;
    bool more;
    if (ra_prefdata_next(data, 0, 1, 1, &row, status, &more) != RA_OK) fail_msg("%s", ra_error_message());
    return more ? row : NULL;
}

/* The one row of `text`, which must be refused with `status` and a reason that holds `why`. */
static void refused(const char *schema, const char *text, ra_row_status status, const char *why)
{
    ra_prefdata *data = open_text(text, schema);
    ra_row_status got;
    const ra_row *row = next(data, &got);
    assert_non_null(row);
    if (got != status) fail_msg("status %d (%s) for %s", got, row->why ? row->why : "fine", text);
    assert_in(row->why, why);
    const ra_data_counts *counts = ra_prefdata_counts(data);
    assert_int_equal(status == RA_ROW_SKIPPED ? counts->skipped : counts->malformed, 1);
    assert_int_equal(status == RA_ROW_SKIPPED ? counts->first_skipped[0] : counts->first_malformed[0], 1);
    assert_in(status == RA_ROW_SKIPPED ? counts->why_skipped[0] : counts->why_malformed[0], why);
    assert_null(next(data, &got));
    ra_prefdata_close(data);
}

static void fails(const char *path, const char *schema, ra_err code, const char *part)
{
    ra_prefdata *data = NULL;
    ra_err err = ra_prefdata_open(&path, 1, schema, 0, &data);
    while (err == RA_OK) {
        const ra_row *row;
        ra_row_status status;
        bool more;
        err = ra_prefdata_next(data, 0, 1, 1, &row, &status, &more);
        if (err == RA_OK && !more) break;
    }
    ra_prefdata_close(data);
    if (err != code) fail_msg("code %d: %s", err, ra_error_message());
    assert_in(ra_error_message(), part);
    assert_in(ra_error_message(), path);
}

static void fails_text(const char *text, ra_err code, const char *part)
{
    char *path = textfile_write_text("bad.jsonl", text);
    fails(path, "auto", code, part);
    free(path);
}

static void assert_row(const ra_row *row, int n_prompt, const char *prompt, const char *chosen, const char *rejected)
{
    assert_non_null(row);
    if (row->why) fail_msg("%s", row->why);
    assert_int_equal(row->n_prompt, n_prompt);
    assert_string_equal(row->prompt_text, prompt);
    assert_string_equal(row->prompt[n_prompt - 1].role, "user");
    assert_string_equal(row->chosen, chosen);
    assert_string_equal(row->rejected, rejected);
    assert_true(json_is_object(row->source));
}

static void test_pairs(void **state)
{
    (void)state;
    ra_prefdata *data = open_text(
        "{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"b\"}\n"
        "\n  \t\r\n" /* blank lines are not rows */
        "{\"prompt\": [{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"u\"}], \"chosen\": "
        "[{\"role\":\"assistant\",\"content\":\"a2\"}], \"rejected\": \"b2\", \"category\": \"cat\", \"correction\": \"fix\"}\r\n"
        "{\"prompt\": \"x\", \"chosen\": [{\"role\":\"user\",\"content\":\"u3\"},{\"role\":\"assistant\",\"content\":\"a3\"}], "
        "\"rejected\": "
        "[{\"role\":\"user\",\"content\":\"u3\"},{\"role\":\"assistant\",\"content\":\"b3\"}], \"category\": null, "
        "\"correction\": \"\"}\n"
        "{\"prompt\": \"\\n\\nHuman: h1\\n\\nAssistant: a1\\n\\nHuman: h2\\n\\nAssistant:\", \"chosen\": \" c\", \"rejected\": "
        "\"d\", "
        "\"system\": \"sys\"}",
        "auto");
    assert_string_equal(ra_prefdata_schema(data), "pairs");
    ra_row_status status;
    const ra_row *row = next(data, &status);
    assert_row(row, 1, "p", "a", "b");
    assert_int_equal(row->id, 0);
    assert_null(row->category);
    assert_null(row->correction);
    assert_true(row->chosen_is_first);
    row = next(data, &status);
    assert_row(row, 2, "u", "a2", "b2");
    assert_int_equal(row->id, 1);
    assert_string_equal(row->prompt[0].role, "system");
    assert_string_equal(row->category, "cat");
    assert_string_equal(row->correction, "fix");
    row = next(data, &status);
    assert_row(row, 1, "u3", "a3", "b3");
    assert_null(row->category);
    assert_null(row->correction);
    row = next(data, &status);
    assert_row(row, 4, "h2", " c", "d");
    assert_string_equal(row->prompt[0].content, "sys");
    assert_string_equal(row->prompt[2].content, "a1");
    assert_null(next(data, &status));
    assert_int_equal(ra_prefdata_counts(data)->rows, 4);
    assert_int_equal(ra_prefdata_counts(data)->used, 4);
    ra_prefdata_close(data);
}

#define M(role, content) "{\"role\":\"" role "\",\"content\":\"" content "\"}"

static void test_pair_refusals(void **state)
{
    (void)state;
    const ra_row_status bad = RA_ROW_MALFORMED, skip = RA_ROW_SKIPPED;
    refused("pairs", "{\"prompt\": \"p\", \"chosen\": \"a\"}", bad,
            "`rejected` is missing; expected a string or a list of messages");
    refused("pairs", "{\"chosen\": \"a\", \"rejected\": \"b\"}", bad, "`prompt` is missing; expected a string or a list");
    refused("pairs", "{\"prompt\": 3, \"chosen\": \"a\", \"rejected\": \"b\"}", bad, "`prompt` is a number");
    refused("pairs", "{\"prompt\": \"p\", \"chosen\": null, \"rejected\": \"b\"}", bad, "`chosen` is null");
    refused("pairs", "{\"prompt\": \"p\", \"chosen\": [], \"rejected\": \"b\"}", bad,
            "`chosen` is a list; expected a message in it");
    refused("pairs", "{\"prompt\": \"p\", \"chosen\": [3], \"rejected\": \"b\"}", bad,
            "`chosen[0]` is a number; expected {\"role\"");
    refused("pairs", "{\"prompt\": [{\"role\": \"user\"}], \"chosen\": \"a\", \"rejected\": \"b\"}", bad,
            "`prompt[0]` is an object without");
    refused("pairs", "{\"prompt\": [" M("robot", "x") "], \"chosen\": \"a\", \"rejected\": \"b\"}", bad,
            "`prompt[0]` has the role 'robot'; expected system, user (human) or assistant (gpt)");
    refused("pairs", "{\"prompt\": \"p\", \"chosen\": [" M("user", "x") "], \"rejected\": \"b\"}", skip,
            "`chosen` does not end with an assistant message");
    refused(
        "pairs",
        "{\"chosen\": [" M("user", "x") "," M("assistant", "y") "], \"rejected\": [" M("user", "z") "," M("assistant", "y") "]}",
        skip, "the dialogues diverge before the last turn");
    refused("pairs", "{\"prompt\": [" M("user", "x") "," M("assistant", "y") "], \"chosen\": \"a\", \"rejected\": \"b\"}", skip,
            "the prompt does not end with a user turn");
    refused("pairs", "{\"prompt\": [], \"chosen\": \"a\", \"rejected\": \"b\"}", skip,
            "the prompt does not end with a user turn");
    refused("pairs", "{\"prompt\": \" \\n\", \"chosen\": \"a\", \"rejected\": \"b\"}", skip, "the prompt is empty");
    refused("pairs", "{\"prompt\": \"p\", \"chosen\": \" \", \"rejected\": \"b\"}", skip, "the chosen response is empty");
    refused("pairs", "{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"\"}", skip, "the rejected response is empty");
    refused("pairs", "{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"b\", \"category\": 3}", bad,
            "`category` is a number; expected a string or null");
    refused("pairs", "{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"b\", \"correction\": []}", bad,
            "`correction` is a list");
    refused("pairs", "{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"b\"", bad, "not JSON: ");
    refused("pairs", "{\"prompt\": \"p\"} trailing", bad, "not JSON: end of file expected");
    refused("pairs", "[1]", bad, "the row is a number; expected an object"); /* an array of one row */
    refused("pairs", "[[1]]", bad, "the row is a list; expected an object");
    refused("pairs", "{\"prompt\": \"\xff\", \"chosen\": \"a\", \"rejected\": \"b\"}", bad,
            "not JSON: unable to decode byte 0xff");
    refused("pairs", "{\"prompt\": \"\\u0000\", \"chosen\": \"a\", \"rejected\": \"b\"}", bad,
            "not JSON: \\u0000 is not allowed");
    refused("pairs", "{\"prompt\": \"secret words", bad, "not JSON: premature end of input");
    ra_buf deep = {0}; /* deeper than jansson follows */
    ra_buf_adds(&deep, "{\"prompt\": ");
    for (int i = 0; i < 100000; i++) ra_buf_adds(&deep, "[");
    refused("pairs", deep.data, bad, "not JSON: maximum parsing depth reached");
    ra_buf_free(&deep);
}

static void test_hh(void **state)
{
    (void)state;
    ra_prefdata *data = open_text(
        "{\"chosen\": \"\\n\\nHuman: q1\\n\\nAssistant: r1\\n\\nHuman: q2\\nmore \\n\\nAssistant: good\", "
        "\"rejected\": \"\\n\\nHuman: q1\\n\\nAssistant: r1\\n\\nHuman: q2\\nmore \\n\\nAssistant: bad\\n\\nstill bad \"}\n"
        "{\"chosen\": \"\\n\\nHuman: a\\n\\nHuman: b\\n\\nHuman:\\n\\nAssistant: g\", \"rejected\": "
        "\"\\n\\nHuman: a\\n\\nHuman: b\\n\\nHuman:\\n\\nAssistant: h\"}\n",
        "auto");
    assert_string_equal(ra_prefdata_schema(data), "hh");
    ra_row_status status;
    const ra_row *row = next(data, &status);
    assert_row(row, 3, "q2\nmore", "good", "bad\n\nstill bad");
    assert_string_equal(row->prompt[0].content, "q1");
    assert_string_equal(row->prompt[1].content, "r1");
    assert_string_equal(row->prompt[1].role, "assistant");
    assert_row(next(data, &status), 1, "a\n\nb", "g", "h");
    ra_prefdata_close(data);

    const ra_row_status skip = RA_ROW_SKIPPED;
#define HH(c, r) "{\"chosen\": \"" c "\", \"rejected\": \"" r "\"}"
    refused("hh", HH("\\n\\nHuman: a\\n\\nAssistant: b", "\\n\\nHuman: c\\n\\nAssistant: b"), skip,
            "diverge before the last turn");
    refused("hh", HH("\\n\\nHuman: a\\n\\nAssistant: b", "\\n\\nHuman: a\\n\\nAssistant: b\\n\\nHuman: x\\n\\nAssistant: y"),
            skip, "diverge");
    refused("hh", HH("\\n\\nHuman: a\\n\\nAssistant: b\\n\\nHuman: x", "\\n\\nHuman: a\\n\\nAssistant: b"), skip,
            "a dialogue ends with a Human turn");
    refused("hh", HH("\\n\\nHuman: a", "\\n\\nHuman: a\\n\\nAssistant: b"), skip, "chosen has no \"\\n\\nAssistant:\" turn");
    refused("hh", HH("\\n\\nHuman: a\\n\\nAssistant: b", "x"), skip, "rejected has no");
    refused("hh", HH("hello\\n\\nAssistant: b", "hello\\n\\nAssistant: c"), skip, "does not begin with \"\\n\\nHuman:\"");
    refused("hh", HH("\\n\\nAssistant: b", "\\n\\nAssistant: c"), skip, "the prompt does not end with a user turn");
    refused("hh", HH("\\n\\nHuman: a\\n\\nAssistant: ", "\\n\\nHuman: a\\n\\nAssistant: c"), skip,
            "the chosen response is empty");
    refused("hh", "{\"chosen\": 1, \"rejected\": \"x\"}", RA_ROW_MALFORMED, "`chosen` is a number; expected a string");
    refused("hh", "{\"chosen\": \"x\"}", RA_ROW_MALFORMED, "`rejected` is missing; expected a string");
}

#define PKU(safe0, safe1, more)                                                                             \
    "{\"prompt\": \"p\", \"response_0\": \"zero\", \"response_1\": \"one\", \"is_response_0_safe\": " safe0 \
    ", \"is_response_1_safe\": " safe1 more "}"

static void test_pku(void **state)
{
    (void)state;
    ra_prefdata *data =
        open_text(PKU("true", "false",
                      ", \"safer_response_id\": 1, \"response_1_harm_category\": {\"A\": false, \"B\": true, \"C\": "
                      "true}") "\n" PKU("false", "true",
                                        ", \"response_1_harm_category\": {}, \"response_0_harm_category\": {\"Z\": "
                                        "true}") "\n" PKU("true", "true",
                                                          ", "
                                                          "\"safer_response_id\": "
                                                          "0, "
                                                          "\"better_response_id\": "
                                                          "1, "
                                                          "\"response_0_harm_"
                                                          "category\": {\"A\": "
                                                          "false}") "\n" PKU("fals"
                                                                             "e",
                                                                             "fals"
                                                                             "e",
                                                                             ", "
                                                                             "\"saf"
                                                                             "er_"
                                                                             "respo"
                                                                             "nse_"
                                                                             "id\":"
                                                                             " 1, "
                                                                             "\"bet"
                                                                             "ter_"
                                                                             "respo"
                                                                             "nse_"
                                                                             "id\":"
                                                                             " 0, "
                                                                             "\"res"
                                                                             "ponse"
                                                                             "_1_"
                                                                             "harm_"
                                                                             "categ"
                                                                             "ory\""
                                                                             ": "
                                                                             "{\"K"
                                                                             "\": "
                                                                             "true"
                                                                             "}") "\n" PKU("false", "false",
                                                                                           ", \"better_response_id\": "
                                                                                           "0, \"category\": \"own\"") "\n",
                  "auto");
    assert_string_equal(ra_prefdata_schema(data), "pku");
    static const struct {
        bool first;
        const char *category;
    } want[] = {{true, "B"}, {false, "Z"}, {true, NULL}, {false, "K"}, {true, "own"}};
    for (int i = 0; i < 5; i++) {
        ra_row_status status;
        const ra_row *row = next(data, &status);
        assert_row(row, 1, "p", want[i].first ? "zero" : "one", want[i].first ? "one" : "zero");
        assert_int_equal(row->chosen_is_first, want[i].first);
        if (want[i].category) assert_string_equal(row->category, want[i].category);
        if (!want[i].category) assert_null(row->category);
    }
    ra_prefdata_close(data);
    const ra_row_status bad = RA_ROW_MALFORMED;
    refused("pku", PKU("true", "true", ""), bad,
            "`safer_response_id` is missing; expected 0 or 1, as both responses are equally safe");
    refused("pku", PKU("true", "true", ", \"safer_response_id\": 2"), bad,
            "`safer_response_id` is another number; expected 0 or 1");
    refused("pku", PKU("true", "true", ", \"safer_response_id\": \"1\""), bad, "`safer_response_id` is a string");
    refused("pku", PKU("1", "true", ""), bad, "`is_response_0_safe` is a number; expected true or false");
    refused("pku", "{\"prompt\": \"p\", \"response_0\": \"x\"}", bad, "`response_1` is missing; expected a string");
}

static void test_responses(void **state)
{
    (void)state;
    ra_prefdata *data = open_text("{\"prompt\": \"p\", \"response\": [\"a\", \"b\"]}\n"
                                  "{\"prompt\": \"p\", \"response\": [\"a\", \"b\"], \"better_response_id\": 1}\n"
                                  "{\"prompt\": \"p\", \"responses\": [\"a\", [" M("assistant", "b") "]], \"better\": 1}\n",
                                  "auto");
    assert_string_equal(ra_prefdata_schema(data), "responses");
    ra_row_status status;
    const ra_row *row = next(data, &status);
    assert_row(row, 1, "p", "a", "b");
    assert_true(row->chosen_is_first);
    row = next(data, &status);
    assert_row(row, 1, "p", "b", "a");
    assert_false(row->chosen_is_first);
    assert_row(next(data, &status), 1, "p", "b", "a");
    ra_prefdata_close(data);
    refused("responses", "{\"prompt\": \"p\", \"response\": [\"a\"]}", RA_ROW_SKIPPED,
            "`response` holds 1 responses; a pair needs 2");
    refused("responses", "{\"prompt\": \"p\", \"response\": \"a\"}", RA_ROW_MALFORMED,
            "`response` is a string; expected a list of two");
    refused("responses", "{\"prompt\": \"p\", \"response\": [\"a\", \"b\"], \"better\": 7}", RA_ROW_MALFORMED,
            "`better` is another number");
    refused("responses", "{\"prompt\": \"p\", \"response\": [\"a\", [" M("user", "x") "," M("assistant", "b") "]]}",
            RA_ROW_SKIPPED, "`response[1]` holds a whole conversation");
}

static void test_prompts(void **state)
{
    (void)state;
    ra_row_status status;
    ra_prefdata *data =
        open_text("{\"prompt\": \"p\"}\n{\"messages\": [" M("user", "u") "," M("assistant", "a") "]}\n", "prompts");
    assert_string_equal(ra_prefdata_schema(data), "prompts");
    assert_string_equal(next(data, &status)->prompt_text, "p");
    const ra_row *row = next(data, &status);
    assert_int_equal(status, RA_ROW_OK);
    assert_int_equal(row->n_prompt, 1);
    assert_string_equal(row->prompt_text, "u");
    assert_null(row->chosen);
    ra_prefdata_close(data);
    data = open_text("{\"chosen\": \"\\n\\nHuman: q\\n\\nAssistant: \", \"rejected\": \"\\n\\nHuman: q\\n\\nAssistant: b\"}\n",
                     "prompts");
    assert_string_equal(ra_prefdata_schema(data), "hh");
    row = next(data, &status);
    assert_int_equal(status, RA_ROW_OK); /* an empty response does not matter here */
    assert_string_equal(row->prompt_text, "q");
    ra_prefdata_close(data);
}

static void test_files_refused(void **state)
{
    (void)state;
    fails("/nonexistent/rows.jsonl", "auto", RA_ERR_IO, "No such file");

    char *pipe_path = textfile_path("pipe"); /* would lose what was read to recognise the schema */
    assert_int_equal(mkfifo(pipe_path, 0600), 0);
    fails(pipe_path, "auto", RA_ERR_IO, "a pipe or device; every rank and stage reads the data anew");
    free(pipe_path);
    fails_text("", RA_ERR_DATA, "no rows in the file");
    fails_text("\n \n", RA_ERR_DATA, "no rows in the file");
    fails_text("{\"a\": 1, \"b\": 2}\n", RA_ERR_FORMAT,
               "the schema is not recognised from the keys: a, b; known schemas: pairs {prompt");
    fails_text("{}\n", RA_ERR_FORMAT, "from the keys: none");
    fails_text("hello\n", RA_ERR_FORMAT, "none of the first 1 rows is a JSON object (not JSON");
    fails_text("3\n4\n", RA_ERR_FORMAT, "none of the first 2 rows is a JSON object (another kind of value)");
    fails_text("\x28\xb5\x2f\xfd....", RA_ERR_IO, "damaged zstd data");
    fails_text("PAR1....", RA_ERR_UNSUPPORTED, "Parquet; convert it to JSON Lines");
    fails_text("\xff\xfe{", RA_ERR_UNSUPPORTED, "UTF-16");
    fails_text("{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"b\"}\n\noops\n", RA_ERR_DATA,
               ":3: row 2: not JSON: invalid token at byte 4; malformed rows: 1, more than data.malformed_limit = 0");
    assert_null(strstr(ra_error_message(), "oops")); /* texts may be harmful: never quoted */
}

static void test_schema_name_refused(void **state)
{
    (void)state;
    const char *path = "x";
    ra_prefdata *data;
    assert_int_equal(ra_prefdata_open(&path, 1, "pair", 0, &data), RA_ERR_ARG);
    assert_in(
        ra_error_message(),
        "data.schema: 'pair' is not known; give auto, pairs, hh, pku, responses, sharegpt, stackexchange, labelled or prompts");
    assert_int_equal(ra_prefdata_open(NULL, 0, "auto", 0, &data), RA_ERR_ARG);
    assert_in(ra_error_message(), "data.path: no file was given");
}

/* A file of `rows` rows: odd lengths, some blank lines, a few bad rows. */
static ra_buf many_rows(int rows)
{
    ra_buf out = {0};
    for (int i = 0; i < rows; i++) {
        if (i % 17 == 3) ra_buf_adds(&out, "\n");
        if (i % 53 == 7) {
            ra_buf_adds(&out, "{\"prompt\": 1}\n");
            continue;
        }
        ra_buf_addf(&out, "{\"prompt\": \"p%d\", \"chosen\": \"", i);
        int filler = i == 100 ? 3 << 20 : i * 37 % 400; /* one line longer than the buffer */
        for (int k = 0; k < filler; k++) ra_buf_adds(&out, "x");
        ra_buf_addf(&out, "c\", \"rejected\": \"r%d\"}\n", i);
    }
    out.length--; /* no line end at the end of the file */
    return out;
}

static void check_partition(const char *path, int rows)
{
    unsigned char *seen = ra_calloc((size_t)rows, 1);
    for (int ranks = 1; ranks <= 4; ranks++) {
        memset(seen, 0, (size_t)rows);
        int64_t used = 0, malformed = 0;
        for (int rank = 0; rank < ranks; rank++) {
            ra_prefdata *data = open_one(path, "auto", 1000);
            const ra_row *row;
            ra_row_status status;
            bool more;
            int64_t before = -1;
            for (;;) {
                assert_int_equal(ra_prefdata_next(data, rank, ranks, 8, &row, &status, &more), RA_OK);
                if (!more) break;
                assert_true(row->id > before && row->id < rows && row->id / 8 % ranks == rank);
                before = row->id;
                seen[row->id]++;
                assert_int_equal(status, row->id % 53 == 7 ? RA_ROW_MALFORMED : RA_ROW_OK);
                if (status != RA_ROW_OK) continue;
                char name[32];
                snprintf(name, sizeof name, "p%d", (int)row->id);
                assert_string_equal(row->prompt_text, name);
                if (row->id == 100) assert_int_equal(strlen(row->chosen), (3 << 20) + 1);
            }
            assert_int_equal(ra_prefdata_counts(data)->rows, rows);
            used += ra_prefdata_counts(data)->used;
            malformed += ra_prefdata_counts(data)->malformed;
            ra_prefdata_close(data);
        }
        for (int i = 0; i < rows; i++) assert_int_equal(seen[i], 1);
        assert_int_equal(used + malformed, rows);
    }
    ra_free(seen);
}

static void test_shares_and_gzip(void **state)
{
    (void)state;
    enum { ROWS = 20011 };
    ra_buf text = many_rows(ROWS);
    char *plain = textfile_write("many.jsonl", text.data, text.length),
         *gz = textfile_write_gz("many.jsonl.gz", text.data, text.length);
    check_partition(plain, ROWS);
    check_partition(gz, ROWS);

    FILE *file = fopen(gz, "rb");
    char *bytes = malloc(1 << 22);
    size_t n = fread(bytes, 1, 1 << 22, file);
    fclose(file);
    char *cut = textfile_write("cut.jsonl.gz", bytes, n / 2);
    const char *path = cut;
    ra_prefdata *data = open_one(path, "pairs", 100000);
    ra_err err = RA_OK;
    bool more = true;
    while (err == RA_OK && more) {
        const ra_row *row;
        ra_row_status status;
        err = ra_prefdata_next(data, 0, 1, 1, &row, &status, &more);
    }
    assert_int_equal(err, RA_ERR_IO);
    assert_in(ra_error_message(), "cut.jsonl.gz: damaged or incomplete gzip data");
    ra_prefdata_close(data);
    free(cut);

    const char *both[] = {plain, gz}; /* two files are one */
    assert_int_equal(ra_prefdata_open(both, 2, "auto", 100000, &data), RA_OK);
    ra_prefdata_set_limits(data, ROWS + 5, 1 << 20);
    int64_t rows = 0;
    const ra_row *row;
    ra_row_status status;
    while (ra_prefdata_next(data, 0, 1, 1, &row, &status, &more) == RA_OK && more) {
        assert_int_equal(row->id, rows++);
        if (row->id == 100) {
            assert_int_equal(status, RA_ROW_MALFORMED);
            assert_string_equal(row->why, "many.jsonl:107: longer than data.row_limit = 1048576 bytes");
        } else if (status == RA_ROW_OK) {
            assert_int_equal(strtol(row->prompt_text + 1, NULL, 10), row->id % ROWS);
        }
    }
    assert_int_equal(rows, ROWS + 5);
    ra_prefdata_close(data);
    free(bytes);
    free(plain);
    free(gz);
    ra_buf_free(&text);
}

static void test_row_limit_at_the_end(void **state)
{
    (void)state;
    ra_buf text = {0};
    ra_buf_adds(&text, "\xef\xbb\xbf{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"b\"}\n\"");
    for (int i = 0; i < 5 << 20; i++) ra_buf_adds(&text, "y");
    char *path = textfile_write("long.jsonl", text.data, text.length);
    ra_prefdata *data = open_one(path, "auto", 10);
    ra_prefdata_set_limits(data, 0, 1 << 21);
    ra_row_status status;
    assert_row(next(data, &status), 1, "p", "a", "b");
    assert_non_null(next(data, &status));
    assert_int_equal(status, RA_ROW_MALFORMED);
    assert_null(next(data, &status));
    ra_prefdata_close(data);
    ra_buf_free(&text);
    free(path);
}

static void test_settings(void **state)
{
    (void)state;
    char *path = textfile_write_text("s.jsonl", "{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"b\"}\n{}\n{}\n");
    ra_settings *s = ra_settings_new();
    ra_prefdata *data;
    assert_int_equal(ra_prefdata_open_settings(s, &data), RA_ERR_ARG);
    assert_in(ra_error_message(), "data.path");
    assert_int_equal(ra_set_put(s, "data.path", path), RA_OK);
    assert_int_equal(ra_set_put(s, "data.limit", "1"), RA_OK);
    assert_int_equal(ra_prefdata_open_settings(s, &data), RA_OK);
    ra_row_status status;
    assert_non_null(next(data, &status));
    assert_null(next(data, &status));
    ra_prefdata_close(data);
    free(path);

    ra_settings_free(s);
}

static void check_shared(const char *name, const char *schema, int64_t rows, int64_t skipped)
{
    char *path = textfile_shared(name);
    if (!path) skip();
    ra_prefdata *data = open_one(path, "auto", 0);
    assert_string_equal(ra_prefdata_schema(data), schema);
    ra_row_status status;
    while (next(data, &status)) assert_int_not_equal(status, RA_ROW_MALFORMED);
    assert_int_equal(ra_prefdata_counts(data)->rows, rows);
    assert_int_equal(ra_prefdata_counts(data)->skipped, skipped);
    ra_prefdata_close(data);
    free(path);
}

static void test_shared_hh(void **state)
{
    (void)state;
    check_shared("data/preference/hh-rlhf/harmless-base.part.jsonl.gz", "hh", 1156, 4); /* four empty responses */
}

static void test_shared_pairs(void **state)
{
    (void)state;
    check_shared("data/preference/pku-saferlhf/pku_saferlhf_pairs.jsonl", "pairs", 2537, 0);
}

static void test_shared_full_schema(void **state)
{
    (void)state;
    check_shared("data/preference/pku-saferlhf/pku_saferlhf_fullschema_5rows.jsonl", "pku", 5, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_pair_refusals),
        cmocka_unit_test(test_hh),
        cmocka_unit_test(test_pku),
        cmocka_unit_test(test_responses),
        cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_files_refused),
        cmocka_unit_test(test_schema_name_refused),
        cmocka_unit_test(test_shares_and_gzip),
        cmocka_unit_test(test_row_limit_at_the_end),
        cmocka_unit_test(test_settings),
        cmocka_unit_test(test_shared_hh),
        cmocka_unit_test(test_shared_pairs),
        cmocka_unit_test(test_shared_full_schema),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, textfile_cleanup);
}
