/* NCCL moves bytes; the additions are ours (peer_sum.cu), because ranges are unequal and sums must not depend on its choices. */
#include "peer.h"
#include "kernels.h"

#include <realign/mem.h>

#include <nccl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

struct ra_cuda_peers {
    const ra_comm *comm;
    const char *what;
    ncclComm_t nccl; /* NULL: one rank */
    cudaStream_t stream;
    cudaEvent_t event;
    float *parts; /* (size - 1, piece): what the others add to this rank's range, a piece at a time */
    int64_t piece;
};

enum { PARTS_BYTES = 256 << 20, MOST_PIECE = 4 << 20 }; /* floats of a piece: enough that each transfer runs at the link's pace */

/* ra_die adds the rank in MPI_COMM_WORLD and the node. */
static void check(const ra_cuda_peers *p, ncclResult_t status, const char *call, int line)
{
    if (status == ncclSuccess) return;
    const char *last = ncclGetLastError(p->nccl);
    ra_die("%s:%d: %s: rank %d of the %d %s peers: %s%s%s", __FILE__, line, call, p->comm->rank, p->comm->size, p->what,
           ncclGetErrorString(status), last && *last ? "; " : "", last ? last : "");
}
#define NCCL(p, call) check((p), (call), #call, __LINE__)

void ra_cuda_peers_version(char *text, size_t bytes)
{
    int version = 0;
    if (ncclGetVersion(&version) != ncclSuccess) version = NCCL_VERSION_CODE;
    snprintf(text, bytes, "NCCL %d.%d.%d", version / 10000, version / 100 % 100, version % 100);
}

/* The name under which rank 0 is found goes round over MPI; then NCCL connects the devices. */
static ra_err connect(ra_cuda_peers *p)
{
    ncclUniqueId id;
    memset(&id, 0, sizeof id);
    ncclResult_t status = p->comm->rank == 0 ? ncclGetUniqueId(&id) : ncclSuccess;
    ra_err err =
        status == ncclSuccess
            ? RA_OK
            : ra_fail(RA_ERR_UNSUPPORTED, "NCCL cannot open an address for the %s peers: %s; %s (NCCL_DEBUG=INFO says more)",
                      p->what, ncclGetErrorString(status), ncclGetLastError(NULL));
    RA_TRY(ra_comm_agree(p->comm, err));
    ra_comm_bcast(p->comm, &id, sizeof id, 0);
    status = ncclCommInitRank(&p->nccl, p->comm->size, id, p->comm->rank);
    if (status != ncclSuccess) {
        p->nccl = NULL;
        err = ra_fail(
            RA_ERR_UNSUPPORTED,
            "NCCL cannot connect rank %d of the %d %s peers: %s; %s (each needs a GPU of its own; NCCL_DEBUG=INFO says more)",
            p->comm->rank, p->comm->size, p->what, ncclGetErrorString(status), ncclGetLastError(NULL));
    }
    return ra_comm_agree(p->comm, err);
}

static ra_err take_parts(ra_cuda_peers *p)
{
    int64_t others = p->comm->size - 1, piece = PARTS_BYTES / (int64_t)sizeof(float) / others / 16 * 16;
    p->piece = piece < MOST_PIECE ? piece : MOST_PIECE;
    size_t bytes = (size_t)(others * p->piece) * sizeof(float);
    cudaError_t status = cudaMalloc((void **)&p->parts, bytes);
    ra_err err = RA_OK;
    if (status != cudaSuccess) {
        p->parts = NULL;
        (void)cudaGetLastError();
        err = ra_fail(RA_ERR_UNSUPPORTED, "no %.0f MiB of device memory for the sums of the %d %s peers: %s",
                      (double)bytes / (1 << 20), p->comm->size, p->what, cudaGetErrorString(status));
    }
    return ra_comm_agree(p->comm, err);
}

ra_err ra_cuda_peers_open(const ra_comm *comm, const char *what, ra_cuda_peers **out)
{
    ra_cuda_peers *p = ra_calloc(1, sizeof *p);
    p->comm = comm;
    p->what = what;
    RA_CUDA(cudaStreamCreateWithFlags(&p->stream, cudaStreamNonBlocking));
    RA_CUDA(cudaEventCreateWithFlags(&p->event, cudaEventDisableTiming));
    if (comm->size > 1) {
        ra_err err = connect(p);
        if (err == RA_OK) err = take_parts(p);
        if (err != RA_OK) {
            ra_cuda_peers_close(p);
            return err;
        }
    }
    *out = p;
    return RA_OK;
}

void ra_cuda_peers_close(ra_cuda_peers *p)
{
    if (!p) return;
    if (p->nccl) {
        ra_cuda_peers_wait(p);
        NCCL(p, ncclCommDestroy(p->nccl));
    }
    RA_CUDA(cudaFree(p->parts));
    RA_CUDA(cudaEventDestroy(p->event));
    RA_CUDA(cudaStreamDestroy(p->stream));
    ra_free(p);
}

void ra_cuda_peers_after(ra_cuda_peers *p, cudaStream_t stream)
{
    RA_CUDA(cudaEventRecord(p->event, stream));
    RA_CUDA(cudaStreamWaitEvent(p->stream, p->event, 0));
}

void ra_cuda_peers_before(ra_cuda_peers *p, cudaStream_t stream)
{
    RA_CUDA(cudaEventRecord(p->event, p->stream));
    RA_CUDA(cudaStreamWaitEvent(stream, p->event, 0));
}

/* A transfer whose peer is gone never ends: NCCL says so through its asynchronous error, which must be asked for. */
void ra_cuda_peers_wait(ra_cuda_peers *p)
{
    const struct timespec pause = {.tv_nsec = 50000};
    for (;;) {
        cudaError_t status = cudaStreamQuery(p->stream);
        if (status == cudaSuccess) return;
        if (status != cudaErrorNotReady) RA_CUDA(status);
        ncclResult_t broken = ncclSuccess;
        if (p->nccl) NCCL(p, ncclCommGetAsyncError(p->nccl, &broken));
        if (broken != ncclInProgress) check(p, broken, "a transfer under way", __LINE__);
        nanosleep(&pause, NULL);
    }
}

static void check_peer(const ra_cuda_peers *p, int rank)
{
    if (rank < 0 || rank >= p->comm->size || rank == p->comm->rank)
        ra_die("peer.c: rank %d of the %s peers talks to rank %d; there are %d", p->comm->rank, p->what, rank, p->comm->size);
}

void ra_cuda_peers_send(ra_cuda_peers *p, const void *x, size_t bytes, int to)
{
    check_peer(p, to);
    if (bytes) NCCL(p, ncclSend(x, bytes, ncclInt8, to, p->nccl, p->stream));
}

void ra_cuda_peers_receive(ra_cuda_peers *p, void *x, size_t bytes, int from)
{
    check_peer(p, from);
    if (bytes) NCCL(p, ncclRecv(x, bytes, ncclInt8, from, p->nccl, p->stream));
}

void ra_cuda_peers_begin(ra_cuda_peers *p)
{
    NCCL(p, ncclGroupStart());
}

void ra_cuda_peers_end(ra_cuda_peers *p)
{
    NCCL(p, ncclGroupEnd());
}

/* Elements [at, at + most) of rank r's range that exist. */
static int64_t length_of(const ra_cuda_peers *p, int64_t n, int r, int64_t at, int64_t most)
{
    int64_t length = ra_comm_range_begin(p->comm, n, r + 1) - ra_comm_range_begin(p->comm, n, r) - at;
    return length < 0 ? 0 : length < most ? length : most;
}

void ra_cuda_peers_reduce_scatter_f32(ra_cuda_peers *p, float *values, int64_t n)
{
    int size = p->comm->size, me = p->comm->rank;
    int64_t longest = 0;
    for (int r = 0; r < size; r++) {
        int64_t length = length_of(p, n, r, 0, n);
        if (length > longest) longest = length;
    }
    for (int64_t at = 0; size > 1 && at < longest; at += p->piece) {
        int64_t mine = length_of(p, n, me, at, p->piece);
        ra_cuda_peers_begin(p);
        for (int step = 1; step < size; step++) { /* each rank begins with another */
            int to = (me + step) % size, from = (me - step + size) % size;
            float *part = p->parts + (from < me ? from : from - 1) * p->piece;
            ra_cuda_peers_send(p, values + ra_comm_range_begin(p->comm, n, to) + at,
                               (size_t)length_of(p, n, to, at, p->piece) * sizeof(float), to);
            ra_cuda_peers_receive(p, part, (size_t)mine * sizeof(float), from);
        }
        ra_cuda_peers_end(p);
        ra_cuda_sum_parts(p->stream, mine, size, me, p->parts, p->piece, values + ra_comm_range_begin(p->comm, n, me) + at);
    }
}

void ra_cuda_peers_all_gather_f32(ra_cuda_peers *p, float *values, int64_t n)
{
    int size = p->comm->size, me = p->comm->rank;
    const float *mine = values + ra_comm_range_begin(p->comm, n, me);
    if (size == 1) return;
    ra_cuda_peers_begin(p);
    for (int step = 1; step < size; step++) {
        int to = (me + step) % size, from = (me - step + size) % size;
        ra_cuda_peers_send(p, mine, (size_t)length_of(p, n, me, 0, n) * sizeof(float), to);
        ra_cuda_peers_receive(p, values + ra_comm_range_begin(p->comm, n, from),
                              (size_t)length_of(p, n, from, 0, n) * sizeof(float), from);
    }
    ra_cuda_peers_end(p);
}
