/* Preference data in the forms files have: JSON arrays, .gz and .zst, folders of shards; damaged ones; weights and caps; rows that repeat or are empty; the
 * held-out split by prompt. */
#include "support/support.h"

#include <realign/file.h>
#include <realign/mem.h>
#include <realign/prefdata.h>
#include <support/textfile.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define ROW(p, c, r) "{\"prompt\": \"" p "\", \"chosen\": \"" c "\", \"rejected\": \"" r "\"}"

/* Every row of the files, or the first error; the hash says all that the rows hold. */
typedef struct {
    ra_err err;
    int64_t rows, used, malformed, last_line;
    uint64_t hash;
} summary;

static summary read_paths(const char *const *paths, int n, int rank, int ranks)
{
    summary sum = {0};
    ra_prefdata *data;
    sum.err = ra_prefdata_open(paths, n, "auto", 1000, &data);
    if (sum.err != RA_OK) return sum;
    for (bool more = true;;) {
        const ra_row *row;
        ra_row_status status;
        sum.err = ra_prefdata_next(data, rank, ranks, 4, &row, &status, &more);
        if (sum.err != RA_OK || !more) break;
        sum.hash = sum.hash * 31 + row->hash.low + (uint64_t)row->id * (uint64_t)(status + 1);
        sum.last_line = row->line;
    }
    sum.rows = ra_prefdata_counts(data)->rows;
    sum.used = ra_prefdata_counts(data)->used;
    sum.malformed = ra_prefdata_counts(data)->malformed;
    ra_prefdata_close(data);
    return sum;
}

static summary read_one(char *path)
{
    const char *paths[] = {path};
    summary sum = read_paths(paths, 1, 0, 1);
    free(path);
    return sum;
}

static summary read_text(const char *text)
{
    return read_one(textfile_write_text("rows", text));
}

/* Rows as lines, and as an array with line ends and blanks wherever JSON allows them. */
static void make_rows(ra_buf *lines, ra_buf *array, int n)
{
    ra_buf_adds(array, "\xef\xbb\xbf \n[");
    for (int i = 0; i < n; i++) {
        ra_buf row = {0};
        ra_buf_addf(&row, "{\"prompt\": \"p%d \\\"]},[{\\\\\", %s\"chosen\": \"", i, i % 3 ? "" : " \n ");
        for (int k = i == 7 ? 3 << 20 : i * 37 % 900; k > 0; k--) ra_buf_adds(&row, i % 2 ? "x" : "\\\\");
        ra_buf_addf(&row, "c\", \"rejected\": \"r\", \"extra\": [{\"a\": [1, {}]}, \"\\u00e9\", null]}");
        ra_buf_addf(array, "%s%s", i ? ",\n" : "", i % 5 ? "" : "\t \r\n");
        ra_buf_add(array, row.data, row.length);
        for (size_t k = 0; k < row.length; k++) {
            if (row.data[k] == '\n') row.data[k] = ' ';
        }
        ra_buf_add(lines, row.data, row.length);
        ra_buf_adds(lines, i % 4 ? "\n" : "\r\n");
        ra_buf_free(&row);
    }
    ra_buf_adds(array, "\n]\n\n");
}

static void test_same_in_every_form(void **state)
{
    (void)state;
    enum { ROWS = 3000 };
    ra_buf lines = {0}, array = {0};
    make_rows(&lines, &array, ROWS);
    summary want = read_one(textfile_write("a.jsonl", lines.data, lines.length));
    assert_int_equal(want.used, ROWS);
    char *paths[] = {textfile_write("a.json", array.data, array.length), textfile_write_gz("b.json", array.data, array.length),
                     textfile_write_zst("c.json", array.data, array.length),
                     textfile_write_zst("d.jsonl", lines.data, lines.length), textfile_write_gz("e", lines.data, lines.length)};
    for (int i = 0; i < 5; i++) {
        const char *one[] = {paths[i]};
        summary got = read_paths(one, 1, 0, 1);
        if (got.err != RA_OK) fail_msg("%s", ra_error_message());
        assert_int_equal(got.used, ROWS);
        assert_true(got.hash == want.hash);
        int64_t used = 0;
        for (int rank = 0; rank < 3; rank++) used += read_paths(one, 1, rank, 3).used;
        assert_int_equal(used, ROWS);
    }
    char *twice = textfile_path("twice.zst"); /* frames, or members, one after the other are one text */
    ra_buf bytes = {0};
    CHECK_OK(ra_file_read(paths[3], &bytes));
    CHECK_OK(ra_file_read(paths[3], &bytes));
    CHECK_OK(ra_file_write(twice, bytes.data, bytes.length));
    assert_int_equal(read_one(twice).used, 2 * ROWS);
    for (int i = 0; i < 5; i++) free(paths[i]);
    ra_buf_free(&bytes);
    ra_buf_free(&lines);
    ra_buf_free(&array);
}

/* Members of a gzip file, one after the other: no row is lost in silence, whatever stands where one should begin. */
static void test_gzip_members(void **state)
{
    (void)state;
    static const char row[] = ROW("p", "a", "b") "\n";
    char *one = textfile_write_gz("one.gz", row, sizeof row - 1), *path = textfile_path("members.gz");
    const char *file_path = path;
    ra_buf file = {0};
    CHECK_OK(ra_file_read(one, &file));
    const size_t first = file.length;
    CHECK_OK(ra_file_read(one, &file));
    const size_t both = file.length;
    CHECK_OK(ra_file_write(path, file.data, both));
    assert_int_equal(read_paths(&file_path, 1, 0, 1).used, 2);
    static const char padding[5000];
    ra_buf_add(&file, padding, sizeof padding);
    CHECK_OK(ra_file_write(path, file.data, file.length));
    assert_int_equal(read_paths(&file_path, 1, 0, 1).used, 2);
    static const char no_member[] = "members.gz: damaged gzip data: the bytes after a member are no gzip member";
    ra_buf_add(&file, file.data, first); /* after padding */
    CHECK_OK(ra_file_write(path, file.data, file.length));
    check_fails(read_paths(&file_path, 1, 0, 1).err, RA_ERR_IO, no_member, NULL);
    for (int byte = 0; byte < 3; byte++) { /* what tells a member: 1f 8b, deflate */
        file.data[first + (size_t)byte] ^= 0x40;
        CHECK_OK(ra_file_write(path, file.data, both));
        check_fails(read_paths(&file_path, 1, 0, 1).err, RA_ERR_IO,
                    byte ? "members.gz: damaged or incomplete gzip data" : no_member, NULL);
        file.data[first + (size_t)byte] ^= 0x40;
    }
    for (size_t n = first + 1; n < both; n++) {
        CHECK_OK(ra_file_write(path, file.data, n));
        check_fails(read_paths(&file_path, 1, 0, 1).err, RA_ERR_IO,
                    "members.gz: damaged or incomplete gzip data (the file ends inside a member)", NULL);
    }
    ra_buf_free(&file);
    free(path);
    free(one);
}

static void test_damaged(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words, *more;
    } bad[] = {
        {"[" ROW("p", "a", "b"), "rows:1: the JSON array is not closed", "element that begins here"},
        {"[" ROW("p", "a", "b") ",\n\n{\"prompt\": \"x", "after row 1: ", "rows:3: the JSON array is not closed"},
        {"[" ROW("p", "a", "b") "]\n\n{}", "after row 1: ", "rows:3: text follows the JSON array"},
        {"[" ROW("p", "a", "b") "] [", "text follows", "one array"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        check_fails(read_text(bad[i].text).err, RA_ERR_FORMAT, bad[i].words, bad[i].more, NULL);
    summary sum =
        read_text("[" ROW("p", "a", "b") ", {]}, 7, {\"prompt\": 1}, , " ROW("p", "a", "b") ",]"); /* bad elements are bad rows */
    assert_int_equal(sum.err, RA_OK);
    assert_int_equal(sum.used, 2);
    assert_int_equal(sum.malformed, 4);
    check_fails(read_text("[]").err, RA_ERR_DATA, "no rows", NULL);
    check_fails(read_text(" [ \n ] ").err, RA_ERR_DATA, "no rows", NULL);

    ra_buf deep = {0}, lines = {0}, array = {0}, bytes = {0};
    ra_buf_adds(&deep, "[");
    for (int i = 0; i < 100000; i++) ra_buf_adds(&deep, "[");
    for (int i = 0; i < 100000; i++) ra_buf_adds(&deep, "]");
    ra_buf_adds(&deep, ", " ROW("p", "a", "b") "]");
    sum = read_one(textfile_write("deep", deep.data, deep.length));
    assert_true(sum.err == RA_OK && sum.used == 1 && sum.malformed == 1);

    make_rows(&lines, &array, 40);
    char *path = textfile_write_zst("whole.zst", lines.data, lines.length);
    CHECK_OK(ra_file_read(path, &bytes));
    free(path);
    check_fails(read_one(textfile_write("cut.zst", bytes.data, bytes.length - 5)).err, RA_ERR_IO, "cut.zst: incomplete zstd data",
                NULL);
    bytes.data[bytes.length / 2] ^= 0x55;
    check_fails(read_one(textfile_write("bad.zst", bytes.data, bytes.length)).err, RA_ERR_IO, "bad.zst: damaged zstd data", NULL);
    ra_buf_free(&bytes);
    ra_buf_free(&deep);
    ra_buf_free(&lines);
    ra_buf_free(&array);
}

static void test_row_limit_in_an_array(void **state)
{
    (void)state;
    ra_buf array = {0};
    ra_buf_adds(&array, "[" ROW("p", "a", "b") ",\n{\"prompt\": \"");
    for (int i = 0; i < 3 << 20; i++) ra_buf_adds(&array, i % 100 ? "y" : ",");
    ra_buf_adds(&array, "\"},\n" ROW("p", "a", "c") "]");
    char *path = textfile_write("long.json", array.data, array.length);
    const char *paths[] = {path};
    ra_prefdata *data;
    CHECK_OK(ra_prefdata_open(paths, 1, "auto", 1, &data));
    ra_prefdata_set_limits(data, 0, 1 << 20);
    const ra_row *row;
    ra_row_status status;
    bool more;
    for (int i = 0; i < 3; i++) {
        CHECK_OK(ra_prefdata_next(data, 0, 1, 1, &row, &status, &more));
        assert_true(more && row->line == i + 1 && status == (i == 1 ? RA_ROW_MALFORMED : RA_ROW_OK));
    }
    assert_string_equal(row->rejected, "c");
    ra_prefdata_close(data);
    ra_buf_free(&array);
    free(path);
}

static void test_folders(void **state)
{
    (void)state;
    char *dir = textfile_path("shards");
    const char *paths[] = {dir};
    assert_int_equal(mkdir(dir, 0700), 0);
    check_fails(read_paths(paths, 1, 0, 1).err, RA_ERR_IO, "shards: a folder without data files", NULL);
    free(textfile_write_text("shards/b.json", "[" ROW("2", "a", "b") "," ROW("3", "a", "b") "]"));
    free(textfile_write_gz("shards/a.jsonl.gz", ROW("0", "a", "b") "\n" ROW("1", "a", "b") "\n",
                           2 * strlen(ROW("0", "a", "b")) + 2));
    free(textfile_write_zst("shards/part-00002", ROW("4", "a", "b"), strlen(ROW("4", "a", "b"))));
    static const char *const others[] = {"shards/README.md", "shards/.hidden", "shards/_SUCCESS", "shards/dataset_info.json"};
    for (int i = 0; i < 4; i++) free(textfile_write_text(others[i], "no data"));
    ra_prefdata *data;
    CHECK_OK(ra_prefdata_open(paths, 1, "auto", 0, &data));
    for (int i = 0; i < 5; i++) {
        const ra_row *row;
        ra_row_status status;
        bool more;
        CHECK_OK(ra_prefdata_next(data, 0, 1, 1, &row, &status, &more));
        assert_true(more && row->id == i && atoi(row->prompt_text) == i);
    }
    ra_prefdata_close(data);
    free(textfile_write("shards/z.parquet", "PAR1....", 8));
    check_fails(read_paths(paths, 1, 0, 1).err, RA_ERR_UNSUPPORTED, "z.parquet: the file is Parquet", NULL);
    free(dir);
}

static ra_settings *settings_for(const char *first, const char *second)
{
    ra_settings *s = ra_settings_new();
    const char *paths[] = {first, second};
    CHECK_OK(ra_set_put_list(s, "data.path", paths, second ? 2 : 1));
    return s;
}

/* Which of the rows [0, n) are used. */
static int64_t used_rows(const ra_settings *s, bool *used, int n)
{
    ra_prefdata *data;
    CHECK_OK(ra_prefdata_open_settings(s, &data));
    for (int i = 0; i < n; i++) used[i] = false;
    for (;;) {
        const ra_row *row;
        ra_row_status status;
        bool more;
        CHECK_OK(ra_prefdata_next(data, 0, 1, 1, &row, &status, &more));
        if (!more) break;
        assert_true(row->id < n);
        used[row->id] = status == RA_ROW_OK;
        assert_true(status == RA_ROW_OK || row->problem == RA_PROBLEM_NOT_DRAWN);
    }
    int64_t count = ra_prefdata_counts(data)->used;
    assert_int_equal(count + ra_prefdata_counts(data)->problem[RA_PROBLEM_NOT_DRAWN], ra_prefdata_counts(data)->rows);
    ra_prefdata_close(data);
    return count;
}

static void test_weights_and_caps(void **state)
{
    (void)state;
    enum { ROWS = 4000 };
    ra_buf text = {0};
    for (int i = 0; i < ROWS; i++) ra_buf_addf(&text, "{\"prompt\": \"p%d\", \"chosen\": \"a\", \"rejected\": \"b\"}\n", i);
    char *a = textfile_write("a.jsonl", text.data, text.length), *b = textfile_write("b.jsonl", text.data, text.length);
    bool used[2 * ROWS], other[2 * ROWS];
    ra_settings *s = settings_for(a, b);
    CHECK_OK(ra_set_put(s, "data.weights", "1,0.25"));
    int64_t n = used_rows(s, used, 2 * ROWS) - ROWS;
    assert_in_range(n, 880, 1120); /* 1000 +- 4.4 standard deviations */
    for (int i = 0; i < ROWS; i++) assert_true(used[i]);
    CHECK_OK(ra_set_put(s, "data.caps", "10,0"));
    assert_int_equal(used_rows(s, other, 2 * ROWS), 10 + n);
    assert_memory_equal(other + 10, used + ROWS, ROWS); /* the draw of an entry does not depend on those before it */
    CHECK_OK(ra_set_put(s, "data.caps", "0,100"));
    assert_int_equal(used_rows(s, other, 2 * ROWS), ROWS + 100); /* the first hundred that are drawn */
    CHECK_OK(ra_set_put(s, "seed", "2"));
    CHECK_OK(ra_set_put(s, "data.caps", ""));
    used_rows(s, other, 2 * ROWS);
    assert_true(memcmp(other, used, sizeof used) != 0);
    CHECK_OK(ra_set_put(s, "data.weights", "0,1"));
    assert_int_equal(used_rows(s, other, 2 * ROWS), ROWS);
    ra_prefdata *data;
    static const char *const bad[][3] = {{"data.weights", "1", "data.weights: 1 numbers for 2 entries of data.path"},
                                         {"data.weights", "1,2", "data.weights: '2' is not accepted; give numbers from 0 to 1"},
                                         {"data.weights", "1,x", "data.weights: 'x'"},
                                         {"data.caps", "1,-3", "data.caps: '-3'"},
                                         {"data.caps", "1,0.5", "data.caps: 0.5 is not a whole number"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_OK(ra_set_put(s, "data.weights", ""));
        CHECK_OK(ra_set_put(s, "data.caps", ""));
        CHECK_OK(ra_set_put(s, bad[i][0], bad[i][1]));
        check_fails(ra_prefdata_open_settings(s, &data), RA_ERR_ARG, bad[i][2], NULL);
    }
    ra_settings_free(s);
    ra_buf_free(&text);
    free(a);
    free(b);
}

static void test_policies(void **state)
{
    (void)state;
    char *path = textfile_write_text(
        "p.jsonl", ROW("p", "a", "b") "\n" ROW("p", " a", "a\\n") "\n" ROW("p", "", "b") "\n" ROW("p", "a", "b") "\n");
    ra_settings *s = settings_for(path, NULL);
    const ra_comm alone = {MPI_COMM_SELF, 0, 1};
    static const ra_row_problem want[2][4] = {{RA_PROBLEM_NONE, RA_PROBLEM_NONE, RA_PROBLEM_EMPTY, RA_PROBLEM_NONE},
                                              {RA_PROBLEM_NONE, RA_PROBLEM_IDENTICAL, RA_PROBLEM_EMPTY, RA_PROBLEM_DUPLICATE}};
    ra_prefdata *data;
    const ra_row *row;
    ra_row_status status;
    bool more;
    for (int drop = 0; drop < 2; drop++) {
        CHECK_OK(ra_set_put(s, "data.identical", drop ? "drop" : "keep"));
        CHECK_OK(ra_set_put(s, "data.duplicates", drop ? "drop" : "keep"));
        CHECK_OK(ra_prefdata_open_settings(s, &data));
        CHECK_OK(ra_prefdata_find_duplicates(data, s, &alone));
        for (int i = 0; i < 4; i++) {
            CHECK_OK(ra_prefdata_next(data, 0, 1, 1, &row, &status, &more));
            assert_int_equal(row->problem, want[drop][i]);
            assert_int_equal(row->identical, i == 1);
        }
        assert_int_equal(ra_prefdata_counts(data)->skipped, drop ? 3 : 1);
        ra_prefdata_close(data);
    }
    static const char *const fatal[][2] = {
        {"data.identical", "p.jsonl:2: row 2: both responses are the same; data.identical is error"},
        {"data.empty", "p.jsonl:3: row 3: the chosen response is empty; data.empty is error"}};
    for (int i = 0; i < 2; i++) {
        CHECK_OK(ra_set_put(s, "data.identical", "keep"));
        CHECK_OK(ra_set_put(s, fatal[i][0], "error"));
        CHECK_OK(ra_prefdata_open_settings(s, &data));
        ra_err err = RA_OK;
        for (more = true; err == RA_OK && more;) err = ra_prefdata_next(data, 0, 1, 1, &row, &status, &more);
        check_fails(err, RA_ERR_DATA, fatal[i][1], NULL);
        ra_prefdata_close(data);
    }
    ra_settings_free(s);
    free(path);
}

/* The hash of the one row's prompt. */
static uint64_t prompt_hash(const char *text)
{
    char *path = textfile_write_text("one.jsonl", text);
    const char *paths[] = {path};
    ra_prefdata *data;
    const ra_row *row;
    ra_row_status status;
    bool more;
    CHECK_OK(ra_prefdata_open(paths, 1, "auto", 0, &data));
    CHECK_OK(ra_prefdata_next(data, 0, 1, 1, &row, &status, &more));
    assert_int_equal(status, RA_ROW_OK);
    uint64_t hash = row->prompt_hash;
    ra_prefdata_close(data);
    free(path);
    return hash;
}

#define M(role, content) "{\"role\": \"" role "\", \"content\": \"" content "\"}"
#define LIST(turns) "{\"prompt\": [" turns "], \"chosen\": \"a\", \"rejected\": \"b\"}"

static void test_prompt_hash(void **state)
{
    (void)state;
    uint64_t hash = prompt_hash(ROW("What is it?", "a", "b")), accents = prompt_hash(ROW("\\u00c9t\\u00e9\\u00a0!", "a", "b"));
    assert_true(hash == prompt_hash(ROW("  what\\r\\n IS\\tit? ", "c", "d")));
    assert_true(hash == prompt_hash(LIST(M("user", "What is it?"))));
    assert_true(accents == prompt_hash(ROW("e\\u0301te\\u0301 !", "a", "b"))); /* composed or not, another blank */
    assert_true(prompt_hash(ROW("don't\\u2014", "a", "b")) == prompt_hash(ROW("Don\\u2019t-", "a", "b")));
    assert_true(hash != prompt_hash(ROW("What is it", "a", "b")));
    assert_true(hash != prompt_hash(ROW("Whatis it?", "a", "b")));
    /* the whole conversation counts, roles and bounds of its turns with it */
    uint64_t two = prompt_hash(LIST(M("user", "x") "," M("assistant", "y") "," M("user", "What is it?")));
    assert_true(two != hash && two != prompt_hash(LIST(M("user", "z") "," M("assistant", "y") "," M("user", "What is it?"))));
    assert_true(two == prompt_hash("{\"prompt\": \"\\n\\nHuman: X\\n\\nAssistant: y\\n\\nHuman: What is it?\\n\\nAssistant:\", "
                                   "\"chosen\": \"a\", \"rejected\": \"b\"}"));
    assert_true(two != prompt_hash(LIST(M("system", "x") "," M("assistant", "y") "," M("user", "What is it?"))));
    assert_true(prompt_hash(LIST(M("user", "x") "," M("user", "y"))) != prompt_hash(LIST(M("user", "x user y"))));
}

/* A prompt in many rows is on one side, whatever stands around it; the share is that of the prompts; the seed changes the draw. */
static void test_held_out(void **state)
{
    (void)state;
    enum { PROMPTS = 4000, COPIES = 3 };
    ra_buf text = {0};
    for (int i = 0; i < PROMPTS * COPIES; i++) {
        int p = (int)((int64_t)i * 2749 % PROMPTS);
        ra_buf_addf(&text, "{\"prompt\": \"%s %d\", \"chosen\": \"a%d\", \"rejected\": \"b\"}\n",
                    i / PROMPTS ? "NUMBER" : "number ", p, i);
    }
    char *path = textfile_write("held.jsonl", text.data, text.length);
    ra_settings *s = settings_for(path, NULL);
    assert_false(ra_row_held_out(s, 3));
    bool side[2][PROMPTS];
    int64_t held[2] = {0};
    for (int seed = 0; seed < 2; seed++) {
        int seen[PROMPTS] = {0};
        CHECK_OK(ra_set_put(s, "data.held_out", "0.25"));
        CHECK_OK(ra_set_put(s, "seed", seed ? "2" : "1"));
        ra_prefdata *data;
        CHECK_OK(ra_prefdata_open_settings(s, &data));
        for (;;) {
            const ra_row *row;
            ra_row_status status;
            bool more;
            CHECK_OK(ra_prefdata_next(data, 0, 1, 1, &row, &status, &more));
            if (!more) break;
            int p = atoi(strrchr(row->prompt_text, ' '));
            bool out = ra_row_held_out(s, row->prompt_hash);
            if (seen[p]++) assert_int_equal(out, side[seed][p]);
            side[seed][p] = out;
            held[seed] += seen[p] == 1 && out;
        }
        ra_prefdata_close(data);
        for (int p = 0; p < PROMPTS; p++) assert_int_equal(seen[p], COPIES);
        assert_in_range(held[seed], 880, 1120); /* 1000 +- 4.4 standard deviations */
    }
    assert_true(memcmp(side[0], side[1], sizeof side[0]) != 0);
    ra_settings_free(s);
    ra_buf_free(&text);
    free(path);
}

int main(int argc, char **argv)
{
    ra_comm world;
    if (ra_comm_init(&argc, &argv, &world) != RA_OK) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_in_every_form),
        cmocka_unit_test(test_gzip_members),
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_row_limit_in_an_array),
        cmocka_unit_test(test_folders),
        cmocka_unit_test(test_weights_and_caps),
        cmocka_unit_test(test_policies),
        cmocka_unit_test(test_prompt_hash),
        cmocka_unit_test(test_held_out),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    int failed = cmocka_run_group_tests(tests, NULL, textfile_cleanup);
    ra_comm_finalize();
    return failed;
}
