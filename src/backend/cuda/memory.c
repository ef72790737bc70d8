/* Device memory, and copies in and out of it. */
#include "cuda.h"

#include <realign/mem.h>

void *ra_cuda_take(ra_cuda_state *s, const char *what, size_t bytes)
{
    void *memory = NULL;
    cudaError_t status = cudaMalloc(&memory, bytes);
    if (status != cudaSuccess) {
        size_t available = 0, total = 0;
        (void)cudaGetLastError();
        (void)cudaMemGetInfo(&available, &total);
        const double gib = 1 << 30;
        ra_die("CUDA device %d has no %.3f GiB for %s (%s): of its %.2f GiB %.3f GiB are free, and this process holds %.3f GiB; "
               "smaller "
               "packs (pack.tokens), fewer samples at a time or more devices need less",
               s->device, (double)bytes / gib, what, cudaGetErrorName(status), (double)total / gib, (double)available / gib,
               (double)s->b->memory.live / gib);
    }
    s->b->memory.live += bytes;
    if (s->b->memory.live > s->b->memory.peak) s->b->memory.peak = s->b->memory.live;
    return memory;
}

void ra_cuda_take_back(ra_cuda_state *s, void *memory, size_t bytes)
{
    if (!memory) return;
    RA_CUDA(cudaFree(memory)); /* waits for what is queued */
    s->b->memory.live -= bytes;
}

void *ra_cuda_alloc(ra_backend *b, size_t bytes)
{
    ra_cuda_state *s = ra_cuda_state_of(b);
    if (bytes == 0) bytes = 1; /* an address of its own */
    void *memory = ra_cuda_take(s, "an array", bytes);
    RA_CUDA(cudaMemsetAsync(memory, 0, bytes, s->stream));
    if (s->allocations == s->allocations_most) {
        s->allocations_most = s->allocations_most ? 2 * s->allocations_most : 256;
        s->allocation = ra_realloc(s->allocation, s->allocations_most, sizeof *s->allocation);
    }
    s->allocation[s->allocations++] = (ra_cuda_allocation){memory, bytes};
    return memory;
}

void ra_cuda_release(ra_backend *b, void *memory)
{
    ra_cuda_state *s = ra_cuda_state_of(b);
    if (!memory) return;
    for (size_t i = s->allocations; i-- > 0;) { /* the newest ones go first, mostly */
        if (s->allocation[i].memory != memory) continue;
        ra_cuda_take_back(s, memory, s->allocation[i].bytes);
        s->allocation[i] = s->allocation[--s->allocations];
        return;
    }
    ra_die("memory.c: %p is released, which is no array of this backend", memory);
}

/* The caller's memory is pageable and may change as soon as this returns. */
void ra_cuda_upload(ra_backend *b, void *to, const void *host, size_t bytes)
{
    ra_cuda_state *s = ra_cuda_state_of(b);
    if (bytes == 0) return;
    RA_CUDA(cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, s->stream));
    RA_CUDA(cudaStreamSynchronize(s->stream));
}

void ra_cuda_download(ra_backend *b, void *host, const void *from, size_t bytes)
{
    ra_cuda_state *s = ra_cuda_state_of(b);
    if (bytes == 0) return;
    RA_CUDA(cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, s->stream));
    RA_CUDA(cudaStreamSynchronize(s->stream));
}

void ra_cuda_copy(ra_backend *b, void *to, const void *from, size_t bytes)
{
    if (bytes) RA_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, ra_cuda_state_of(b)->stream));
}

void ra_cuda_zero(ra_backend *b, void *memory, size_t bytes)
{
    if (bytes) RA_CUDA(cudaMemsetAsync(memory, 0, bytes, ra_cuda_state_of(b)->stream));
}

void *ra_cuda_workspace(ra_backend *b, size_t bytes)
{
    ra_cuda_state *s = ra_cuda_state_of(b);
    if (bytes > s->workspace_bytes) {
        ra_cuda_take_back(s, s->workspace, s->workspace_bytes);
        s->workspace = ra_cuda_take(s, "an operator's workspace", bytes);
        s->workspace_bytes = bytes;
    }
    return s->workspace;
}
