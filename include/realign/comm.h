/* MPI, checked. A failed MPI call is fatal on that rank: it prints the call, the rank and the error and aborts all ranks. */
#ifndef REALIGN_COMM_H
#define REALIGN_COMM_H
#include <realign/error.h>
#include <mpi.h>
#include <stdint.h>

#define RA_MPI(call) ra_mpi_check((call), #call, __FILE__, __LINE__)
void ra_mpi_check(int code, const char *call, const char *file, int line);

typedef struct ra_comm {
    MPI_Comm comm;
    int rank, size;
} ra_comm;

/* Collective. MPI_Init_thread with MPI_THREAD_FUNNELED; sets the log's rank. */
ra_err ra_comm_init(int *argc, char ***argv, ra_comm *world);
void ra_comm_finalize(void);
/* Not collective. All ranks, after ra_comm_init. */
ra_comm ra_comm_world(void);
/* Collective. OpenMP threads for this rank: `wanted` where it is not 0, else OMP_NUM_THREADS where it is set, else the cores this rank may run on, divided among the ranks of
 * this node that share them: more runnable threads than cores make every barrier wait for the scheduler. */
int ra_comm_threads(const ra_comm *world, int wanted);

/* Collective. Every rank gives its own code and message; all return RA_OK when all succeeded, else the code of the lowest
 * failing rank, whose message every rank then holds ("rank r: message" where r > 0). This is the "all ranks agree" way to fail. */
ra_err ra_comm_agree(const ra_comm *comm, ra_err mine);
/* The same, "`what` r: message": what a rank of this communicator is. */
ra_err ra_comm_agree_as(const ra_comm *comm, ra_err mine, const char *what);

/* Collective. Sums in ascending rank order, so that the result is bitwise repeatable for a layout; in place; counts may
 * exceed 2^31. `workspace` of reduced precision is never used: floats are summed in double and rounded once. */
void ra_comm_sum_f64(const ra_comm *comm, double *values, int64_t n);
void ra_comm_sum_f32(const ra_comm *comm, float *values, int64_t n);
void ra_comm_sum_i64(const ra_comm *comm, int64_t *values, int64_t n);
void ra_comm_max_f64(const ra_comm *comm, double *values, int64_t n);
void ra_comm_bcast(const ra_comm *comm, void *bytes, int64_t n, int root);

/* Collective. Adds over ranks and leaves rank r with elements [begin(r), begin(r+1)) of the sum in `values` (in place; the
 * others are undefined), begin(r) = r n / size rounded down to a multiple of 16. Ascending rank order. */
void ra_comm_reduce_scatter_f32(const ra_comm *comm, float *values, int64_t n);
/* Collective. The reverse: every rank's own range of `values` goes to all. */
void ra_comm_all_gather_f32(const ra_comm *comm, float *values, int64_t n);
int64_t ra_comm_range_begin(const ra_comm *comm, int64_t n, int rank);

#endif
