/* Sums over ranks: NCCL's peers, tied to the stream that computes, or, where they cannot be connected (two ranks on one device) or the program is built without
 * NCCL, host memory and MPI. */
#include "cuda.h"
#include "peer.h"

#include <realign/comm.h>
#include <realign/log.h>
#include <realign/mem.h>

struct ra_link {
    const ra_comm *comm;
    ra_cuda_peers *peers; /* NULL: through host memory */
};

#ifdef RA_WITH_NCCL
static ra_err connect_peers(ra_link *link, const char *what)
{
    char version[64];
    ra_err err = ra_cuda_peers_open(link->comm, what, &link->peers);
    if (err != RA_OK) {
        link->peers = NULL;
        return err;
    }
    ra_cuda_peers_version(version, sizeof version);
    ra_info("sums over the %s dimension go over %s", what, version);
    return RA_OK;
}

static void close_peers(ra_link *link)
{
    ra_cuda_peers_close(link->peers);
}

/* Between what was queued to compute and what will be. */
static void by_nccl(ra_backend *b, ra_link *link, void (*transfer)(ra_cuda_peers *, float *, int64_t), float *values, int64_t n)
{
    cudaStream_t stream = ra_cuda_state_of(b)->stream;
    ra_cuda_peers_after(link->peers, stream);
    transfer(link->peers, values, n);
    ra_cuda_peers_wait(link->peers); /* a rank that is gone must not leave this one waiting for ever */
    ra_cuda_peers_before(link->peers, stream);
}
#else
static ra_err connect_peers(ra_link *link, const char *what)
{
    (void)link, (void)what;
    return ra_fail(RA_ERR_UNSUPPORTED, "this program is built without NCCL (make CUDA=1 NCCL_HOME=DIR, with DIR/include/nccl.h)");
}

static void close_peers(ra_link *link)
{
    (void)link;
}
#endif

ra_link *ra_cuda_link_open(ra_backend *b, const ra_comm *comm, const char *what)
{
    (void)b;
    ra_link *link = ra_calloc(1, sizeof *link);
    link->comm = comm;
    if (comm->size > 1 && connect_peers(link, what) != RA_OK)
        ra_info("sums over the %s dimension go through host memory and MPI: %s", what, ra_error_message());
    return link;
}

void ra_cuda_link_close(ra_backend *b, ra_link *link)
{
    (void)b;
    close_peers(link);
    ra_free(link);
}

static void by_mpi(ra_backend *b, ra_link *link, void (*transfer)(const ra_comm *, float *, int64_t), float *values, int64_t n)
{
    ra_host_view view = ra_host_view_of(b, values, (size_t)n * sizeof *values);
    transfer(link->comm, view.host, n);
    ra_host_view_end(b, &view, true);
}

void ra_cuda_link_reduce_scatter(ra_backend *b, ra_link *link, float *values, int64_t n)
{
#ifdef RA_WITH_NCCL
    if (link->peers) {
        by_nccl(b, link, ra_cuda_peers_reduce_scatter_f32, values, n);
        return;
    }
#endif
    if (link->comm->size > 1) by_mpi(b, link, ra_comm_reduce_scatter_f32, values, n);
}

void ra_cuda_link_all_gather(ra_backend *b, ra_link *link, float *values, int64_t n)
{
#ifdef RA_WITH_NCCL
    if (link->peers) {
        by_nccl(b, link, ra_cuda_peers_all_gather_f32, values, n);
        return;
    }
#endif
    if (link->comm->size > 1) by_mpi(b, link, ra_comm_all_gather_f32, values, n);
}
