/* Runs one case of one operator on one backend and keeps its outputs, so that the same few lines of a case serve every backend and precision.
 *
 * A case draws its inputs through op_a, op_r and op_double from a seeded generator, in double, rounded to the element types of the backend under
 * test: the reference and that backend get the same numbers, and what differs is the operator's own error. Outputs come from op_out_* (filled with
 * OP_RUBBISH, so that gaps between rows must stay as they are) and op_inout_*; op_run_case reads them all back. */
#ifndef TESTS_SUPPORT_OP_RUN_H
#define TESTS_SUPPORT_OP_RUN_H
#include <realign/backend.h>
#include <realign/rng.h>

#define OP_RUBBISH 7.0
enum { OP_MAX_BUFFERS = 24, OP_MAX_SEGMENTS = 12 };

/* Arrays of type A, of type R and of double in the backend's memory; doubles in host memory, which a case works out itself. */
typedef enum { OP_A, OP_R, OP_DOUBLE, OP_HOST } op_kind;

/* A backend under test. An output x passes against the reference y where |x - y| <= tolerance (|y| + rms of the output). */
typedef struct {
    const char *name, *precision;
    double tolerance[4]; /* by op_kind */
    double rounding;     /* factor for cases that round what they sum */
} op_instance;

/* The backends that the tests of operators run on; a new one is a new row. */
extern const op_instance op_instances[];
extern const int op_instance_count;

typedef struct {
    const char *name; /* NULL: an input */
    op_kind kind;
    int64_t n;
    void *memory; /* of the backend, or host (OP_HOST) */
    void *bytes;  /* outputs: as the backend left them */
    double *value;
} op_buffer;

typedef struct {
    ra_backend *b;            /* where it runs */
    const ra_backend *tested; /* whose element types the inputs are rounded to */
    ra_rng rng;
    op_buffer buffer[OP_MAX_BUFFERS];
    int buffers;
} op_run;

/* One row of the table of cases; an operator reads the fields it needs and leaves the rest 0. */
typedef struct op_case {
    const char *operator;
    void (*run)(op_run *r, const struct op_case *c);
    int64_t rows, n, k; /* of a product: m = rows */
    int64_t pad;        /* leading dimension - row length */
    ra_transpose tx, ty;
    bool accumulate, c_is_r, plus_one, inverse, in_place, no_dw, no_g;
    ra_glu glu;
    int32_t heads, kv_heads, head_dim, window;
    double softcap;
    const int32_t (*forest)[2]; /* (parent, length) of each segment, ends with length -1 */
    double spread;              /* factor on the inputs of attention, glu, norm and head operators; 0: 1 */
    double slack;               /* factor on the tolerance; 0: 1 */
    bool rounds;                /* what it sums may be rounded to A first: the instance's factor applies too */
} op_case;

static inline double op_spread(const op_case *c)
{
    return c->spread > 0 ? c->spread : 1;
}

/* Whether the instance is tested by this program: its backend is built in and, of the arguments, one is its name, or there are none. */
bool op_wanted(const op_instance *instance, int arguments, char **argument);
/* NULL, with `why` set, where the backend is not fit for this machine. */
ra_backend *op_open(const op_instance *instance, const char **why);

/* Runs `c` on `b` from `seed`; the outputs stay in `r` until op_run_free. */
void op_run_case(op_run *r, const op_case *c, ra_backend *b, const ra_backend *tested, uint64_t seed);
void op_run_free(op_run *r);

/* Prints every output's worst error and returns how many outputs are out of tolerance, or not finite. */
int op_compare(const op_run *got, const op_run *wanted, const op_case *c, const op_instance *instance);
/* How many outputs are not bitwise the same. */
int op_compare_bytes(const op_run *got, const op_run *again);

/* For cases. n normals times `scale`, rounded to the tested type. */
void *op_a(op_run *r, int64_t n, double scale);
void *op_r(op_run *r, int64_t n, double scale);
double *op_double(op_run *r, int64_t n, double scale);
void *op_given(op_run *r, op_kind kind, int64_t n, const double *value);
void *op_out(op_run *r, const char *name, op_kind kind, int64_t n);
void *op_inout(op_run *r, const char *name, op_kind kind, int64_t n, double scale);
double op_rounded(const op_run *r, op_kind kind, double x); /* x as the tested type holds it */
/* n indices in [0, below); one in `negative` of them -1 (0: none). Freed with the run, as all that follow. */
int32_t *op_indices(op_run *r, int64_t n, int64_t below, int negative);
/* The same in host memory, for cases that change them; and a copy for the operators. */
int32_t *op_host_indices(op_run *r, int64_t n, int64_t below, int negative);
int32_t *op_placed_indices(op_run *r, int64_t n, const int32_t *index);
/* n doubles of the backend, as they are now, in host memory. */
double *op_fetched(op_run *r, int64_t n, const double *from);
/* A pack of the forest; positions continue the parent's. Not placed. Freed with op_pack_free. */
ra_pack op_pack(const int32_t (*forest)[2]);
void op_pack_free(ra_pack *pack);

#endif
