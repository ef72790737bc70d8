/* Tensors that the stages of a replica hold between them, read by its first rank: it asks for a piece, the stage that has the tensor answers. Nobody holds more than that piece of what
 * is not its own, and since the first rank alone decides when it has enough, its errors leave no one waiting. */
#ifndef REALIGN_ENGINE_EXPORT_STAGES_H
#define REALIGN_ENGINE_EXPORT_STAGES_H
#include <realign/comm.h>
#include <realign/hfdir.h>

typedef struct {
    const ra_comm *pipeline;
    const int32_t *stage; /* (tensors) that has each */
    ra_hf_read read;      /* of this rank's own tensors, by the same numbers */
    const void *context;
    size_t element; /* bytes of one, as read gives them */
} ra_stages;

/* On rank 0, any number of times, as an ra_hf_read whose context is an ra_stages; then the end, in every case. */
ra_err ra_stages_read(const void *stages, int index, int64_t first, int64_t count, void *out);
void ra_stages_end(const ra_stages *s);
/* On the others: answers until the end. What fails here is told to rank 0. */
void ra_stages_serve(const ra_stages *s);

#endif
