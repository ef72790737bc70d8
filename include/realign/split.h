/* Which layers a virtual stage of the pipeline owns: contiguous ranges, so that the stage with most work has as little as can be. Pure functions, not collective; the same
 * on every rank. */
#ifndef REALIGN_SPLIT_H
#define REALIGN_SPLIT_H
#include <realign/cost.h>

/* Virtual stage s = chunk ranks + rank, as in schedule.h. The embedding belongs to the first one, final norm and head to the last. */
typedef struct {
    int32_t stages;
    int32_t *begin; /* (stages + 1) stage s owns layers [begin[s], begin[s + 1]) */
    ra_cost *cost;  /* (stages) of its layers, embedding and head */
    double *bytes;  /* (stages) by ra_cost_bytes */
} ra_split;

typedef struct {
    ra_workload work;
    ra_memory memory;
    const double *
        held; /* (stages) packs whose activations a stage holds at once: ra_schedule_theory_peak of its rank, divided by the chunks; NULL: 1 */
} ra_split_model;

/* The split of `ranks` x `chunks` virtual stages whose largest ra_cost_work is the smallest there is (exactly, by dynamic programming); of all such splits the one whose largest memory is
 * smallest, and of those the one whose memory is most even (least sum of squares). Every stage has a layer at least. RA_ERR_ARG names the
 * counts and what is accepted. Free with ra_split_free. */
ra_err ra_split_make(const ra_arch *arch, const ra_split_model *model, int32_t ranks, int32_t chunks, ra_split *out);
/* A split given by hand: layers of each virtual stage in order, "8,8,7,7". RA_ERR_ARG names the entry or the sum that is wrong, and what is accepted. */
ra_err ra_split_parse(const char *list, const ra_arch *arch, const ra_split_model *model, int32_t ranks, int32_t chunks,
                      ra_split *out);
/* The same from costs: layer (layers); first and last are added to the ends. */
ra_err ra_split_costs(const ra_cost *layer, int32_t layers, const ra_cost *first, const ra_cost *last,
                      const ra_split_model *model, int32_t ranks, int32_t chunks, ra_split *out);
void ra_split_free(ra_split *s);
/* Largest work of a stage relative to the mean, 1: even. A pipeline runs at the pace of its slowest stage. */
double ra_split_imbalance(const ra_split *s);
/* "8,8,7,7", as ra_split_parse reads it; free with free. */
char *ra_split_text(const ra_split *s);

#endif
