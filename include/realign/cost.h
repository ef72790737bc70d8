/* What a pass costs, from shapes alone: FLOPs (a multiply and an add are 2), parameters and kept activations of a layer, the embedding and the head. Products and
 * attention are counted, elementwise work (norms, rope, gated units, casts) is not. Not collective, no backend. */
#ifndef REALIGN_COST_H
#define REALIGN_COST_H
#include <realign/model.h>

/* What runs through the model. Weighing by contraction costs what training of the same parameters does: a product with the tangent where training has one with the rows. */
typedef struct {
    ra_training training; /* RA_FROZEN: forward alone */
    ra_lora_config lora;  /* of RA_TRAIN_ADAPTER */
    double context;       /* keys that a row attends to on average, itself included */
    double head_share;    /* head rows a row of a pack: 1 where every token is scored, 0.8 where a fifth are prompts */
    double kl_share;      /* of them those of Retain samples, a row of a pack: they cost the reference's logits too */
    ra_recompute recompute;
    bool split; /* ra_keeping.split: gradients between products are kept too */
} ra_workload;

/* FLOPs a row of a pack, and sizes. */
typedef struct {
    double forward;
    double input;  /* backward pass: gradients of activations */
    double weight; /* backward pass: gradients of weights, or contraction */
    double
        again; /* backward pass: what is computed a second time rather than kept: attention's scores, the head's logits, what `recompute` says. Work, but not necessary work */
    int64_t parameters, trainable;
    int64_t kept_a,
        kept_r; /* elements of type A and R a row that the forward pass leaves for the backward pass, none where it does not follow */
} ra_cost;

/* Layer i. The window of a layer bounds its context, exact where all rows or none see more than the window. */
ra_cost ra_cost_layer(const ra_arch *arch, int32_t i, const ra_workload *w);
/* No products, but a matrix to hold. */
ra_cost ra_cost_embedding(const ra_arch *arch, const ra_workload *w);
/* The final norm and the head. `own_copy`: its matrix is held beside the embedding's: always true unless the model ties them and one rank has both. */
ra_cost ra_cost_head(const ra_arch *arch, const ra_workload *w, bool own_copy);
ra_cost ra_cost_model(const ra_arch *arch, const ra_workload *w);

ra_cost ra_cost_add(ra_cost a, ra_cost b);
/* Necessary FLOPs a row: forward + input + weight. */
double ra_cost_flops(const ra_cost *c);
/* All FLOPs a row, `again` included: what time is in proportion to. */
double ra_cost_work(const ra_cost *c);

/* How a rank keeps it. */
typedef struct {
    size_t a_size, r_size; /* bytes of an element, as in backend.h */
    int32_t rows;          /* of a pack */
    int32_t shards;        /* ranks that share the optimiser's moments */
} ra_memory;

/* Bytes on one rank: compute copies, masters where they are another copy or trained, gradient, moments, and the activations of `held` packs (ra_schedule_theory_peak).
 * Scratch that does not grow with the layers is left out. */
double ra_cost_bytes(const ra_cost *c, const ra_workload *w, const ra_memory *memory, double held);

#endif
