/* What the files of the schedule share. */
#ifndef RA_SCHEDULE_IMPL_H
#define RA_SCHEDULE_IMPL_H
#include <realign/schedule.h>

/* Micro-batches go in groups of at least p: one has crossed all ranks when the next chunk of its group begins, whatever m. The first `larger` groups have size + 1
 * micro-batches, the others size; fewer than p micro-batches are one group, whose chunks have to wait. */
typedef struct {
    int32_t size, larger;
} ra_schedule_groups;
static inline ra_schedule_groups ra_schedule_groups_of(int32_t p, int32_t m)
{
    int32_t n = m < p ? 1 : m / p;
    return (ra_schedule_groups){m / n, m % n};
}

/* Fills receive and send of every slot. */
void ra_schedule_link(ra_schedule *s);
/* After ra_schedule_link: when receives are posted, and which buffers messages and activations take. */
ra_err ra_schedule_place(ra_schedule *s);

static inline bool ra_slot_is_backward(ra_slot_op op) /* the op that hands a gradient on */
{
    return op == RA_SLOT_BACKWARD || op == RA_SLOT_BACKWARD_INPUT;
}

#endif
