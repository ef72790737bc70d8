/* Losses of METHOD section 3, and the fused head that feeds them. A micro-batch is a pack with its head rows and the items they belong to. */
#ifndef REALIGN_LOSS_H
#define REALIGN_LOSS_H
#include <realign/model.h>
#include <realign/pack.h>
#include <realign/store.h>

typedef enum {
    RA_LOSS_PAIR,             /* -log sigma(beta [r(y_w) - r(y_l)]): plain DPO, and gold pairs (eq. 5) */
    RA_LOSS_INVERT,           /* eq. 1 or 1' on the reversed pair */
    RA_LOSS_PUNISH,           /* eq. 2 */
    RA_LOSS_PUNISH_CORRECTED, /* eq. 2c */
    RA_LOSS_RETAIN,           /* eq. 3 */
    RA_LOSS_SCORE             /* log p itself: no loss in the forward pass; backward differentiates weight * sum of log p */
} ra_loss_kind;

typedef struct {
    double beta, tau, alpha_kl;
    double npo_scale; /* of eq. 2; 1 as in METHOD, 2 / beta as NPO's own paper */
    bool ipo;         /* eq. 1' in place of eq. 1 */
} ra_objective;

/* One loss term: value and derivatives with respect to the log-ratios of its responses (0 where a response does not enter). */
typedef struct {
    double loss, slope[RA_ROLES];
} ra_loss_value;

/* Each formula stands in its own file. Margins are log-ratio differences r+ - r-. */
void ra_loss_dpo(double beta, double margin, double *loss, double *slope);          /* -log sigma(beta margin) */
void ra_loss_ipo(double tau, double margin, double *loss, double *slope);           /* (margin - 1 / (2 tau))^2 */
void ra_loss_npo(double beta, double scale, double r, double *loss, double *slope); /* -scale log sigma(-beta r) */
/* r: log-ratios by role. RA_LOSS_RETAIN and RA_LOSS_SCORE are 0 here. */
ra_loss_value ra_loss_pairwise(const ra_objective *objective, ra_loss_kind kind, const double r[RA_ROLES]);
/* Which responses a kind reads: bit of each role. */
unsigned ra_loss_roles(ra_loss_kind kind);

/* ---- micro-batches ---- */
typedef struct {
    int32_t item;
    ra_role role;
    int32_t first, count; /* head rows */
    double reference;     /* log p_ref(y|x), given */
    double logp;          /* log p_theta(y|x), computed */
} ra_response;

typedef struct {
    int64_t sample;
    ra_loss_kind kind;
    double weight;              /* multiplies the loss: w_i of eq. 6, or alpha_KL for Retain */
    int32_t response[RA_ROLES]; /* index of each response, -1: not here */
    double loss;                /* unweighted, computed */
} ra_item;

typedef struct {
    ra_pack pack;
    int32_t items, responses;
    ra_item *item; /* item i is tree i of the pack */
    ra_response *response;
    int32_t head_rows, kl_first; /* head rows [kl_first, head_rows) belong to Retain items */
    int32_t *head_row;           /* row of the pack whose state predicts ... */
    int32_t *head_target;        /* ... this token */
    int32_t max_rows, max_items, max_head_rows;
} ra_microbatch;

/* Room for packs of `rows` rows. Rows also bound the trees; 3 responses a tree. */
ra_microbatch *ra_microbatch_new(int32_t rows);
void ra_microbatch_free(ra_microbatch *mb);
void ra_microbatch_clear(ra_microbatch *mb);
/* What the sample takes of a pack with these roles: rows (the last token of a response is predicted, never read), or head rows where those are more. */
int32_t ra_microbatch_rows(const ra_sample *sample, unsigned roles);
/* Adds a sample as one tree. `reference`: log p_ref by role, or NULL (0). False where there is no room. Retain items must come after all others. */
bool ra_microbatch_add(ra_microbatch *mb, const ra_sample *sample, ra_loss_kind kind, double weight, const double *reference);

/* ---- the head ---- */
typedef struct ra_head ra_head;
/* Buffers for up to `rows` head rows. */
ra_head *ra_head_new(ra_model *m, int32_t rows);
void ra_head_free(ra_head *head);
/* For Retain rows: the reference's head (V, hidden) A - m's own, or a frozen copy - and its final hidden states after the last norm,
 * (head_rows - kl_first, hidden) A, in head-row order. */
void ra_head_set_reference(ra_head *head, const void *weight, const void *hidden);
/* log p of every head row's target; with Retain rows, KL(p_ref || p_theta) of theirs. `last`: (rows, hidden) R, the residual stream before the final norm. logp, kl: host arrays (head_rows). */
void ra_head_forward(ra_head *head, const ra_microbatch *mb, const void *last, double *logp, double *kl);
/* The normalised final hidden states of the last forward, (head_rows, hidden) A: what ra_head_set_reference wants of the reference model. */
const void *ra_head_hidden(const ra_head *head);
/* After ra_head_forward. coefficient: host, [i] = dL / dlog p of row i (before kl_first) or dL / dKL of row i (from there on). dx: (rows, hidden) R, overwritten. */
void ra_head_backward(ra_head *head, const ra_microbatch *mb, const double *coefficient, void *dx, const ra_backward *mode);
/* Where the last backward contracted: what each head row contributes to <tangent, grad L>. Host, (head_rows). */
const double *ra_head_dot(ra_head *head);
/* Bytes of backend memory that ra_head_new takes for a model laid out so. */
size_t ra_head_bytes(const ra_model *m, int32_t rows);

#endif
