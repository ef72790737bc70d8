/* sched_getaffinity and the CPU_ macros */
#define _GNU_SOURCE
#include <realign/comm.h>
#include <realign/log.h>
#include <realign/mem.h>

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Open MPI keeps memory until the process ends, and unloads plugins so that the leak checker cannot name the owner. In builds
 * with it, what MPI_Init allocates is left out, and the check comes before MPI_Finalize. */
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#else
static void __lsan_disable(void)
{
}
static void __lsan_enable(void)
{
}
static void __lsan_do_leak_check(void)
{
}
#endif

/* Elements in flight per peer in the ordered reductions: buffers stay at 4 M elements in all, however many ranks there are. */
enum { IN_FLIGHT = 1 << 22, LEAST = 1 << 12, MOST = 1 << 20 };

static int64_t block_of(const ra_comm *comm)
{
    int64_t n = IN_FLIGHT / comm->size;
    return n < LEAST ? LEAST : n > MOST ? MOST : n;
}

void ra_mpi_check(int code, const char *call, const char *file, int line)
{
    if (code == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING] = "?";
    int n = 0;
    MPI_Error_string(code, text, &n);
    ra_die("%s:%d: %s: %s", file, line, call, text);
}

ra_err ra_comm_init(int *argc, char ***argv, ra_comm *world)
{
    int provided = 0;
    __lsan_disable();
    RA_MPI(MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided));
    __lsan_enable();
    RA_MPI(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
    *world = ra_comm_world();
    ra_log_setup(world->rank, RA_LOG_INFO);
    if (provided < MPI_THREAD_FUNNELED) {
        return ra_fail(RA_ERR_UNSUPPORTED, "this MPI library does not give MPI_THREAD_FUNNELED");
    }
    return RA_OK;
}

ra_comm ra_comm_world(void)
{
    ra_comm world = {.comm = MPI_COMM_WORLD};
    RA_MPI(MPI_Comm_rank(world.comm, &world.rank));
    RA_MPI(MPI_Comm_size(world.comm, &world.size));
    return world;
}

void ra_comm_finalize(void)
{
    __lsan_do_leak_check();
    MPI_Finalize();
}

int ra_comm_threads(const ra_comm *world, int wanted)
{
    cpu_set_t mine, all;
    CPU_ZERO(&mine);
    sched_getaffinity(0, sizeof mine, &mine);
    MPI_Comm node;
    int ranks = 1;
    RA_MPI(MPI_Comm_split_type(world->comm, MPI_COMM_TYPE_SHARED, world->rank, MPI_INFO_NULL, &node));
    RA_MPI(MPI_Comm_size(node, &ranks));
    RA_MPI(MPI_Allreduce(&mine, &all, (int)sizeof mine, MPI_BYTE, MPI_BOR, node));
    RA_MPI(MPI_Comm_free(&node));
    if (wanted > 0) return wanted;
    const char *given = getenv("OMP_NUM_THREADS");
    if (given && atoi(given) > 0) return atoi(given);
    /* bound ranks have cores of their own; unbound ones all see the same cores and share them */
    int cores = CPU_COUNT(&mine), threads = CPU_EQUAL(&mine, &all) ? cores / ranks : cores;
    return threads > 0 ? threads : 1;
}

ra_err ra_comm_agree(const ra_comm *comm, ra_err mine)
{
    return ra_comm_agree_as(comm, mine, "rank");
}

ra_err ra_comm_agree_as(const ra_comm *comm, ra_err mine, const char *what)
{
    int first = mine == RA_OK ? comm->size : comm->rank;
    RA_MPI(MPI_Allreduce(MPI_IN_PLACE, &first, 1, MPI_INT, MPI_MIN, comm->comm));
    if (first == comm->size) return RA_OK;
    struct {
        int code;
        char text[4096];
    } word = {(int)mine, ""};
    if (comm->rank == first) snprintf(word.text, sizeof word.text, "%s", ra_error_message());
    RA_MPI(MPI_Bcast(&word, sizeof word, MPI_BYTE, first, comm->comm));
    if (first == 0 || comm->rank == first) return ra_fail((ra_err)word.code, "%s", word.text);
    return ra_fail((ra_err)word.code, "%s %d: %s", what, first, word.text);
}

void ra_comm_bcast(const ra_comm *comm, void *bytes, int64_t n, int root)
{
    for (int64_t at = 0; at < n; at += INT_MAX / 2) {
        int64_t count = n - at < INT_MAX / 2 ? n - at : INT_MAX / 2;
        RA_MPI(MPI_Bcast((char *)bytes + at, (int)count, MPI_BYTE, root, comm->comm));
    }
}

void ra_comm_sum_f64(const ra_comm *comm, double *values, int64_t n)
{
    const int64_t block = block_of(comm);
    if (comm->size == 1) return;
    double *all = ra_alloc((size_t)(comm->size * block), sizeof *all);
    for (int64_t at = 0; at < n; at += block) {
        int count = (int)(n - at < block ? n - at : block);
        RA_MPI(MPI_Allgather(values + at, count, MPI_DOUBLE, all, count, MPI_DOUBLE, comm->comm));
        for (int i = 0; i < count; i++) {
            double sum = 0.0;
            for (int r = 0; r < comm->size; r++) sum += all[(int64_t)r * count + i];
            values[at + i] = sum;
        }
    }
    ra_free(all);
}

void ra_comm_sum_i64(const ra_comm *comm, int64_t *values, int64_t n)
{
    const int64_t block = block_of(comm);
    for (int64_t at = 0; at < n; at += block) {
        int count = (int)(n - at < block ? n - at : block);
        RA_MPI(MPI_Allreduce(MPI_IN_PLACE, values + at, count, MPI_INT64_T, MPI_SUM, comm->comm));
    }
}

void ra_comm_max_f64(const ra_comm *comm, double *values, int64_t n)
{
    const int64_t block = block_of(comm);
    for (int64_t at = 0; at < n; at += block) {
        int count = (int)(n - at < block ? n - at : block);
        RA_MPI(MPI_Allreduce(MPI_IN_PLACE, values + at, count, MPI_DOUBLE, MPI_MAX, comm->comm));
    }
}

int64_t ra_comm_range_begin(const ra_comm *comm, int64_t n, int rank)
{
    if (rank == comm->size) return n;
    return (int64_t)((__int128)n * rank / comm->size) / 16 * 16;
}

void ra_comm_reduce_scatter_f32(const ra_comm *comm, float *values, int64_t n)
{
    const int64_t block = block_of(comm);
    if (comm->size == 1) return;
    int size = comm->size;
    int64_t begin = ra_comm_range_begin(comm, n, comm->rank), mine = ra_comm_range_begin(comm, n, comm->rank + 1) - begin;
    int64_t longest = 0;
    for (int r = 0; r < size; r++) {
        int64_t range = ra_comm_range_begin(comm, n, r + 1) - ra_comm_range_begin(comm, n, r);
        if (range > longest) longest = range;
    }
    float *received = ra_alloc((size_t)(size * block), sizeof *received);
    MPI_Request *requests = ra_alloc((size_t)size * 2, sizeof *requests);
    for (int64_t at = 0; at < longest; at += block) {
        int count = (int)(mine - at < 0 ? 0 : mine - at < block ? mine - at : block);
        int active = 0;
        for (int r = 0; r < size; r++) {
            if (r == comm->rank) continue;
            RA_MPI(MPI_Irecv(received + (int64_t)r * block, count, MPI_FLOAT, r, 71, comm->comm, &requests[active++]));
        }
        for (int r = 0; r < size; r++) {
            if (r == comm->rank) continue;
            int64_t theirs = ra_comm_range_begin(comm, n, r), length = ra_comm_range_begin(comm, n, r + 1) - theirs - at;
            int send = (int)(length < 0 ? 0 : length < block ? length : block);
            RA_MPI(MPI_Isend(values + theirs + (send ? at : 0), send, MPI_FLOAT, r, 71, comm->comm, &requests[active++]));
        }
        RA_MPI(MPI_Waitall(active, requests, MPI_STATUSES_IGNORE));
        float *own = values + begin + (count ? at : 0);
        for (int i = 0; i < count; i++) {
            double sum = 0.0;
            for (int r = 0; r < size; r++) sum += r == comm->rank ? own[i] : received[(int64_t)r * block + i];
            own[i] = (float)sum;
        }
    }
    ra_free(requests);
    ra_free(received);
}

void ra_comm_all_gather_f32(const ra_comm *comm, float *values, int64_t n)
{
    for (int r = 0; r < comm->size && comm->size > 1; r++) {
        int64_t begin = ra_comm_range_begin(comm, n, r), end = ra_comm_range_begin(comm, n, r + 1);
        ra_comm_bcast(comm, values + begin, (end - begin) * (int64_t)sizeof *values, r);
    }
}

void ra_comm_sum_f32(const ra_comm *comm, float *values, int64_t n)
{
    ra_comm_reduce_scatter_f32(comm, values, n);
    ra_comm_all_gather_f32(comm, values, n);
}
