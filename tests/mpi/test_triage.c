/* The triage stage on 1 to `size` ranks: byte-identical triage.jsonl, identical datasets, reuse, refusals, clear ends. */
#include "../support/support.h"

#include <realign/file.h>
#include <realign/h5.h>
#include <realign/log.h>
#include <realign/mem.h>
#include <realign/stage.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ROWS = 1000 };

static const char policy[] =
    "name: brief\nrules:\n  - {name: no-hedge, forbid: {contains: perhaps}}\n"
    "  - {name: brief, require: {words: {max: 5}}}\n  - {name: law, category: law, forbid: {contains: sue}}\n";

/* Row i's responses, so that all actions, both kinds of unusable rows and two categories occur. */
static void add_row(ra_buf *out, int i)
{
    static const char *const texts[] = {"yes it is", "perhaps it is so", "one two three four five six seven", "they sue"};
    if (i % 97 == 13) {
        ra_buf_adds(out, "{\"prompt\": 7}\n");
    } else if (i % 89 == 11) {
        ra_buf_adds(out, "{\"prompt\": \"q\", \"chosen\": \"\", \"rejected\": \"b\"}\n");
    } else {
        ra_buf_addf(out, "{\"prompt\": \"q%d\", \"chosen\": \"%s\", \"rejected\": \"%s\"", i, texts[i * 7 % 4],
                    texts[i * 13 / 4 % 4]);
        if (i % 3) ra_buf_addf(out, ", \"category\": \"%s\"", i % 3 == 1 ? "law" : "zoo \\\"life\\\"");
        ra_buf_adds(out, "}\n");
    }
}

static ra_err write_inputs(const ra_comm *world, const char *dir, int n)
{
    ra_err err = RA_OK;
    if (world->rank == 0) {
        ra_buf rows = {0};
        for (int i = 0; i < n; i++) add_row(&rows, i);
        char *data = ra_path_join(dir, "rows.jsonl"), *rules = ra_path_join(dir, "policy.yaml");
        err = ra_file_write(data, rows.data, rows.length);
        if (err == RA_OK) err = ra_file_write(rules, policy, strlen(policy));
        free(data);
        free(rules);
        ra_buf_free(&rows);
    }
    return ra_comm_agree(world, err);
}

static ra_settings *settings_for(const char *dir, const char *run)
{
    ra_settings *s = ra_settings_new();
    char *data = ra_path_join(dir, "rows.jsonl"), *rules = ra_path_join(dir, "policy.yaml"), *out = ra_path_join(dir, run);
    if (ra_set_put(s, "data.path", data) != RA_OK || ra_set_put(s, "policy", rules) != RA_OK ||
        ra_set_put(s, "run.dir", out) != RA_OK) {
        ra_die("%s", ra_error_message());
    }
    free(data);
    free(rules);
    free(out);
    return s;
}

static ra_buf read_output(const ra_settings *s, const char *name)
{
    ra_buf text = {0};
    char *path = ra_path_join(ra_set_text(s, "run.dir"), name);
    if (ra_file_read(path, &text) != RA_OK) ra_die("%s", ra_error_message());
    free(path);
    return text;
}

/* Checksums of the columns: equal where every value is. */
static const char *compare_h5(const ra_settings *a, const ra_settings *b)
{
    static const char *const names[] = {"/sample_id", "/c_w", "/c_l", "/action", "/status", "/rule_w", "/rule_l", "/category"};
    ra_h5 *file[2];
    const ra_settings *s[2] = {a, b};
    for (int k = 0; k < 2; k++) {
        char *path = ra_path_join(ra_set_text(s[k], "run.dir"), "triage.h5");
        MPI_EXPECT_OK(ra_h5_open(path, NULL, &file[k]));
        MPI_EXPECT_OK(ra_h5_verify_all(file[k]));
        free(path);
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int64_t value[2][ROWS];
        for (int k = 0; k < 2; k++) MPI_EXPECT_OK(ra_h5_read(file[k], names[i], H5T_NATIVE_INT64, 0, -1, value[k]));
        MPI_EXPECT(memcmp(value[0], value[1], sizeof value[0]) == 0, "%s differs between rank counts", names[i]);
    }
    int64_t invert, punish, retain, skipped, malformed;
    MPI_EXPECT_OK(ra_h5_read_attr_i64(file[0], "/", "n_invert", &invert));
    MPI_EXPECT_OK(ra_h5_read_attr_i64(file[0], "/", "n_punish", &punish));
    MPI_EXPECT_OK(ra_h5_read_attr_i64(file[0], "/", "n_retain", &retain));
    MPI_EXPECT_OK(ra_h5_read_attr_i64(file[0], "/", "n_skipped", &skipped));
    MPI_EXPECT_OK(ra_h5_read_attr_i64(file[0], "/", "n_malformed", &malformed));
    MPI_EXPECT(invert > 50 && punish > 50 && retain > 50 && skipped == 12 && malformed == 11, "counts %d %d %d %d %d",
               (int)invert, (int)punish, (int)retain, (int)skipped, (int)malformed);
    MPI_EXPECT(invert + punish + retain + skipped + malformed == ROWS, "rows are missing");
    for (int k = 0; k < 2; k++) ra_h5_close(file[k]);
    return NULL;
}

static const char *same_on_any_rank_count(const ra_comm *world)
{
    char *dir = test_mpi_dir_make(world);
    MPI_EXPECT_OK(write_inputs(world, dir, ROWS));
    ra_settings *one = settings_for(dir, "run1");
    const char *message = NULL;
    for (int size = 1; size <= world->size && !message; size++) {
        ra_comm part = {MPI_COMM_NULL, 0, size};
        RA_MPI(MPI_Comm_split(world->comm, world->rank < size, world->rank, &part.comm));
        part.rank = world->rank;
        char run[16];
        snprintf(run, sizeof run, "run%d", size);
        ra_settings *s = settings_for(dir, run);
        ra_err err = world->rank < size ? ra_stage_triage(s, &part) : RA_OK;
        if (err != RA_OK) message = test_message("%d ranks: %s", size, ra_error_message());
        if (err == RA_OK && world->rank == 0) {
            ra_buf a = read_output(one, "triage.jsonl"), b = read_output(s, "triage.jsonl");
            if (a.length != b.length || memcmp(a.data, b.data, a.length))
                message = test_message("%d ranks: triage.jsonl differs", size);
            if (!strstr(a.data, "\n{\"id\":11,\"c_w\":null,\"c_l\":null,\"action\":\"skipped\",\"rule_w\":null,\"rule_l\":null,"
                                "\"category\":null}\n") ||
                !strstr(a.data, "\n{\"id\":13,\"c_w\":null,\"c_l\":null,\"action\":\"malformed\"") ||
                !strstr(
                    a.data,
                    "{\"id\":0,\"c_w\":1,\"c_l\":1,\"action\":\"retain\",\"rule_w\":null,\"rule_l\":null,\"category\":null}\n") ||
                !strstr(a.data, "\"rule_w\":\"no-hedge\"") || !strstr(a.data, "\"category\":\"zoo \\\"life\\\"\"")) {
                message = "triage.jsonl does not hold the expected rows";
            }
            if (!message) message = compare_h5(one, s);
            ra_buf_free(&a);
            ra_buf_free(&b);
        }
        RA_MPI(MPI_Comm_free(&part.comm));
        ra_settings_free(s);
        ra_err all = ra_comm_agree(world, message ? ra_fail(RA_ERR_DATA, "%s", message) : RA_OK);
        if (all != RA_OK && !message) message = "another rank failed";
    }
    ra_settings_free(one);
    test_mpi_dir_remove(world, dir);
    return message;
}

static time_t changed_at(const ra_settings *s, const char *name, ino_t *inode)
{
    char *path = ra_path_join(ra_set_text(s, "run.dir"), name);
    struct stat info = {0};
    stat(path, &info);
    free(path);
    *inode = info.st_ino;
    return info.st_mtime;
}

static const char *reuse(const ra_comm *world)
{
    char *dir = test_mpi_dir_make(world);
    MPI_EXPECT_OK(write_inputs(world, dir, ROWS));
    ra_settings *s = settings_for(dir, "run");
    CHECK_OK(ra_set_put(s, "run.resume", "must"));
    MPI_EXPECT(ra_stage_triage(s, world) == RA_ERR_DATA && strstr(ra_error_message(), "run.resume is must") &&
                   strstr(ra_error_message(), "there is none yet"),
               "must without files: %s", ra_error_message());
    CHECK_OK(ra_set_put(s, "run.resume", "auto"));
    MPI_EXPECT_OK(ra_stage_triage(s, world));
    ino_t first, second;
    changed_at(s, "triage.h5", &first);
    MPI_EXPECT_OK(ra_stage_triage(s, world));
    changed_at(s, "triage.h5", &second);
    MPI_EXPECT(first == second, "an up-to-date file was made again");
    RA_MPI(MPI_Barrier(world->comm));
    CHECK_OK(ra_set_put(s, "data.limit", "500"));
    CHECK_OK(ra_set_put(s, "run.resume", "must"));
    MPI_EXPECT(ra_stage_triage(s, world) == RA_ERR_DATA && strstr(ra_error_message(), "it was made from data"),
               "must with another key: %s", ra_error_message());
    CHECK_OK(ra_set_put(s, "run.resume", "auto"));
    MPI_EXPECT_OK(ra_stage_triage(s, world));
    ra_buf text = read_output(s, "triage.jsonl");
    int lines = 0;
    for (size_t i = 0; i < text.length; i++) lines += text.data[i] == '\n';
    MPI_EXPECT(lines == 500, "%d lines with data.limit = 500", lines);
    ra_buf_free(&text);
    CHECK_OK(ra_set_put(s, "data.held_out", "0.5"));
    MPI_EXPECT_OK(ra_stage_triage(s, world));
    text = read_output(s, "triage.jsonl");
    MPI_EXPECT(strstr(text.data, "\"action\":\"held_out\""), "no held-out rows");
    ra_buf_free(&text);
    ra_settings_free(s);
    test_mpi_dir_remove(world, dir);
    return NULL;
}

static const char *clear_ends(const ra_comm *world)
{
    char *dir = test_mpi_dir_make(world);
    MPI_EXPECT_OK(write_inputs(world, dir, ROWS));
    ra_settings *s = settings_for(dir, "run");
    CHECK_OK(ra_set_put(s, "data.malformed_limit", "9")); /* there are 11, shared among the ranks */
    MPI_EXPECT(ra_stage_triage(s, world) == RA_ERR_DATA && strstr(ra_error_message(), "data.malformed_limit = 9"), "limit: %s",
               ra_error_message());
    CHECK_OK(ra_set_put(s, "data.malformed_limit", "11"));
    if (world->rank == world->size - 1) CHECK_OK(ra_set_put(s, "data.path", "/nonexistent.jsonl"));
    MPI_EXPECT(ra_stage_triage(s, world) == RA_ERR_IO && strstr(ra_error_message(), "/nonexistent.jsonl"), "one rank's file: %s",
               ra_error_message());
    ra_settings_free(s);
    s = settings_for(dir, "run");
    CHECK_OK(ra_set_put(s, "run.dir", "/proc/nowhere"));
    MPI_EXPECT(ra_stage_triage(s, world) == RA_ERR_IO && strstr(ra_error_message(), "/proc/nowhere"), "run.dir: %s",
               ra_error_message());
    ra_settings_free(s);
    test_mpi_dir_remove(world, dir);
    return NULL;
}

/* Rank 0 reads a file; what the settings of rank 0 say reaches all ranks. */
static const char *settings_are_shared(const ra_comm *world)
{
    ra_settings *s = ra_settings_new();
    if (world->rank == 0) {
        CHECK_OK(ra_set_put(s, "data.path", "[a.jsonl, b.jsonl]"));
        CHECK_OK(ra_set_put(s, "train.lr", "3e-5"));
        CHECK_OK(ra_set_put(s, "model", "some/model"));
    }
    ra_settings_share(s, world);
    const char *const *items;
    MPI_EXPECT(ra_set_list(s, "data.path", &items) == 2 && strcmp(items[1], "b.jsonl") == 0, "data.path");
    MPI_EXPECT(ra_set_real(s, "train.lr") == 3e-5 && ra_set_given(s, "train.lr") && !ra_set_given(s, "beta"), "train.lr");
    MPI_EXPECT(strcmp(ra_set_text(s, "reference"), "some/model") == 0, "reference");
    ra_settings_free(s);
    return NULL;
}

int main(int argc, char **argv)
{
    const test_mpi tests[] = {
        {"triage is the same on any rank count", same_on_any_rank_count},
        {"finished files are reused when they fit", reuse},
        {"errors end on all ranks", clear_ends},
        {"settings reach all ranks", settings_are_shared},
    };
    return test_mpi_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
