/* Collective operations against a serial sum in rank order, bit for bit, over odd sizes. */
#include "support/support.h"
#include <realign/file.h>
#include <realign/mem.h>
#include <realign/rng.h>
#include <realign/runctl.h>
#include <realign/timer.h>

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEED = 20 };
static const int64_t sizes[] = {0, 1, 15, 16, 17, 63, 1000, 3000000};
enum { N_SIZES = sizeof sizes / sizeof *sizes };

/* Element i of rank r: a hash of both, so that any rank can form the serial sum. Magnitudes differ, so the order of a sum shows. */
static double value(int rank, int64_t i)
{
    uint64_t x = (uint64_t)i * 0x9E3779B97F4A7C15u + (uint64_t)(rank + SEED) * 0xD1B54A32D192ED03u;
    x = (x ^ x >> 31) * 0x94D049BB133111EBu;
    x ^= x >> 29;
    return ldexp((double)(int64_t)x, -63 + (int)(x % 40) - 20);
}

static float serial_sum_f32(const ra_comm *world, int64_t i)
{
    double sum = 0.0;
    for (int r = 0; r < world->size; r++) sum += (float)value(r, i);
    return (float)sum;
}

static const char *test_sum_f64(const ra_comm *world)
{
    for (int s = 0; s < N_SIZES; s++) {
        int64_t n = sizes[s];
        double *x = ra_alloc((size_t)n, sizeof *x);
        for (int64_t i = 0; i < n; i++) x[i] = value(world->rank, i);
        ra_comm_sum_f64(world, x, n);
        for (int64_t i = 0; i < n; i++) {
            double want = 0.0;
            for (int r = 0; r < world->size; r++) want += value(r, i);
            MPI_EXPECT(x[i] == want, "n %lld, element %lld: %.17g, want %.17g", (long long)n, (long long)i, x[i], want);
        }
        ra_free(x);
    }
    return NULL;
}

static const char *test_sum_f32(const ra_comm *world)
{
    for (int s = 0; s < N_SIZES; s++) {
        int64_t n = sizes[s];
        float *x = ra_alloc((size_t)n, sizeof *x);
        for (int64_t i = 0; i < n; i++) x[i] = (float)value(world->rank, i);
        ra_comm_sum_f32(world, x, n);
        for (int64_t i = 0; i < n; i++) {
            float want = serial_sum_f32(world, i);
            MPI_EXPECT(x[i] == want, "n %lld, element %lld: %.9g, want %.9g", (long long)n, (long long)i, (double)x[i],
                       (double)want);
        }
        ra_free(x);
    }
    return NULL;
}

static const char *test_ranges(const ra_comm *world)
{
    for (int s = 0; s < N_SIZES; s++) {
        int64_t n = sizes[s];
        MPI_EXPECT(ra_comm_range_begin(world, n, 0) == 0 && ra_comm_range_begin(world, n, world->size) == n, "n %lld",
                   (long long)n);
        for (int r = 0; r < world->size; r++) {
            int64_t begin = ra_comm_range_begin(world, n, r), end = ra_comm_range_begin(world, n, r + 1);
            MPI_EXPECT(begin <= end && begin % 16 == 0, "n %lld, rank %d: [%lld, %lld)", (long long)n, r, (long long)begin,
                       (long long)end);
        }
    }
    return NULL;
}

/* Each rank's own range must be right after the first half, everything after the second. */
static const char *test_reduce_scatter_all_gather(const ra_comm *world)
{
    for (int s = 0; s < N_SIZES; s++) {
        int64_t n = sizes[s];
        float *x = ra_alloc((size_t)n, sizeof *x);
        for (int64_t i = 0; i < n; i++) x[i] = (float)value(world->rank, i);
        ra_comm_reduce_scatter_f32(world, x, n);
        int64_t begin = ra_comm_range_begin(world, n, world->rank), end = ra_comm_range_begin(world, n, world->rank + 1);
        for (int64_t i = begin; i < end; i++) {
            float want = serial_sum_f32(world, i);
            MPI_EXPECT(x[i] == want, "n %lld, own element %lld: %.9g, want %.9g", (long long)n, (long long)i, (double)x[i],
                       (double)want);
        }
        for (int64_t i = 0; i < n; i++) {
            if (i < begin || i >= end) x[i] = NAN; /* the others' ranges are undefined */
        }
        ra_comm_all_gather_f32(world, x, n);
        for (int64_t i = 0; i < n; i++)
            MPI_EXPECT(x[i] == serial_sum_f32(world, i), "n %lld, element %lld", (long long)n, (long long)i);
        ra_free(x);
    }
    return NULL;
}

static const char *test_integers_and_maxima(const ra_comm *world)
{
    for (int s = 0; s < N_SIZES; s++) {
        int64_t n = sizes[s], size = world->size;
        int64_t *x = ra_alloc((size_t)n, sizeof *x);
        double *y = ra_alloc((size_t)n, sizeof *y);
        for (int64_t i = 0; i < n; i++) {
            x[i] = i * 1000000007 + world->rank;
            y[i] = value(world->rank, i);
        }
        ra_comm_sum_i64(world, x, n);
        ra_comm_max_f64(world, y, n);
        for (int64_t i = 0; i < n; i++) {
            double want = value(0, i);
            for (int r = 1; r < world->size; r++) want = fmax(want, value(r, i));
            MPI_EXPECT(x[i] == size * i * 1000000007 + size * (size - 1) / 2, "sum %lld of %lld", (long long)i, (long long)n);
            MPI_EXPECT(y[i] == want, "maximum %lld of %lld", (long long)i, (long long)n);
        }
        ra_free(x);
        ra_free(y);
    }
    return NULL;
}

static const char *test_bcast(const ra_comm *world)
{
    for (int s = 0; s < N_SIZES; s++) {
        int64_t n = sizes[s];
        unsigned char *x = ra_alloc((size_t)n, 1);
        for (int root = 0; root < world->size; root++) {
            for (int64_t i = 0; i < n; i++) x[i] = (unsigned char)(i * 31 + world->rank);
            ra_comm_bcast(world, x, n, root);
            for (int64_t i = 0; i < n; i++) MPI_EXPECT(x[i] == (unsigned char)(i * 31 + root), "byte %lld", (long long)i);
        }
        ra_free(x);
    }
    return NULL;
}

/* Every non-empty set of failing ranks: all hear the lowest one's code and words. */
static const char *test_agree(const ra_comm *world)
{
    for (int set = 0; set < 1 << world->size; set++) {
        int first = 0;
        while (first < world->size && !(set >> first & 1)) first++;
        ra_fail(RA_ERR_ARG, "an old message");
        ra_err mine =
            set >> world->rank & 1 ? ra_fail(world->rank % 2 ? RA_ERR_IO : RA_ERR_DATA, "words of %d", world->rank) : RA_OK;
        ra_err all = ra_comm_agree(world, mine);
        if (set == 0) {
            MPI_EXPECT(all == RA_OK, "agreed on %s", ra_error_name(all));
            continue;
        }
        char words[64];
        snprintf(words, sizeof words, "words of %d", first);
        MPI_EXPECT(all == (first % 2 ? RA_ERR_IO : RA_ERR_DATA), "set %d: %s", set, ra_error_name(all));
        MPI_EXPECT(strstr(ra_error_message(), words), "set %d: '%s'", set, ra_error_message());
        if (first > 0 && world->rank != first) {
            snprintf(words, sizeof words, "rank %d: ", first);
            MPI_EXPECT(strncmp(ra_error_message(), words, strlen(words)) == 0, "set %d: '%s'", set, ra_error_message());
        }
    }
    return NULL;
}

/* A signal on one rank alone, as `kill` gives it, stops all ranks; so does rank 0's clock. */
static double late(void)
{
    return ra_now() + 1e6;
}

static const char *test_stop(const ra_comm *world)
{
    ra_runctl ctl = {.wall_limit_s = 0.0};
    const char *reason = NULL;
    ra_runctl_start(&ctl);
    MPI_EXPECT(!ra_runctl_should_stop(&ctl, world, &reason), "stopped for no reason");
    if (world->rank == world->size - 1) raise(SIGUSR1);
    MPI_EXPECT(ra_runctl_should_stop(&ctl, world, &reason) && strstr(reason, "signal"), "the signal was not heard");
    ra_runctl_reset_flag();
    ra_runctl limited = {.wall_limit_s = 60.0};
    ra_runctl_start(&limited);
    MPI_EXPECT(!ra_runctl_should_stop(&limited, world, &reason), "stopped too early");
    if (world->rank == 0) limited.clock = late;
    MPI_EXPECT(ra_runctl_should_stop(&limited, world, &reason) && strstr(reason, "wall-clock"), "the limit was not heard");
    return NULL;
}

static const char *test_timer_table(const ra_comm *world)
{
    char *dir = test_mpi_dir_make(world), *path = ra_path_join(dir, "timers.tsv"), *wrong = ra_path_join(dir, "no/timers.tsv");
    ra_timers *timers = ra_timers_new();
    ra_timer_begin(timers, "step");
    ra_timer_end(timers, "step");
    MPI_EXPECT_OK(ra_timers_write(timers, world->comm, "train", path));
    MPI_EXPECT_OK(ra_timers_write(timers, world->comm, "weigh", path));
    ra_err err = ra_timers_write(timers, world->comm, "train", wrong);
    MPI_EXPECT(err == RA_ERR_IO && strstr(ra_error_message(), "no/timers.tsv"), "an impossible path: %s", ra_error_name(err));
    if (world->rank == 0) {
        ra_buf text = {0};
        MPI_EXPECT_OK(ra_file_read(path, &text));
        MPI_EXPECT(strncmp(text.data, "stage\ttimer\tcalls\t", 18) == 0, "the header is missing");
        MPI_EXPECT(strstr(text.data, "\ntrain\tstep\t1\t") && strstr(text.data, "\nweigh\tstep\t1\t"), "a row is missing");
        ra_buf_free(&text);
    }
    ra_timers_free(timers);
    free(path);
    free(wrong);
    test_mpi_dir_remove(world, dir);
    return NULL;
}

int main(int argc, char **argv)
{
    static const test_mpi tests[] = {
        {"sums in double", test_sum_f64},
        {"sums in float", test_sum_f32},
        {"ranges", test_ranges},
        {"reduce-scatter and all-gather", test_reduce_scatter_all_gather},
        {"integer sums and maxima", test_integers_and_maxima},
        {"broadcast from every rank", test_bcast},
        {"agreement on failures", test_agree},
        {"stops are heard by all", test_stop},
        {"timer table", test_timer_table},
    };
    return test_mpi_main(argc, argv, tests, (int)(sizeof tests / sizeof *tests));
}
