/* The backend's way between ranks: NCCL's peers, tied to the stream that computes. */
#include "cuda.h"
#include "peer.h"

#include <realign/log.h>
#include <realign/mem.h>

struct ra_link {
    ra_cuda_peers *peers;
};

ra_link *ra_cuda_link_open(ra_backend *b, const ra_comm *comm, const char *what)
{
    (void)b;
    ra_link *link = ra_calloc(1, sizeof *link);
    if (ra_cuda_peers_open(comm, what, &link->peers) == RA_OK) return link;
    ra_info("%s: sums go through host memory and MPI: %s", what, ra_error_message());
    ra_free(link);
    return NULL;
}

void ra_cuda_link_close(ra_backend *b, ra_link *link)
{
    (void)b;
    ra_cuda_peers_close(link->peers);
    ra_free(link);
}

/* Between what was queued to compute and what will be. */
static void tie(ra_backend *b, ra_link *link, void (*transfer)(ra_cuda_peers *, float *, int64_t), float *values, int64_t n)
{
    cudaStream_t stream = ra_cuda_state_of(b)->stream;
    ra_cuda_peers_after(link->peers, stream);
    transfer(link->peers, values, n);
    ra_cuda_peers_wait(link->peers); /* a rank that is gone must not leave this one waiting for ever */
    ra_cuda_peers_before(link->peers, stream);
}

void ra_cuda_link_reduce_scatter(ra_backend *b, ra_link *link, float *values, int64_t n)
{
    tie(b, link, ra_cuda_peers_reduce_scatter_f32, values, n);
}

void ra_cuda_link_all_gather(ra_backend *b, ra_link *link, float *values, int64_t n)
{
    tie(b, link, ra_cuda_peers_all_gather_f32, values, n);
}
