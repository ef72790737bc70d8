/* The host side of the CUDA backend: one device, one stream, on which everything is queued in the order of the calls. */
#ifndef RA_BACKEND_CUDA_CUDA_H
#define RA_BACKEND_CUDA_CUDA_H
#include "check.h"

#include <realign/backend.h>

typedef struct ra_cuda_products ra_cuda_products;
typedef struct ra_cuda_pack ra_cuda_pack;

typedef struct {
    void *memory;
    size_t bytes;
} ra_cuda_allocation;

typedef struct {
    ra_backend *b; /* whose `memory` counts arrays, packs and the workspace; without what the libraries hold */
    cudaStream_t stream;
    ra_cuda_products *products;
    ra_cuda_allocation *allocation; /* what alloc gave and release has not taken back, in no order */
    size_t allocations, allocations_most;
    void *workspace; /* of one operator at a time */
    size_t workspace_bytes;
    double *result, *host_result; /* of sums that return a number: on the device, and pinned */
    ra_cuda_pack *idle_packs;     /* released ones, to be filled again */
    int device;
    char library[320];
} ra_cuda_state;

static inline ra_cuda_state *ra_cuda_state_of(const ra_backend *b)
{
    return (ra_cuda_state *)b->state;
}

/* ---- memory.c ---- */
void *ra_cuda_alloc(ra_backend *b, size_t bytes);
void ra_cuda_release(ra_backend *b, void *memory);
void ra_cuda_upload(ra_backend *b, void *to, const void *host, size_t bytes);
void ra_cuda_download(ra_backend *b, void *host, const void *from, size_t bytes);
void ra_cuda_copy(ra_backend *b, void *to, const void *from, size_t bytes);
void ra_cuda_zero(ra_backend *b, void *memory, size_t bytes);
/* At least `bytes` of workspace, which the next operator uses again; what is queued on the stream is done with it by then. */
void *ra_cuda_workspace(ra_backend *b, size_t bytes);
/* Device memory that is counted but not zeroed; fatal, with what there is, where it fails. ra_cuda_take_back counts it down and frees it. */
void *ra_cuda_take(ra_cuda_state *s, const char *what, size_t bytes);
void ra_cuda_take_back(ra_cuda_state *s, void *memory, size_t bytes);

/* ---- products.c ---- */
ra_err ra_cuda_products_open(ra_cuda_products **out, bool bf16, bool tf32);
void ra_cuda_products_close(ra_cuda_products *p);
void ra_cuda_products_version(char *text, size_t bytes); /* "cuBLASLt 13.0" */
void ra_cuda_gemm(ra_backend *b, ra_transpose tx, ra_transpose ty, int64_t m, int64_t n, int64_t k, const void *x, int64_t ldx,
                  const void *y, int64_t ldy, bool accumulate, bool c_is_r, void *c, int64_t ldc);
void *ra_cuda_pack_weights(ra_backend *b, int64_t n, int64_t k, const void *w, int64_t ldw);
size_t ra_cuda_packed_bytes(ra_backend *b, int64_t n, int64_t k);
void ra_cuda_release_packed(ra_backend *b, void *packed);
void ra_cuda_gemm_packed(ra_backend *b, int64_t m, int64_t n, int64_t k, const void *x, int64_t ldx, const void *packed,
                         bool accumulate, bool c_is_r, void *c, int64_t ldc);

/* ---- link.c ---- */
ra_link *ra_cuda_link_open(ra_backend *b, const ra_comm *comm, const char *what);
void ra_cuda_link_close(ra_backend *b, ra_link *link);
void ra_cuda_link_reduce_scatter(ra_backend *b, ra_link *link, float *values, int64_t n);
void ra_cuda_link_all_gather(ra_backend *b, ra_link *link, float *values, int64_t n);

/* ---- device.c ---- */
/* Chooses the device, the rank's number on its host modulo the devices there, and says what memory the rank may count on (memory.capacity). Not collective. */
ra_err ra_cuda_device_open(ra_cuda_state *s);

#endif
