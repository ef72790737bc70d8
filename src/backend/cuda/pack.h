/* A pack on the device: what place_pack makes of a ra_pack and its `placed` points to. Attention kernels take the plan. */
#ifndef RA_BACKEND_CUDA_PACK_H
#define RA_BACKEND_CUDA_PACK_H
#include "attention_plan.h"
#include "cuda.h"

struct ra_cuda_pack {
    ra_attention_plan plan; /* its arrays are device memory */
    ra_cuda_pack *next;     /* of the idle ones */
    void *device, *staging; /* one image of tokens, positions and the plan; pinned host memory with room to build it */
    size_t device_bytes, staging_bytes;
    cudaEvent_t copied; /* the last copy out of `staging` */
};

static inline const ra_attention_plan *ra_cuda_plan_of(const ra_pack *pack)
{
    if (!pack->placed) ra_die("a pack of %d rows was not placed on the device", pack->rows);
    return &((const ra_cuda_pack *)pack->placed)->plan;
}

void ra_cuda_place_pack(ra_backend *b, ra_pack *pack);
void ra_cuda_release_pack(ra_backend *b, ra_pack *pack);
/* Frees the idle ones. */
void ra_cuda_packs_close(ra_cuda_state *s);

#endif
