/* A directory of reference values, laid out as described in doc/formats.md (section Reference directories), and the table of comparisons. */
#ifndef RA_CHECK_FIXTURE_H
#define RA_CHECK_FIXTURE_H
#include <realign/backend.h>
#include <realign/comm.h>
#include <realign/h5.h>
#include <realign/store.h>

typedef struct {
    int32_t *ids; /* storage of the three arrays below */
    ra_sample sample;
    double *logp[RA_ROLES], *ref_logp[RA_ROLES]; /* per token, NULL where absent */
    int32_t action;                              /* 0 invert, 1 punish, 2 retain, 3 punish with correction */
} ra_check_sample;

typedef struct {
    const char *dir;
    ra_h5 *h5;
    int64_t samples, gold;
    ra_check_sample *sample, *pair; /* pair: the gold batch, y+ as y_w and y- as y_l */
    double beta, tau, alpha_kl, gamma, lr, beta1, beta2, eps, clip;
    int32_t longest; /* tokens of the largest sample with all its responses */
} ra_fixture;

ra_err ra_fixture_open(const char *dir, ra_fixture *out);
void ra_fixture_close(ra_fixture *f);

/* ---- comparisons: one row a quantity, the largest error over its elements ---- */
typedef struct {
    char name[64];
    double worst, tolerance;
    int64_t elements;
    bool passed;
    bool parts; /* of tensors, which the stages of a pipeline share out */
} ra_check_row;

typedef struct {
    ra_check_row row[64];
    int rows;
    const char *note; /* printed below the table; NULL: none. Static */
} ra_check_table;

/* Records |got - want| / max(|want|, floor) of n elements under `name` (rows of one name merge). A NaN fails. */
void ra_check_compare(ra_check_table *t, const char *name, double tolerance, double floor, const double *got, const double *want,
                      int64_t n);
/* Relative L2 distance of two tensors, for gradients: |got - want| / |want|. */
void ra_check_compare_tensor(ra_check_table *t, const char *name, double tolerance, const double *got, const double *want,
                             int64_t n);
/* Collective. The worst of all ranks, on all of them. */
void ra_check_merge(ra_check_table *t, const ra_comm *world, const ra_comm *pipeline);
void ra_check_print(const ra_check_table *t);
int ra_check_failures(const ra_check_table *t);

#endif
