/* Device memory between ranks, over NCCL: activations and their gradients between the stages of a pipeline, gradients and weights over the data dimension.
 *
 * A set of peers is the ranks of one communicator, each with a device of its own. Its transfers are queued on a stream of the set's, beside what the backend computes;
 * ra_cuda_peers_after and ra_cuda_peers_before tie the two streams together. Calls that transfer return once their work is queued; they are made in the
 * same order on both sides. Sums run in ascending rank order, in double, and are rounded once: the bits are those of ra_comm_reduce_scatter_f32 for the same ranks, and no
 * choice of NCCL's (algorithm, channels, topology) touches them, as it only moves bytes.
 * Transfers of two sets (a pipeline's and the data dimension's) are not left under way together, as NCCL's kernels may wait for each other: _after and _before of one on the
 * other's compute stream order them.
 * A call that NCCL refuses is fatal, with the call, the rank and the node, as is a transfer that breaks while ra_cuda_peers_wait watches it. */
#ifndef RA_BACKEND_CUDA_PEER_H
#define RA_BACKEND_CUDA_PEER_H
#include "check.h"

#include <realign/comm.h>
#include <stddef.h>
#include <stdint.h>

typedef struct ra_cuda_peers ra_cuda_peers;

/* Collective over `comm`, which outlives the set. Every rank has chosen its device (cudaSetDevice) before, and no two the same one. `what` names the set in messages: "pipeline".
 * Takes at most 256 MiB of device memory for sums, none where the communicator has one rank.
 * RA_ERR_UNSUPPORTED, on all ranks, with NCCL's reason where it cannot connect them. */
ra_err ra_cuda_peers_open(const ra_comm *comm, const char *what, ra_cuda_peers **out);
/* Collective. Waits for the set's transfers. */
void ra_cuda_peers_close(ra_cuda_peers *p);

/* Not collective. Transfers queued from now on wait for what is queued on `stream` now. */
void ra_cuda_peers_after(ra_cuda_peers *p, cudaStream_t stream);
/* Not collective. What is queued on `stream` from now on waits for the transfers queued so far. */
void ra_cuda_peers_before(ra_cuda_peers *p, cudaStream_t stream);
/* Not collective. Waits on the host for the transfers queued so far, and ends the program where one of them failed (a peer that is gone). */
void ra_cuda_peers_wait(ra_cuda_peers *p);

/* Between two ranks of the set: `x` is device memory and stays as it is until the transfer is done. A send waits for its receive. Between ra_cuda_peers_begin and
 * ra_cuda_peers_end sends and receives run together, so that two neighbours may each send first. */
void ra_cuda_peers_send(ra_cuda_peers *p, const void *x, size_t bytes, int to);
void ra_cuda_peers_receive(ra_cuda_peers *p, void *x, size_t bytes, int from);
void ra_cuda_peers_begin(ra_cuda_peers *p);
void ra_cuda_peers_end(ra_cuda_peers *p);

/* Collective. As ra_comm_reduce_scatter_f32 and ra_comm_all_gather_f32, for (n) floats of device memory: rank r is left with, or gives, [begin(r), begin(r + 1)),
 * begin = ra_comm_range_begin. Each rank sends and receives (size - 1) / size of the array. */
void ra_cuda_peers_reduce_scatter_f32(ra_cuda_peers *p, float *values, int64_t n);
void ra_cuda_peers_all_gather_f32(ra_cuda_peers *p, float *values, int64_t n);

/* Of the library, for logs: "NCCL 2.28.9". */
void ra_cuda_peers_version(char *text, size_t bytes);

#endif
