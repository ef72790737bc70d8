/* Every operator on every backend and precision: against the reference within the instance's tolerance, and bitwise the same
 * when called again, on host backends with one thread and with three. usage: agree [BACKEND ...] */
#include "support/op_cases.h"

#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { SEED = 20250 };

typedef struct {
    const op_case *c;
    const op_instance *instance;
    ra_backend *b, *ref;
    const char *why; /* the backend is not here */
    char name[160];
} agreement;

static void agree(void **state)
{
    const agreement *t = *state;
    if (!t->b) {
        printf("# SKIP: %s %s: %s\n", t->instance->name, t->instance->precision, t->why);
        skip();
    }
    uint64_t seed = SEED + (uint64_t)(t->c - op_cases);
    op_run wanted, got, again;
    op_run_case(&wanted, t->c, t->ref, t->b, seed);
    int bad = 0, different = 0;
    for (int threads = 1; threads <= (t->b->host ? 3 : 1); threads += 2) {
        omp_set_num_threads(threads);
        op_run_case(&got, t->c, t->b, t->b, seed);
        op_run_case(&again, t->c, t->b, t->b, seed);
        printf("# %s, seed %llu, %d threads\n", t->name, (unsigned long long)seed, threads);
        bad += op_compare(&got, &wanted, t->c, t->instance);
        different += op_compare_bytes(&got, &again);
        op_run_free(&got);
        op_run_free(&again);
    }
    op_run_free(&wanted);
    assert_int_equal(bad, 0);
    assert_int_equal(different, 0);
}

static void name_case(agreement *t)
{
    const op_case *c = t->c;
    int n = snprintf(t->name, sizeof t->name, "%s %s %s", t->instance->name, t->instance->precision, c->operator);
#define ADD(value, format, ...)                          \
    if ((value) && n >= 0 && (size_t)n < sizeof t->name) \
    n += snprintf(t->name + n, sizeof t->name - (size_t)n, format, __VA_ARGS__)
    ADD(c->tx || c->ty, " %c%c", c->tx ? 'T' : 'N', c->ty ? 'T' : 'N');
    ADD(!c->forest, " rows %lld n %lld k %lld", (long long)c->rows, (long long)c->n, (long long)c->k);
    ADD(c->spread > 0, " spread %g", c->spread);
    ADD(c->pad, " pad %lld", (long long)c->pad);
    ADD(c->heads, " heads %d/%d dim %d", c->heads, c->kv_heads, c->head_dim);
    for (const int32_t(*s)[2] = c->forest; s && (*s)[1] >= 0; s++)
        ADD(true, "%s%d:%d", s == c->forest ? " segments " : ",", (*s)[0], (*s)[1]);
    ADD(c->softcap > 0, " cap %g", c->softcap);
    ADD(c->window, " window %d", c->window);
    ADD(c->glu == RA_GLU_GELU_TANH, "%s", " gelu_tanh");
    ADD(c->accumulate, "%s", " accumulate");
    ADD(c->c_is_r, "%s", " to R");
    ADD(c->plus_one, "%s", " plus one");
    ADD(c->inverse, "%s", " inverse");
    ADD(c->in_place, "%s", " in place");
    ADD(c->no_dw, "%s", " without dw");
    ADD(c->no_g, "%s", " without tangent");
#undef ADD
}

int main(int arguments, char **argument)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    static char why[8][512];
    int most = op_instance_count * op_case_count, count = 0;
    agreement *all = calloc((size_t)most, sizeof *all);
    struct CMUnitTest *tests = calloc((size_t)most, sizeof *tests);
    ra_backend **opened = calloc((size_t)op_instance_count, sizeof *opened), *ref = NULL;
    if (!all || !tests || !opened || ra_backend_open("ref", "fp64", 0, &ref) != RA_OK) return 1;
    for (int i = 0; i < op_instance_count; i++) {
        if (!op_wanted(&op_instances[i], arguments - 1, argument + 1)) continue;
        const char *message = "";
        opened[i] = op_open(&op_instances[i], &message);
        snprintf(why[i], sizeof why[i], "%s", message);
        if (opened[i])
            printf("# %s; tolerances A %g, R %g, double %g\n", ra_backend_describe(opened[i]), op_instances[i].tolerance[OP_A],
                   op_instances[i].tolerance[OP_R], op_instances[i].tolerance[OP_DOUBLE]);
        for (int j = 0; j < (opened[i] ? op_case_count : 1); j++, count++) { /* an absent backend skips once */
            agreement *t = &all[count];
            *t = (agreement){.c = &op_cases[j], .instance = &op_instances[i], .b = opened[i], .ref = ref, .why = why[i]};
            name_case(t);
            tests[count] = (struct CMUnitTest){t->name, agree, NULL, NULL, t};
        }
    }
    int failed = _cmocka_run_group_tests("operators agree with the reference", tests, (size_t)count, NULL, NULL);
    for (int i = 0; i < op_instance_count; i++) ra_backend_close(opened[i]);
    ra_backend_close(ref);
    free(opened);
    free(tests);
    free(all);
    return failed != 0; /* 256 failures are not success */
}
