/* The cache of verdicts: reopening, torn and damaged files, several writers and readers at once, contradictions, a killed writer. */
#include "../support/support.h"

#include <realign/file.h>
#include <realign/mem.h>
#include <realign/verdicts.h>

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { RECORD = 40 };

static char *dir;

static int make(void **state)
{
    (void)state;
    dir = test_dir_make();
    return 0;
}

static int clear(void **state)
{
    (void)state;
    test_dir_remove(dir);
    return 0;
}

static ra_hash question(int i)
{
    return ra_hash_bytes(&i, sizeof i);
}

static ra_verdict answer(int i)
{
    return (ra_verdict){(int8_t)(i % 3 == 0), (int16_t)(i % 3 ? i % 7 : -1), 0.25f + 0.5f * (float)(i % 3 == 0), (float)i * 0.5f};
}

static ra_verdicts *open_cache(void)
{
    ra_verdicts *v = NULL;
    CHECK_OK(ra_verdicts_open(dir, &v));
    return v;
}

static void add(ra_verdicts *v, int first, int end)
{
    for (int i = first; i < end; i++) {
        ra_verdict a = answer(i);
        CHECK_OK(ra_verdicts_add(v, question(i), (uint32_t)(i % 2), &a));
    }
}

/* How many of questions [first, end) are known; each known one must have its own answer. */
static int known(const ra_verdicts *v, int first, int end)
{
    int n = 0;
    for (int i = first; i < end; i++) {
        ra_verdict got, want = answer(i);
        if (!ra_verdicts_find(v, question(i), &got)) continue;
        n++;
        assert_true(got.compliant == want.compliant && got.rule == want.rule && got.probability == want.probability &&
                    got.margin == want.margin);
    }
    return n;
}

static char *only_segment(void)
{
    DIR *d = opendir(dir);
    char *path = NULL;
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] != '.') path = ra_path_join(dir, e->d_name);
    }
    closedir(d);
    assert_non_null(path);
    return path;
}

static void test_reopen(void **state)
{
    (void)state;
    char *there = dir, *below = ra_format("%s/a/b", dir);
    dir = below;
    assert_false(ra_verdicts_is_cache(dir));
    ra_verdicts *v = open_cache(); /* a directory that is not there yet */
    assert_int_equal(known(v, 0, 5000), 0);
    assert_false(ra_file_exists(dir)); /* nothing is made before there is something to keep */
    add(v, 0, 5000);
    assert_int_equal(known(v, 0, 6000), 5000);
    CHECK_OK(ra_verdicts_close(v));
    v = open_cache();
    assert_int_equal(known(v, 0, 6000), 5000);
    ra_verdicts_counts c = ra_verdicts_count(v);
    assert_int_equal(c.records, 5000);
    assert_int_equal(c.distinct, 5000);
    assert_int_equal(c.compliant, 1667);
    assert_int_equal(c.segments, 1);
    assert_int_equal(c.damaged + c.torn + c.foreign + c.contradictory, 0);
    add(v, 5000, 5010); /* a second segment */
    CHECK_OK(ra_verdicts_close(v));
    v = open_cache();
    assert_int_equal(known(v, 0, 6000), 5010);
    assert_int_equal(ra_verdicts_count(v).segments, 2);
    assert_true(ra_verdicts_is_cache(dir));
    CHECK_OK(ra_verdicts_close(v));
    free(below);
    dir = there;
}

/* Every length a crash can leave behind. */
static void test_torn_tail(void **state)
{
    (void)state;
    ra_verdicts *v = open_cache();
    add(v, 0, 3);
    CHECK_OK(ra_verdicts_close(v));
    char *path = only_segment();
    for (int length = 4 * RECORD; length >= 0; length--) {
        assert_int_equal(truncate(path, length), 0);
        v = open_cache();
        ra_verdicts_counts c = ra_verdicts_count(v);
        int whole = length / RECORD - 1;
        assert_int_equal(known(v, 0, 3), whole > 0 ? whole : 0);
        assert_int_equal(c.damaged, 0);
        assert_int_equal(c.torn, length % RECORD != 0);
        CHECK_OK(ra_verdicts_close(v));
    }
    free(path);
}

/* Any flipped byte of a record costs that record alone, and is counted; in the head, it costs the segment. */
static void test_damage(void **state)
{
    (void)state;
    ra_verdicts *v = open_cache();
    add(v, 0, 5);
    CHECK_OK(ra_verdicts_close(v));
    char *path = only_segment();
    for (int at = 0; at < 6 * RECORD; at++) {
        int file = open(path, O_RDWR), row = at / RECORD - 1;
        unsigned char byte;
        assert_int_equal(pread(file, &byte, 1, at), 1);
        byte ^= 0x40;
        assert_int_equal(pwrite(file, &byte, 1, at), 1);
        v = open_cache();
        ra_verdicts_counts c = ra_verdicts_count(v);
        assert_int_equal(known(v, 0, 5), row < 0 ? 0 : 4);
        assert_int_equal(c.foreign, row < 0);
        assert_int_equal(c.damaged, row >= 0 && row < 4); /* the last one may be on its way */
        assert_int_equal(c.torn, row == 4);
        CHECK_OK(ra_verdicts_close(v));
        byte ^= 0x40;
        assert_int_equal(pwrite(file, &byte, 1, at), 1);
        close(file);
    }
    free(path);
    char *junk = ra_path_join(dir, "notes.verdicts"), text[200];
    memset(text, 'x', sizeof text);
    CHECK_OK(ra_file_write(junk, text, sizeof text));
    v = open_cache();
    assert_int_equal(known(v, 0, 5), 5);
    assert_int_equal(ra_verdicts_count(v).foreign, 1);
    CHECK_OK(ra_verdicts_close(v));
    free(junk);
}

/* A record that another host's writes show in pieces becomes readable later. */
static void test_a_tail_that_grows(void **state)
{
    (void)state;
    ra_verdicts *v = open_cache(), *reader;
    add(v, 0, 2);
    CHECK_OK(ra_verdicts_close(v));
    char *path = only_segment(), bytes[3 * RECORD], zeros[RECORD] = {0};
    int file = open(path, O_RDWR);
    assert_int_equal(pread(file, bytes, sizeof bytes, 0), (ssize_t)sizeof bytes);
    assert_int_equal(pwrite(file, zeros, RECORD, 2 * RECORD), RECORD); /* the length is there before the bytes */
    reader = open_cache();
    assert_int_equal(known(reader, 0, 2), 1);
    assert_int_equal(ra_verdicts_count(reader).torn, 1);
    assert_int_equal(pwrite(file, bytes + 2 * RECORD, RECORD, 2 * RECORD), RECORD);
    CHECK_OK(ra_verdicts_refresh(reader, 1000.0)); /* not yet due */
    assert_int_equal(known(reader, 0, 2), 1);
    CHECK_OK(ra_verdicts_refresh(reader, 0.0));
    assert_int_equal(known(reader, 0, 2), 2);
    assert_int_equal(ra_verdicts_count(reader).torn + ra_verdicts_count(reader).damaged, 0);
    CHECK_OK(ra_verdicts_close(reader));
    close(file);
    free(path);
}

static void test_two_writers(void **state)
{
    (void)state;
    ra_verdicts *a = open_cache(), *b = open_cache();
    for (int i = 0; i < 100; i++) add(i % 2 ? a : b, i, i + 1);
    assert_int_equal(known(a, 0, 100), 50);
    CHECK_OK(ra_verdicts_refresh(a, 0.0));
    CHECK_OK(ra_verdicts_refresh(b, 0.0));
    assert_int_equal(known(a, 0, 100), 100);
    assert_int_equal(known(b, 0, 100), 100);
    assert_int_equal(ra_verdicts_count(a).records, 100); /* its own are not read again */
    CHECK_OK(ra_verdicts_close(a));
    CHECK_OK(ra_verdicts_close(b));
}

/* The same answer whichever is read first: not compliant. */
static void test_contradictions(void **state)
{
    (void)state;
    const ra_verdict yes = {1, -1, 0.75f, 1.0f}, no = {0, 2, 0.25f, -1.0f};
    ra_verdicts *a = open_cache(), *b = open_cache();
    CHECK_OK(ra_verdicts_add(a, question(0), 0, &yes));
    CHECK_OK(ra_verdicts_add(b, question(0), 0, &no));
    CHECK_OK(ra_verdicts_add(a, question(1), 0, &no));
    CHECK_OK(ra_verdicts_add(b, question(1), 0, &yes));
    CHECK_OK(ra_verdicts_refresh(a, 0.0));
    CHECK_OK(ra_verdicts_refresh(b, 0.0));
    ra_verdicts *all[3] = {a, b, open_cache()};
    for (int i = 0; i < 3; i++) {
        for (int q = 0; q < 2; q++) {
            ra_verdict got;
            assert_true(ra_verdicts_find(all[i], question(q), &got));
            assert_int_equal(got.compliant, 0);
            assert_int_equal(got.rule, 2);
        }
        assert_int_equal(ra_verdicts_count(all[i]).contradictory, 2);
        assert_int_equal(ra_verdicts_count(all[i]).compliant, 0);
        CHECK_OK(ra_verdicts_close(all[i]));
    }
}

/* Four processes write at once while this one reads; one of them is killed. */
static void test_concurrent_processes(void **state)
{
    (void)state;
    enum { WRITERS = 4, EACH = 20000 };
    pid_t child[WRITERS];
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    for (int w = 0; w < WRITERS; w++) {
        child[w] = fork();
        if (child[w] == 0) {
            ra_verdicts *v = NULL;
            bool good = ra_verdicts_open(dir, &v) == RA_OK;
            for (int i = w * EACH; i < (w + 1) * EACH && good; i++) {
                ra_verdict a = answer(i);
                good = ra_verdicts_add(v, question(i), 0, &a) == RA_OK;
                if (w == 0 && i == EACH / 2) {
                    good = write(ready[1], "k", 1) == 1;
                    pause(); /* killed here: with nothing flushed or closed */
                }
            }
            _exit(good && ra_verdicts_close(v) == RA_OK ? 0 : 1);
        }
    }
    ra_verdicts *reader = open_cache();
    char byte;
    assert_int_equal(read(ready[0], &byte, 1), 1);
    kill(child[0], SIGKILL);
    for (int done = 0; done < WRITERS;) {
        CHECK_OK(ra_verdicts_refresh(reader, 0.0));
        int status;
        if (waitpid(-1, &status, WNOHANG) <= 0) continue;
        assert_true((WIFEXITED(status) && WEXITSTATUS(status) == 0) || WIFSIGNALED(status));
        done++;
    }
    CHECK_OK(ra_verdicts_refresh(reader, 0.0));
    assert_int_equal(known(reader, 0, EACH), EACH / 2 + 1); /* a killed writer loses nothing */
    assert_int_equal(known(reader, EACH, WRITERS * EACH), (WRITERS - 1) * EACH);
    assert_int_equal(ra_verdicts_count(reader).damaged, 0);
    CHECK_OK(ra_verdicts_close(reader));
    close(ready[0]);
    close(ready[1]);
}

static void tally(void *context, uint32_t oracle, int64_t records, int64_t compliant)
{
    int64_t(*of)[2] = context;
    of[oracle][0] = records;
    of[oracle][1] = compliant;
}

static void test_counts_by_oracle(void **state)
{
    (void)state;
    ra_verdicts *v = open_cache();
    add(v, 0, 12); /* compliant: 0, 3, 6, 9 */
    int64_t of[2][2] = {{0}};
    ra_verdicts_each_oracle(v, tally, of);
    assert_true(of[0][0] == 6 && of[0][1] == 2 && of[1][0] == 6 && of[1][1] == 2);
    CHECK_OK(ra_verdicts_close(v));
}

static void test_errors(void **state)
{
    (void)state;
    char *path = ra_path_join(dir, "file");
    CHECK_OK(ra_file_write(path, "x", 1));
    ra_verdicts *v = NULL;
    check_fails(ra_verdicts_open(path, &v), RA_ERR_IO, path, NULL);
    assert_null(v);
    char *home = dir;
    dir = ra_path_join(path, "below");
    if (ra_verdicts_open(dir, &v) == RA_OK) {
        ra_verdict a = answer(0);
        check_fails(ra_verdicts_add(v, question(0), 0, &a), RA_ERR_IO, path, NULL);
        ra_verdicts_close(v);
    }
    free(dir);
    free(path);
    dir = home;
    CHECK_OK(ra_verdicts_close(NULL));
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, make, clear)
    const struct CMUnitTest tests[] = {CASE(test_reopen),
                                       CASE(test_torn_tail),
                                       CASE(test_damage),
                                       CASE(test_a_tail_that_grows),
                                       CASE(test_two_writers),
                                       CASE(test_contradictions),
                                       CASE(test_concurrent_processes),
                                       CASE(test_counts_by_oracle),
                                       CASE(test_errors)};
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
