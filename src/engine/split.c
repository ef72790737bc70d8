/* Layers to virtual stages: an exact dynamic programme over contiguous ranges. */
#include <realign/mem.h>
#include <realign/split.h>

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Sums of doubles in another order differ in their last bits; splits are equal within this. */
#define SLACK (1.0 + 1e-10)

typedef struct {
    const ra_split_model *model;
    int32_t layers, stages;
    ra_cost *sum; /* (layers + 1) of the layers before each */
    ra_cost first, last;
} problem;

static ra_cost difference(ra_cost a, ra_cost b)
{
    return (ra_cost){.forward = a.forward - b.forward,
                     .input = a.input - b.input,
                     .weight = a.weight - b.weight,
                     .again = a.again - b.again,
                     .parameters = a.parameters - b.parameters,
                     .trainable = a.trainable - b.trainable,
                     .kept_a = a.kept_a - b.kept_a,
                     .kept_r = a.kept_r - b.kept_r};
}

/* Of stage s with layers [i, j). */
static ra_cost cost_of(const problem *p, int32_t s, int32_t i, int32_t j)
{
    ra_cost c = difference(p->sum[j], p->sum[i]);
    if (s == 0) c = ra_cost_add(c, p->first);
    if (s == p->stages - 1) c = ra_cost_add(c, p->last);
    return c;
}

static double bytes_of(const problem *p, int32_t s, const ra_cost *c)
{
    return ra_cost_bytes(c, &p->model->work, &p->model->memory, p->model->held ? p->model->held[s] : 1.0);
}

/* ---- the dynamic programme ---- */

typedef enum { LARGEST_WORK, LARGEST_BYTES, SQUARED_BYTES } goal;

/* Smallest value of the goal over all splits whose stages keep both bounds; with `begin` also the split itself. best[s][j]: of stages 0 .. s over layers [0, j). */
static double optimise(const problem *p, goal what, double work_bound, double bytes_bound, int32_t *begin)
{
    const size_t width = (size_t)p->layers + 1, cells = (size_t)p->stages * width;
    double *best = ra_alloc(cells, sizeof *best);
    int32_t *from = ra_alloc(cells, sizeof *from);
    for (size_t k = 0; k < cells; k++) best[k] = INFINITY, from[k] = 0;
    for (int32_t s = 0; s < p->stages; s++) {
        const int32_t least = s + 1, most = p->layers - (p->stages - 1 - s); /* a layer for every stage before and behind */
        for (int32_t j = least; j <= most; j++) {
            double *cell = &best[(size_t)s * width + (size_t)j];
            for (int32_t i = s; i < j; i++) {
                if (s == 0 && i > 0) break;
                const double before = s == 0 ? 0.0 : best[(size_t)(s - 1) * width + (size_t)i];
                if (!isfinite(before)) continue;
                const ra_cost c = cost_of(p, s, i, j);
                const double work = ra_cost_work(&c), bytes = bytes_of(p, s, &c);
                if (work > work_bound || bytes > bytes_bound) continue;
                const double value = what == LARGEST_WORK    ? fmax(before, work)
                                     : what == LARGEST_BYTES ? fmax(before, bytes)
                                                             : before + bytes * bytes;
                if (value < *cell) {
                    *cell = value;
                    from[(size_t)s * width + (size_t)j] = i;
                }
            }
        }
    }
    const double value = best[cells - 1];
    if (begin) {
        int32_t j = p->layers;
        begin[p->stages] = j;
        for (int32_t s = p->stages - 1; s >= 0; s--) begin[s] = j = from[(size_t)s * width + (size_t)j];
    }
    ra_free(best);
    ra_free(from);
    return value;
}

/* ---- from costs to a split ---- */

static problem problem_of(const ra_cost *layer, int32_t layers, const ra_cost *first, const ra_cost *last,
                          const ra_split_model *model, int32_t stages)
{
    problem p = {model, layers, stages, ra_calloc((size_t)layers + 1, sizeof *p.sum), *first, *last};
    for (int32_t i = 0; i < layers; i++) p.sum[i + 1] = ra_cost_add(p.sum[i], layer[i]);
    return p;
}

static ra_err check_counts(int32_t layers, int32_t ranks, int32_t chunks)
{
    if (ranks >= 1 && chunks >= 1 && (int64_t)ranks * chunks <= layers) return RA_OK;
    return ra_fail(
        RA_ERR_ARG,
        "%d layers for %d pipeline ranks x %d chunks; accepted: 1 or more of each, and grid.pipeline x chunks up to %d: every "
        "chunk has a layer at least",
        layers, ranks, chunks, layers);
}

static void begin_split(ra_split *out, int32_t stages)
{
    *out = (ra_split){.stages = stages,
                      .begin = ra_calloc((size_t)stages + 1, sizeof *out->begin),
                      .cost = ra_calloc((size_t)stages, sizeof *out->cost),
                      .bytes = ra_calloc((size_t)stages, sizeof *out->bytes)};
}

static void fill_costs(const problem *p, ra_split *out)
{
    for (int32_t s = 0; s < p->stages; s++) {
        out->cost[s] = cost_of(p, s, out->begin[s], out->begin[s + 1]);
        out->bytes[s] = bytes_of(p, s, &out->cost[s]);
    }
}

ra_err ra_split_costs(const ra_cost *layer, int32_t layers, const ra_cost *first, const ra_cost *last,
                      const ra_split_model *model, int32_t ranks, int32_t chunks, ra_split *out)
{
    *out = (ra_split){0};
    RA_TRY(check_counts(layers, ranks, chunks));
    problem p = problem_of(layer, layers, first, last, model, ranks * chunks);
    begin_split(out, p.stages);
    const double work = optimise(&p, LARGEST_WORK, INFINITY, INFINITY, NULL) * SLACK;
    const double bytes = optimise(&p, LARGEST_BYTES, work, INFINITY, NULL) * SLACK;
    optimise(&p, SQUARED_BYTES, work, bytes, out->begin);
    fill_costs(&p, out);
    ra_free(p.sum);
    return RA_OK;
}

/* ---- a model's costs ---- */

/* A tied matrix lies twice where first and last stage are different ranks. */
static ra_cost last_cost(const ra_arch *arch, const ra_split_model *model, int32_t ranks)
{
    return ra_cost_head(arch, &model->work, !arch->tied || ranks > 1);
}

static ra_cost *layer_costs(const ra_arch *arch, const ra_workload *w)
{
    ra_cost *layer = ra_alloc((size_t)arch->layers, sizeof *layer);
    for (int32_t i = 0; i < arch->layers; i++) layer[i] = ra_cost_layer(arch, i, w);
    return layer;
}

ra_err ra_split_make(const ra_arch *arch, const ra_split_model *model, int32_t ranks, int32_t chunks, ra_split *out)
{
    ra_cost *layer = layer_costs(arch, &model->work), first = ra_cost_embedding(arch, &model->work),
            last = last_cost(arch, model, ranks);
    ra_err err = ra_split_costs(layer, arch->layers, &first, &last, model, ranks, chunks, out);
    ra_free(layer);
    return err;
}

/* ---- by hand ---- */

static ra_err read_list(const char *list, int32_t layers, ra_split *out)
{
    const char *at = list;
    int64_t sum = 0;
    int32_t s = 0;
    for (;; s++) {
        char *end;
        errno = 0;
        long n = strtol(at, &end, 10);
        const size_t length = strcspn(at, ",");
        if (end == at || end != at + length || errno || n < 1 || n > layers) {
            return ra_fail(RA_ERR_ARG,
                           "layers of the pipeline stages \"%s\": entry %d is \"%.*s\"; accepted: whole numbers from 1 to %d",
                           list, s + 1, (int)length, at, layers);
        }
        sum += n;
        if (s < out->stages) out->begin[s + 1] = (int32_t)(sum > layers ? layers : sum);
        if (!*end) break;
        at = end + 1;
    }
    if (s + 1 != out->stages) {
        return ra_fail(RA_ERR_ARG, "layers of the pipeline stages \"%s\": %d entries for %d stages (grid.pipeline x chunks)",
                       list, s + 1, out->stages);
    }
    if (sum != layers) {
        return ra_fail(RA_ERR_ARG, "layers of the pipeline stages \"%s\": they add up to %lld, the model has %d layers", list,
                       (long long)sum, layers);
    }
    return RA_OK;
}

ra_err ra_split_parse(const char *list, const ra_arch *arch, const ra_split_model *model, int32_t ranks, int32_t chunks,
                      ra_split *out)
{
    *out = (ra_split){0};
    RA_TRY(check_counts(arch->layers, ranks, chunks));
    begin_split(out, ranks * chunks);
    ra_err err = read_list(list, arch->layers, out);
    if (err != RA_OK) {
        ra_split_free(out);
        return err;
    }
    ra_cost *layer = layer_costs(arch, &model->work), first = ra_cost_embedding(arch, &model->work),
            last = last_cost(arch, model, ranks);
    problem p = problem_of(layer, arch->layers, &first, &last, model, out->stages);
    fill_costs(&p, out);
    ra_free(p.sum);
    ra_free(layer);
    return RA_OK;
}

void ra_split_free(ra_split *s)
{
    ra_free(s->begin);
    ra_free(s->cost);
    ra_free(s->bytes);
    *s = (ra_split){0};
}

double ra_split_imbalance(const ra_split *s)
{
    double sum = 0.0, most = 0.0;
    for (int32_t i = 0; i < s->stages; i++) {
        sum += ra_cost_work(&s->cost[i]);
        most = fmax(most, ra_cost_work(&s->cost[i]));
    }
    return sum > 0.0 ? most * s->stages / sum : 1.0;
}

char *ra_split_text(const ra_split *s)
{
    ra_buf text = {0};
    for (int32_t i = 0; i < s->stages; i++) ra_buf_addf(&text, "%s%d", i ? "," : "", s->begin[i + 1] - s->begin[i]);
    return text.data;
}
