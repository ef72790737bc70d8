/* What the files of `realign check` share. */
#ifndef RA_CHECK_H
#define RA_CHECK_H
#include "check_fixture.h"
#include <realign/engine.h>

/* Tolerances, one for each kind of quantity. Log-probabilities and losses are absolute below 1; gradients and parameters are by relative L2 norm of a tensor, and the files hold
 * them in float32; products with g_J are relative to the largest of their column. bf16: twice the largest error measured on the reference models, rounded up to one digit, doc/performance.md. */
typedef struct {
    double logp;       /* of a token, and its logits */
    double loss;       /* eq. 1, 2, 2c, of summed log-probabilities */
    double square;     /* eq. 1': the square of a margin */
    double kl;         /* eq. 3 */
    double gradient;   /* of a tensor */
    double norm;       /* of a whole gradient */
    double product;    /* with g_J: a(y), <g_J, grad L>, cosine, w_i */
    double objective;  /* eq. 6, also along the trajectory */
    double late_norm;  /* gradient norms along the trajectory */
    double parameters; /* after five steps */
} ra_check_tolerances;

typedef struct {
    const ra_settings *s;
    ra_grid grid; /* replicas take samples in turn where sums are wanted */
    ra_engine_config engine;
    ra_backend *b;
    ra_fixture f;
    ra_check_table table;
    ra_objective objective;
    ra_check_tolerances tol;
    ra_microbatch *mb;   /* the last one that was run, with its log p */
    double *token_logp;  /* (head rows) of it */
    void *states;        /* (rows, hidden) A: the reference's final states that were last kept; on the last stage */
    ra_model *reference; /* frozen */
} ra_checker;

/* The dataset as doubles, where it holds n values. */
ra_err ra_check_read(ra_checker *c, const char *path, int64_t n, double *out);
/* group/name of n values. */
ra_err ra_check_read_vector(ra_checker *c, const char *group, const char *name, int64_t n, double *out);
ra_err ra_check_open_model(ra_checker *c, const char *name, ra_training training, const char *adapter, ra_model **out);
/* Over this checker's grid; with the reference's head for Retain samples. */
ra_err ra_check_open_engine(ra_checker *c, ra_model *m, bool keep, ra_engine **out);
/* Compares a flat vector with the tensors of a group. Adapter tensors are named as PEFT names them inside a model. */
ra_err ra_check_tensors(ra_checker *c, const ra_layout *layout, const char *group, const char *row, double tolerance,
                        const void *values);
/* Collective. Sums a vector in the trainable layout over replicas and over the two places of a tied embedding. */
void ra_check_reduce(ra_checker *c, const ra_model *m, void *vector);

/* ---- check_run.c: one sample through an engine ---- */
typedef struct {
    const ra_sample *sample;
    ra_loss_kind kind;
    double weight;
    const double *reference; /* log p_ref by role; NULL: 0 */
    bool own_reference;      /* the model is its own reference */
    bool with_states;        /* Retain: against c->states */
    bool keep_states;        /* the final states go to c->states */
    const ra_backward *backward;
} ra_check_step;
/* Collective over the pipeline. *loss and *dot may be NULL. */
ra_err ra_check_run(ra_checker *c, ra_engine *e, const ra_check_step *step, double *loss, double *dot);
ra_loss_kind ra_check_kind(const ra_check_sample *s);
/* log p_ref(y|x) by role, from the file. */
void ra_check_references(const ra_check_sample *s, double reference[RA_ROLES]);

/* check_impact.c: g_J, <g_J, grad L_i> and w_i, over all parameters or an adapter's. */
ra_err ra_check_impact(ra_checker *c, ra_training training, const char *adapter, const char *group);
/* Adds the gradient of eq. 6 over this replica's samples; *loss: over all of them. */
ra_err ra_check_objective(ra_checker *c, ra_engine *e, ra_engine *reference, const double *weight, void *gradient, double *loss);
/* Five AdamW steps from theta_ref against `trajectory` and `trajectory_final`. */
ra_err ra_check_trajectory(ra_checker *c, ra_engine *reference);

#endif
