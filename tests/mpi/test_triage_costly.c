/* Triage with oracles that cost: the same on 1 to `size` ranks, a second run asks nothing, stops that go on, the limit on what cannot be judged, combinations. */
#include "../../src/stage/triage.h"
#include "../support/support.h"

#include <realign/file.h>
#include <realign/h5.h>
#include <realign/mem.h>
#include <realign/report.h>
#include <realign/runctl.h>
#include <support/oraclemake.h>

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 700 };

static const char policy[] = "name: read\ntext: Is it so?\n";

static ra_err write_inputs(const ra_comm *world, const char *dir)
{
    ra_err err = RA_OK;
    if (world->rank == 0) {
        ra_buf rows = {0};
        for (int i = 0; i < ROWS; i++) {
            if (i % 97 == 13) {
                ra_buf_adds(&rows, "{\"prompt\": 7}\n");
            } else {
                ra_buf_addf(&rows, "{\"prompt\": \"q%d\", \"chosen\": \"chosen %d\", \"rejected\": \"rejected %d\"}\n", i, i, i);
            }
        }
        char *data = ra_path_join(dir, "rows.jsonl"), *text = ra_path_join(dir, "policy.yaml");
        err = ra_file_write(data, rows.data, rows.length);
        if (err == RA_OK) err = ra_file_write(text, policy, strlen(policy));
        free(data);
        free(text);
        ra_buf_free(&rows);
    }
    return ra_comm_agree(world, err);
}

static void put_path(ra_settings *s, const char *key, const char *dir, const char *name)
{
    char *path = ra_path_join(dir, name);
    if (ra_set_put(s, key, path) != RA_OK) ra_die("%s", ra_error_message());
    free(path);
}

static ra_settings *settings_for(const char *dir, const char *run)
{
    ra_settings *s = ra_settings_new();
    put_path(s, "data.path", dir, "rows.jsonl");
    put_path(s, "policy", dir, "policy.yaml");
    put_path(s, "run.dir", dir, run);
    return s;
}

/* Collective. Triage over costly kinds of these salts, the cache as the settings say. *asked: of all ranks and kinds. */
static ra_err triage(const ra_settings *s, const ra_comm *comm, test_costly *kind, int n, ra_combine how, int64_t *asked)
{
    static const char *const names[] = {"judge", "http", "exec"};
    ra_oracle_member m[3];
    ra_oracle *o = NULL;
    for (int i = 0; i < n; i++) m[i] = test_costly_open(&kind[i], names[i]);
    ra_err err = ra_comm_agree(comm, test_oracle_of(ra_set_text(s, "policy"), m, n, how, ra_set_text(s, "oracle.cache"), &o));
    if (err == RA_OK) err = ra_triage_with(s, comm, o);
    *asked = 0;
    for (int i = 0; i < n; i++) *asked += kind[i].asked;
    ra_comm_sum_i64(comm, asked, 1);
    return err;
}

static ra_buf read_output(const ra_settings *s, const char *name)
{
    ra_buf text = {0};
    char *path = ra_path_join(ra_set_text(s, "run.dir"), name);
    if (ra_file_read(path, &text) != RA_OK) ra_die("%s", ra_error_message());
    free(path);
    return text;
}

static const char *same_files(const ra_settings *a, const ra_settings *b)
{
    ra_buf x = read_output(a, "triage.jsonl"), y = read_output(b, "triage.jsonl");
    bool same = x.length == y.length && memcmp(x.data, y.data, x.length) == 0;
    ra_buf_free(&x);
    ra_buf_free(&y);
    MPI_EXPECT(same, "triage.jsonl differs");
    static const char *const names[] = {"/c_w", "/c_l", "/probability_w", "/probability_l", "/margin_w", "/margin_l"};
    ra_h5 *file[2];
    const ra_settings *s[2] = {a, b};
    for (int k = 0; k < 2; k++) {
        char *path = ra_path_join(ra_set_text(s[k], "run.dir"), "triage.h5");
        MPI_EXPECT_OK(ra_h5_open(path, NULL, &file[k]));
        MPI_EXPECT_OK(ra_h5_verify_all(file[k]));
        free(path);
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        double value[2][ROWS];
        for (int k = 0; k < 2; k++) MPI_EXPECT_OK(ra_h5_read(file[k], names[i], H5T_NATIVE_DOUBLE, 0, -1, value[k]));
        MPI_EXPECT(memcmp(value[0], value[1], sizeof value[0]) == 0, "%s differs", names[i]);
        MPI_EXPECT(i < 2 || isnan(value[0][13]), "%s of a row that was not judged", names[i]);
    }
    MPI_EXPECT(ra_h5_has(file[0], "/agreement") == ra_h5_has(file[1], "/agreement"), "one of them has an agreement");
    if (ra_h5_has(file[0], "/agreement")) {
        double alpha[2], kappa[2][9];
        int64_t units[2][9];
        for (int k = 0; k < 2; k++) {
            MPI_EXPECT_OK(ra_h5_read_attr_f64(file[k], "/agreement", "krippendorff_alpha", &alpha[k]));
            MPI_EXPECT_OK(ra_h5_read(file[k], "/agreement/kappa", H5T_NATIVE_DOUBLE, 0, -1, kappa[k]));
            MPI_EXPECT_OK(ra_h5_read(file[k], "/agreement/units", H5T_NATIVE_INT64, 0, -1, units[k]));
        }
        MPI_EXPECT(memcmp(&alpha[0], &alpha[1], sizeof alpha[0]) == 0 && fabs(alpha[0]) < 0.2, "alpha %.17g and %.17g", alpha[0],
                   alpha[1]);
        MPI_EXPECT(memcmp(kappa[0], kappa[1], sizeof kappa[0]) == 0 && fabs(kappa[0][1]) < 0.2 && kappa[0][0] == 1.0, "kappa");
        MPI_EXPECT(memcmp(units[0], units[1], sizeof units[0]) == 0 && units[0][1] == 2 * (ROWS - 8), "%d units",
                   (int)units[0][1]);
    }
    for (int k = 0; k < 2; k++) ra_h5_close(file[k]);
    return NULL;
}

/* What the report says of a combination with noise. */
static const char *check_report(const ra_settings *s)
{
    MPI_EXPECT_OK(ra_report_write(ra_set_text(s, "run.dir"), 0));
    ra_buf html = read_output(s, "report.html");
    static const char *const parts[] = {"majority(judge, http, exec)",
                                        "judge, http</",
                                        "http, exec</",
                                        "Cohen's kappa",
                                        "Krippendorff's alpha of the combined oracles",
                                        "Noise was added on purpose"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        MPI_EXPECT(strstr(html.data, parts[i]), "the report lacks: %s", parts[i]);
    ra_buf_free(&html);
    return NULL;
}

/* The first `size` ranks, or MPI_COMM_NULL's. */
static ra_comm part_of(const ra_comm *world, int size)
{
    ra_comm part = {MPI_COMM_NULL, world->rank, size};
    RA_MPI(MPI_Comm_split(world->comm, world->rank < size, world->rank, &part.comm));
    return part;
}

/* Noise and a combination of three with one part that cannot tell now and then; then the same again out of the cache of another rank count. */
static const char *same_on_any_rank_count(const ra_comm *world)
{
    char *dir = test_mpi_dir_make(world);
    MPI_EXPECT_OK(write_inputs(world, dir));
    const char *message = NULL;
    ra_settings *one = settings_for(dir, "run1");
    for (int size = 1; size <= world->size && !message; size++) {
        ra_comm part = part_of(world, size);
        for (int again = 0; again < 2 && !message; again++) {
            char run[32];
            snprintf(run, sizeof run, again ? "again%d" : "run%d", size);
            ra_settings *s = settings_for(dir, run);
            if (again) put_path(s, "oracle.cache", dir, "run1/verdicts");
            if (ra_set_put(s, "oracle.noise", "0.1") != RA_OK) message = "noise";
            test_costly kind[3] = {{.salt = 1, .batch = 50}, {.salt = 2}, {.salt = 3, .mute = "77"}};
            int64_t asked = 0;
            ra_err err = world->rank < size ? triage(s, &part, kind, 3, RA_COMBINE_MAJORITY, &asked) : RA_OK;
            if (err != RA_OK) {
                message = test_message("%d ranks: %s", size, ra_error_message());
            } else if (world->rank == 0) {
                int64_t mute = 0; /* only these are asked again */
                for (int i = 0; i < ROWS; i++) {
                    char digits[16];
                    snprintf(digits, sizeof digits, "%d", i);
                    mute += i % 97 != 13 && strstr(digits, "77") ? 2 : 0;
                }
                int64_t expected = again ? mute : 3 * 2 * (ROWS - 8);
                if (asked != expected) message = test_message("%d ranks: %d questions, not %d", size, (int)asked, (int)expected);
                if (!message) message = same_files(one, s);
                if (!message && size == 1) message = check_report(s);
            }
            ra_settings_free(s);
            ra_err all = ra_comm_agree(world, message ? ra_fail(RA_ERR_DATA, "%s", message) : RA_OK);
            if (all != RA_OK && !message) message = "another rank failed";
        }
        RA_MPI(MPI_Comm_free(&part.comm));
    }
    ra_settings_free(one);
    test_mpi_dir_remove(world, dir);
    return message;
}

/* ---- stops ---- */
static struct {
    int64_t after;    /* questions on this rank */
    const char *file; /* made then; NULL: a signal */
} stop;

static void stop_after(void)
{
    if (stop.after-- != 0) return;
    if (!stop.file) raise(SIGUSR1);
    if (stop.file && ra_file_write(stop.file, "", 0) != RA_OK) ra_die("%s", ra_error_message());
}

static const char *stops_go_on(const ra_comm *world)
{
    char *dir = test_mpi_dir_make(world), *file = ra_path_join(dir, "stop");
    MPI_EXPECT_OK(write_inputs(world, dir));
    for (int by_file = 0; by_file < 2; by_file++) {
        ra_settings *s = settings_for(dir, by_file ? "by-file" : "by-signal");
        CHECK_OK(ra_set_put(s, "run.stop_file", file));
        int64_t asked = 0, rest = 0;
        bool mine = world->rank == (by_file ? 0 : world->size - 1);
        stop.after = 100 / world->size;
        stop.file = by_file ? file : NULL;
        test_costly first = {.salt = 4, .batch = 32, .before = mine ? stop_after : NULL}, second = {.salt = 4, .batch = 32};
        ra_err err = triage(s, world, &first, 1, RA_COMBINE_ALL, &asked);
        MPI_EXPECT(err == RA_ERR_STOPPED && strstr(ra_error_message(), "responses judged"), "code %d: %s", err,
                   ra_error_message());
        MPI_EXPECT(asked >= 64 && asked < 2 * (ROWS - 8), "stopped after %d questions", (int)asked);
        RA_MPI(MPI_Barrier(world->comm));
        if (world->rank == 0) remove(file);
        ra_runctl_reset_flag();
        RA_MPI(MPI_Barrier(world->comm));
        MPI_EXPECT_OK(triage(s, world, &second, 1, RA_COMBINE_ALL, &rest));
        MPI_EXPECT(asked + rest == 2 * (ROWS - 8), "%d questions, then %d", (int)asked, (int)rest);
        ra_settings_free(s);
    }
    free(file);
    test_mpi_dir_remove(world, dir);
    return NULL;
}

static const char *too_many_undecided(const ra_comm *world)
{
    char *dir = test_mpi_dir_make(world);
    MPI_EXPECT_OK(write_inputs(world, dir));
    ra_settings *s = settings_for(dir, "run");
    CHECK_OK(ra_set_put(s, "oracle.undecided_limit", "149"));
    test_costly mute = {.salt = 5, .mute = "chosen 1"}; /* 110 rows whose y_w begins so, less those that are malformed */
    int64_t asked;
    MPI_EXPECT_OK(triage(s, world, &mute, 1, RA_COMBINE_ALL, &asked));
    ra_h5 *h5 = NULL;
    char *path = ra_path_join(ra_set_text(s, "run.dir"), "triage.h5");
    MPI_EXPECT_OK(ra_h5_open(path, NULL, &h5));
    int64_t undecided = -1, judged = -1;
    MPI_EXPECT_OK(ra_h5_read_attr_i64(h5, "/", "n_undecided", &undecided));
    MPI_EXPECT_OK(ra_h5_read_attr_i64(h5, "/", "n_judged_w", &judged));
    ra_h5_close(h5);
    free(path);
    MPI_EXPECT(undecided > 100 && undecided <= 111 && judged == ROWS - 8 - undecided, "%d undecided, %d judged", (int)undecided,
               (int)judged);

    char limit[16];
    snprintf(limit, sizeof limit, "%d", (int)undecided - 1);
    CHECK_OK(ra_set_put(s, "oracle.undecided_limit", limit));
    CHECK_OK(ra_set_put(s, "run.resume", "never"));
    mute = (test_costly){.salt = 5, .mute = "chosen 1"};
    ra_err err = triage(s, world, &mute, 1, RA_COMBINE_ALL, &asked);
    MPI_EXPECT(err == RA_ERR_DATA && strstr(ra_error_message(), "more than oracle.undecided_limit = ") &&
                   strstr(ra_error_message(), "the answer was neither yes nor no"),
               "code %d: %s", err, ra_error_message());
    ra_settings_free(s);
    test_mpi_dir_remove(world, dir);
    return NULL;
}

/* A kind that fails on one rank ends all of them, at once, and what was heard is kept. */
static const char *errors_end_on_all(const ra_comm *world)
{
    char *dir = test_mpi_dir_make(world);
    MPI_EXPECT_OK(write_inputs(world, dir));
    ra_settings *s = settings_for(dir, "run");
    int64_t asked, rest;
    test_costly broken = {.salt = 6, .fail_after = world->rank == world->size - 1 ? 90 : 0}, whole = {.salt = 6};
    ra_err err = triage(s, world, &broken, 1, RA_COMBINE_ALL, &asked);
    MPI_EXPECT(err == RA_ERR_IO && strstr(ra_error_message(), "the far end went away") && strstr(ra_error_message(), "rows "),
               "code %d: %s", err, ra_error_message());
    MPI_EXPECT_OK(triage(s, world, &whole, 1, RA_COMBINE_ALL, &rest));
    MPI_EXPECT(asked + rest == 2 * (ROWS - 8), "%d questions, then %d", (int)asked, (int)rest);
    ra_settings_free(s);
    test_mpi_dir_remove(world, dir);
    return NULL;
}

int main(int argc, char **argv)
{
    const test_mpi tests[] = {
        {"a combination with noise is the same on any rank count, and asks nothing twice", same_on_any_rank_count},
        {"a stop by file or signal goes on where it was", stops_go_on},
        {"undecided responses are left out, and too many end the run", too_many_undecided},
        {"an error of one rank's oracle ends all", errors_end_on_all},
    };
    return test_mpi_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
