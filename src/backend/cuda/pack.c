/* Packs on the device: one image, one copy. Device and pinned memory are kept for the next pack, as allocating either stops the device. */
#include "pack.h"

#include <realign/mem.h>

#include <string.h>

static size_t rounded(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

static ra_cuda_pack *take_pack(ra_cuda_state *s)
{
    ra_cuda_pack *p = s->idle_packs;
    if (p) {
        s->idle_packs = p->next;
        p->next = NULL;
        return p;
    }
    p = ra_calloc(1, sizeof *p);
    RA_CUDA(cudaEventCreateWithFlags(&p->copied, cudaEventDisableTiming));
    return p;
}

/* Half as much again, so that packs of about one size settle soon. */
static void grow(ra_cuda_state *s, ra_cuda_pack *p, size_t staging, size_t device)
{
    if (staging > p->staging_bytes) {
        RA_CUDA(cudaFreeHost(p->staging));
        p->staging_bytes = rounded(staging + staging / 2);
        RA_CUDA(cudaMallocHost(&p->staging, p->staging_bytes));
    }
    if (device > p->device_bytes) {
        ra_cuda_take_back(s, p->device, p->device_bytes);
        p->device_bytes = rounded(device + device / 2);
        p->device = ra_cuda_take(s, "a pack", p->device_bytes);
    }
}

void ra_cuda_place_pack(ra_backend *b, ra_pack *pack)
{
    ra_cuda_state *s = ra_cuda_state_of(b);
    ra_cuda_pack *p = pack->placed ? pack->placed : take_pack(s);
    RA_CUDA(cudaEventSynchronize(p->copied)); /* the last copy out of this memory */
    size_t ids = (size_t)pack->rows * sizeof(int32_t), position = rounded(ids), plan = position + rounded(ids);
    grow(s, p, plan + ra_attention_plan_bytes(pack->rows, pack->segments), 0);
    char *staging = p->staging;
    memcpy(staging, pack->token, ids);
    memcpy(staging + position, pack->position, ids);
    ra_attention_plan built = ra_attention_plan_build(pack, staging + plan);
    size_t bytes = plan + ra_attention_plan_image(&built);
    grow(s, p, 0, bytes);
    if (bytes) RA_CUDA(cudaMemcpyAsync(p->device, staging, bytes, cudaMemcpyHostToDevice, s->stream));
    RA_CUDA(cudaEventRecord(p->copied, s->stream));
    p->plan = ra_attention_plan_at(&built, (char *)p->device + plan);
    pack->placed = p;
    pack->placed_token = p->device;
    pack->placed_position = (const int32_t *)((char *)p->device + position);
}

void ra_cuda_release_pack(ra_backend *b, ra_pack *pack)
{
    ra_cuda_state *s = ra_cuda_state_of(b);
    ra_cuda_pack *p = pack->placed;
    if (!p) return;
    p->next = s->idle_packs;
    s->idle_packs = p;
    pack->placed = NULL;
    pack->placed_token = pack->placed_position = NULL;
}

void ra_cuda_packs_close(ra_cuda_state *s)
{
    while (s->idle_packs) {
        ra_cuda_pack *p = s->idle_packs;
        s->idle_packs = p->next;
        RA_CUDA(cudaEventSynchronize(p->copied));
        RA_CUDA(cudaEventDestroy(p->copied));
        RA_CUDA(cudaFreeHost(p->staging));
        ra_cuda_take_back(s, p->device, p->device_bytes);
        ra_free(p);
    }
}
