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
    ra_backend *b;
    ra_fixture f;
    ra_check_table table;
    ra_objective objective;
    ra_check_tolerances tol;
    ra_microbatch *mb;
    ra_model *reference; /* frozen */
} ra_checker;

/* The dataset as doubles, where it holds n values. */
ra_err ra_check_read(ra_checker *c, const char *path, int64_t n, double *out);
ra_err ra_check_open_model(ra_checker *c, const char *name, ra_training training, const char *adapter, ra_model **out);
/* The reference's head, in A. */
const void *ra_check_reference_head(const ra_checker *c);
/* Compares a flat vector with the tensors of a group. Adapter tensors are named as PEFT names them inside a model. */
ra_err ra_check_tensors(ra_checker *c, const ra_layout *layout, const char *group, const char *row, double tolerance,
                        const void *values);
/* Adds the gradient of eq. 6 over all samples; returns its value. */
double ra_check_objective(ra_checker *c, ra_engine *e, ra_engine *reference, const double *weight, void *gradient);
/* Five AdamW steps from theta_ref against `trajectory` and `trajectory_final`. */
ra_err ra_check_trajectory(ra_checker *c, ra_engine *reference);

#endif
