/* The core modules that need no second rank: random numbers, hashes, memory, files, errors, timers, run control. */
#include "support/support.h"
#include <realign/file.h>
#include <realign/hash.h>
#include <realign/log.h>
#include <realign/mem.h>
#include <realign/rng.h>
#include <realign/runctl.h>
#include <realign/timer.h>

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- random numbers ---- */

/* Known answers of Philox4x32-10 from the Random123 distribution (kat_vectors). Counter words 0-1 are our counter, 2-3 the
 * stream; the key is the seed. */
static void test_philox_known_answers(void **state)
{
    (void)state;
    static const struct {
        uint64_t counter, stream, seed;
        uint32_t want[4];
    } cases[] = {
        {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {UINT64_MAX, UINT64_MAX, UINT64_MAX, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x85a308d3243f6a88, 0x0370734413198a2e, 0x299f31d0a4093822, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ra_rng rng = ra_rng_make(cases[i].seed, cases[i].stream);
        rng.counter = cases[i].counter;
        for (int w = 0; w < 4; w++) assert_int_equal(ra_rng_u32(&rng), cases[i].want[w]);
    }
}

static void test_rng_streams_and_moments(void **state)
{
    (void)state;
    enum { N = 200000, SEED = 7 };
    ra_rng a = ra_rng_make(SEED, RA_STREAM_GOLD), b = ra_rng_make(SEED, RA_STREAM_SHUFFLE), again = a;
    assert_true(ra_rng_u64(&a) != ra_rng_u64(&b));
    a = again;
    double sum = 0.0, squares = 0.0, flat = 0.0;
    for (int i = 0; i < N; i++) {
        double x = ra_rng_normal(&a), u = ra_rng_uniform(&b);
        assert_true(u >= 0.0 && u < 1.0);
        sum += x;
        squares += x * x;
        flat += u;
    }
    /* 5 standard errors: 1/sqrt(N), sqrt(2/N), sqrt(1/12N) */
    check_close(sum / N, 0.0, 0.0, 5.0 / sqrt(N), "mean of normal numbers, seed 7");
    check_close(squares / N, 1.0, 0.0, 5.0 * sqrt(2.0 / N), "variance of normal numbers, seed 7");
    check_close(flat / N, 0.5, 0.0, 5.0 * sqrt(1.0 / 12 / N), "mean of uniform numbers, seed 7");
}

static void test_rng_below_is_unbiased(void **state)
{
    (void)state;
    enum { N = 60000, BOUND = 6 };
    ra_rng rng = ra_rng_make(11, RA_STREAM_TEST);
    int count[BOUND] = {0};
    for (int i = 0; i < N; i++) {
        uint64_t x = ra_rng_below(&rng, BOUND);
        assert_true(x < BOUND);
        count[x]++;
    }
    double chi = 0.0;
    for (int i = 0; i < BOUND; i++) chi += pow(count[i] - N / BOUND, 2) / (N / BOUND);
    assert_true(chi < 25.7); /* 5 degrees of freedom, p = 1e-4, seed 11 */
    assert_int_equal(ra_rng_below(&rng, 1), 0);
    uint64_t bound = UINT64_C(3) << 62; /* a quarter of all draws must be thrown away */
    for (int i = 0; i < 100; i++) assert_true(ra_rng_below(&rng, bound) < bound);
}

static void test_shuffle_is_a_permutation(void **state)
{
    (void)state;
    enum { N = 1000 };
    int64_t items[N];
    int moved = 0;
    char seen[N] = {0};
    for (int i = 0; i < N; i++) items[i] = i;
    ra_rng rng = ra_rng_make(3, RA_STREAM_SHUFFLE);
    ra_rng_shuffle(&rng, items, N);
    for (int i = 0; i < N; i++) {
        assert_true(items[i] >= 0 && items[i] < N && !seen[items[i]]);
        seen[items[i]] = 1;
        moved += items[i] != i;
    }
    assert_true(moved > N * 9 / 10);
    ra_rng_shuffle(&rng, items, 0);
    ra_rng_shuffle(&rng, items, 1);
}

/* ---- hashes ---- */

static void test_hash(void **state)
{
    (void)state;
    char text[33], *dir = test_dir_make(), *path = ra_path_join(dir, "f");
    ra_hash_text(ra_hash_bytes("", 0), text);
    assert_string_equal(text, "99aa06d3014798d86001c324468d497f"); /* XXH3 128 bits of nothing, from xxHash's own tests */
    char bytes[1000];
    for (int i = 0; i < 1000; i++) bytes[i] = (char)(i * 7);
    ra_hash whole = ra_hash_bytes(bytes, sizeof bytes), other;
    ra_hasher *h = ra_hasher_new();
    for (size_t at = 0, n = 1; at < sizeof bytes; at += n, n = n * 2 + 1) {
        ra_hasher_add(h, bytes + at, at + n > sizeof bytes ? sizeof bytes - at : n);
    }
    other = ra_hasher_end(h);
    assert_true(whole.high == other.high && whole.low == other.low);
    CHECK_OK(ra_file_write(path, bytes, sizeof bytes));
    CHECK_OK(ra_hash_file(path, &other));
    assert_true(whole.high == other.high && whole.low == other.low);
    check_fails(ra_hash_file("/no/such/file", &other), RA_ERR_IO, "/no/such/file", NULL);
    free(path);
    test_dir_remove(dir);
}

/* ---- memory ---- */

static void test_buffers(void **state)
{
    (void)state;
    ra_buf buf = {0};
    ra_buf_adds(&buf, "a");
    ra_buf_addf(&buf, "%d-%s", 17, "b");
    assert_string_equal(buf.data, "a17-b");
    for (int i = 0; i < 10000; i++) ra_buf_add(&buf, "0123456789", 10);
    assert_int_equal(buf.length, 100005);
    assert_int_equal(strlen(buf.data), 100005);
    ra_buf_add(&buf, "\0x", 2);
    assert_int_equal(buf.length, 100007);
    ra_buf_clear(&buf);
    assert_int_equal(buf.length, 0);
    assert_string_equal(buf.data, "");
    ra_buf_free(&buf);
    assert_null(buf.data);
}

static void test_alignment(void **state)
{
    (void)state;
    for (size_t n = 0; n < 300; n += 7) {
        unsigned char *p = ra_calloc(n, 3);
        assert_int_equal((uintptr_t)p % 64, 0);
        for (size_t i = 0; i < n * 3; i++) assert_int_equal(p[i], 0);
        ra_free(p);
    }
    char *text = ra_strndup("abcdef", 3);
    assert_string_equal(text, "abc");
    free(text);
}

/* ---- errors ---- */

static void test_error_contexts(void **state)
{
    (void)state;
    assert_int_equal(ra_fail(RA_ERR_DATA, "row %d", 3), RA_ERR_DATA);
    assert_int_equal(ra_fail_in(RA_ERR_DATA, "%s", "file.jsonl"), RA_ERR_DATA);
    ra_fail_in(RA_ERR_DATA, "triage");
    assert_string_equal(ra_error_message(), "triage: file.jsonl: row 3");
    ra_fail(RA_ERR_IO, "again: %s", ra_error_message()); /* the old message as an argument of the new one */
    assert_string_equal(ra_error_message(), "again: triage: file.jsonl: row 3");
    char *huge = ra_calloc(10001, 1);
    memset(huge, 'x', 10000);
    ra_fail(RA_ERR_IO, "%s", huge);
    ra_fail_in(RA_ERR_IO, "%s", huge);
    ra_fail_in(RA_ERR_IO, "start");
    assert_true(strncmp(ra_error_message(), "start: xxx", 10) == 0);
    ra_free(huge);
    for (int code = RA_OK; code <= RA_ERR_STOPPED; code++) assert_string_not_equal(ra_error_name((ra_err)code), "unknown error");
}

static void test_is_close_rejects_nan(void **state)
{
    (void)state;
    print_message("# the four complaints that follow are wanted\n");
    assert_false(is_close(NAN, NAN, 1.0, 1e300, "NaN against NaN"));
    assert_false(is_close(NAN, 1.0, 1.0, 1e300, "NaN against 1"));
    assert_false(is_close(1.0, NAN, 1.0, 1e300, "1 against NaN"));
    assert_false(is_close(1.0, 1.1, 0.05, 0.05, "1 against 1.1"));
    assert_true(is_close(INFINITY, INFINITY, 0.0, 0.0, "infinity"));
    assert_true(is_close(1.0, 1.0 + 1e-12, 1e-11, 0.0, "close"));
}

/* ---- files ---- */

static void test_files(void **state)
{
    (void)state;
    char *dir = test_dir_make(), *deep = ra_path_join(dir, "a/b/c"), *path = ra_path_join(deep, "f"),
         *copy = ra_path_join(dir, "g");
    CHECK_OK(ra_dir_make(deep));
    CHECK_OK(ra_dir_make(deep));
    assert_true(ra_file_is_dir(deep));
    CHECK_OK(ra_file_write(path, "old", 3));
    CHECK_OK(ra_file_write(path, "newer\0", 6));
    char *part = ra_format("%s.part", path);
    assert_false(ra_file_exists(part));
    ra_buf buf = {0};
    ra_buf_adds(&buf, ">");
    CHECK_OK(ra_file_read(path, &buf));
    assert_int_equal(buf.length, 7);
    assert_memory_equal(buf.data, ">newer\0", 7);
    CHECK_OK(ra_file_copy(path, copy));
    ra_map map;
    CHECK_OK(ra_map_open(copy, &map));
    assert_int_equal(map.size, 6);
    assert_memory_equal(map.data, "newer\0", 6);
    ra_map_close(&map);
    CHECK_OK(ra_dir_try(deep));
    check_fails(ra_dir_make(copy), RA_ERR_IO, copy, "not a directory", NULL);
    check_fails(ra_file_read(dir, &buf), RA_ERR_IO, dir, NULL);
    check_fails(ra_map_open(dir, &map), RA_ERR_IO, dir, NULL);
    check_fails(ra_map_open("/no/such", &map), RA_ERR_IO, "/no/such", NULL);
    CHECK_OK(ra_file_write(copy, "", 0));
    check_fails(ra_map_open(copy, &map), RA_ERR_FORMAT, copy, "empty", NULL);
    check_fails(ra_file_write("/no/such/dir/f", "x", 1), RA_ERR_IO, "/no/such/dir/f", NULL);
    char *full = ra_format("%s.part", copy); /* a part file on a full disk */
    assert_int_equal(symlink("/dev/full", full), 0);
    check_fails(ra_file_write(copy, "x", 1), RA_ERR_IO, full, "No space", NULL);
    assert_false(ra_file_exists(full));
    free(full);
    ra_buf_free(&buf);
    free(part);
    free(copy);
    free(path);
    free(deep);
    test_dir_remove(dir);
}

/* ---- time ---- */

static void test_timers(void **state)
{
    (void)state;
    ra_timers *timers = ra_timers_new();
    ra_timer_begin(timers, "outer");
    ra_timer_begin(timers, "inner");
    usleep(2000);
    ra_timer_end(timers, "inner");
    ra_timer_end(timers, "outer");
    double inner = ra_timer_seconds(timers, "inner"), outer = ra_timer_seconds(timers, "outer");
    assert_true(inner >= 0.002 && outer >= inner);
    assert_true(ra_timer_seconds(timers, "never") == 0.0);
    ra_timer_begin(NULL, "none");
    ra_timer_end(NULL, "none");
    ra_timers_free(timers);
}

/* The clock of the run-control tests, seconds; set by them. */
static double fake_time;

static double fake_clock(void)
{
    return fake_time;
}

static void test_runctl_wall_limit(void **state)
{
    (void)state;
    ra_comm alone = {MPI_COMM_SELF, 0, 1};
    const char *reason = "unset";
    fake_time = 1000.0;
    ra_runctl ctl = {.wall_limit_s = 3600.0, .margin_s = 60.0, .clock = fake_clock};
    ra_runctl_start(&ctl);
    fake_time = 1000.0 + 3540.0;
    assert_false(ra_runctl_should_stop(&ctl, &alone, &reason));
    assert_null(reason);
    fake_time += 0.5;
    assert_true(ra_runctl_should_stop(&ctl, &alone, &reason));
    assert_non_null(strstr(reason, "wall-clock"));
    ra_runctl unlimited = {.clock = fake_clock};
    ra_runctl_start(&unlimited);
    fake_time += 1e9;
    assert_false(ra_runctl_should_stop(&unlimited, &alone, NULL));
}

static void test_runctl_file_and_signal(void **state)
{
    (void)state;
    ra_comm alone = {MPI_COMM_SELF, 0, 1};
    const char *reason;
    char *dir = test_dir_make(), *stop = ra_path_join(dir, "stop");
    ra_runctl ctl = {.stop_file = stop};
    ra_runctl_start(&ctl);
    assert_false(ra_runctl_should_stop(&ctl, &alone, &reason));
    assert_false(ra_runctl_is_due(&ctl));
    CHECK_OK(ra_file_write(stop, "", 0));
    assert_true(ra_runctl_is_due(&ctl));
    assert_true(ra_runctl_should_stop(&ctl, &alone, &reason));
    assert_non_null(strstr(reason, "stop file"));
    unlink(stop);
    static const int signals[] = {SIGTERM, SIGUSR1, SIGINT};
    for (int i = 0; i < 3; i++) {
        raise(signals[i]);
        assert_true(ra_runctl_is_due(&ctl));
        assert_true(ra_runctl_should_stop(&ctl, &alone, &reason));
        assert_non_null(strstr(reason, "signal"));
        ra_runctl_reset_flag();
        assert_false(ra_runctl_is_due(&ctl));
        assert_false(ra_runctl_should_stop(&ctl, &alone, &reason));
    }
    /* the limit counts from the program's start, before any stage began */
    ra_log_setup(0, RA_LOG_INFO);
    usleep(2000);
    assert_true(ra_runctl_is_due(&(ra_runctl){.wall_limit_s = 1e-9}));
    assert_true(ra_runctl_is_due(&(ra_runctl){.wall_limit_s = 1e6, .margin_s = 1e6}));
    assert_false(ra_runctl_is_due(&(ra_runctl){.wall_limit_s = 1e6, .margin_s = 1.0}));
    free(stop);
    test_dir_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_philox_known_answers),
        cmocka_unit_test(test_rng_streams_and_moments),
        cmocka_unit_test(test_rng_below_is_unbiased),
        cmocka_unit_test(test_shuffle_is_a_permutation),
        cmocka_unit_test(test_hash),
        cmocka_unit_test(test_buffers),
        cmocka_unit_test(test_alignment),
        cmocka_unit_test(test_error_contexts),
        cmocka_unit_test(test_is_close_rejects_nan),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_timers),
        cmocka_unit_test(test_runctl_wall_limit),
        cmocka_unit_test(test_runctl_file_and_signal),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests_name("core", tests, NULL, NULL);
}
