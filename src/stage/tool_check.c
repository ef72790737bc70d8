/* realign check DIR: every quantity of a reference directory, recomputed; a table of the largest relative errors, PASS or FAIL. */
#include "check.h"

#include <realign/engine.h>
#include <realign/file.h>
#include <realign/mem.h>
#include <realign/settings.h>
#include <realign/tools.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static ra_check_tolerances tolerances_of(const ra_backend *b)
{
    static const ra_check_tolerances fp64 = {.logp = 1e-9,
                                             .loss = 1e-9,
                                             .square = 1e-9,
                                             .kl = 1e-9,
                                             .gradient = 1e-6,
                                             .norm = 1e-9,
                                             .product = 1e-9,
                                             .objective = 1e-9,
                                             .late_norm = 1e-9,
                                             .parameters = 1e-6},
                                     fp32 = {.logp = 1e-4,
                                             .loss = 1e-4,
                                             .square = 1e-4,
                                             .kl = 1e-4,
                                             .gradient = 1e-4,
                                             .norm = 1e-4,
                                             .product = 1e-4,
                                             .objective = 1e-4,
                                             .late_norm = 1e-4,
                                             .parameters = 1e-4},
                                     bf16 = {.logp = 6e-2,
                                             .loss = 1e-1,
                                             .square = 2e-1,
                                             .kl = 3e-2,
                                             .gradient = 9e-2,
                                             .norm = 4e-2,
                                             .product = 3e-2,
                                             .objective = 8e-2,
                                             .late_norm = 2e-1,
                                             .parameters = 4e-2};
    return strcmp(b->precision, "fp64") == 0 ? fp64 : strcmp(b->precision, "fp32") == 0 ? fp32 : bf16;
}

/* The dataset as doubles, where it holds n values. */
ra_err ra_check_read(ra_checker *c, const char *path, int64_t n, double *out)
{
    int rank;
    int64_t shape[4], count = 1;
    RA_TRY(ra_h5_shape(c->f.h5, path, &rank, shape));
    for (int i = 0; i < rank; i++) count *= shape[i];
    if (count != n) {
        return ra_fail(RA_ERR_FORMAT, "%s/reference.h5: %s must hold %lld values, it holds %lld", c->f.dir, path, (long long)n,
                       (long long)count);
    }
    return ra_h5_read(c->f.h5, path, H5T_NATIVE_DOUBLE, 0, -1, out);
}

/* Ids index the embedding. */
static ra_err check_ids(const ra_checker *c, const ra_model *m, const char *group, const ra_check_sample *samples, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const ra_sample *s = &samples[i].sample;
        for (int r = -1; r < RA_ROLES; r++) {
            const int32_t *token = r < 0 ? s->prompt : s->response[r].token;
            int32_t count = r < 0 ? s->prompt_count : s->response[r].count;
            for (int32_t j = 0; j < count; j++) {
                if (token[j] >= 0 && token[j] < m->arch.vocabulary) continue;
                return ra_fail(RA_ERR_FORMAT, "%s/reference.h5: %s/%lld: token id %d; the model's vocabulary has %d", c->f.dir,
                               group, (long long)i, token[j], m->arch.vocabulary);
            }
        }
    }
    return RA_OK;
}

ra_err ra_check_open_model(ra_checker *c, const char *name, ra_training training, const char *adapter, ra_model **out)
{
    char *path = ra_path_join(c->f.dir, name), *adapter_path = adapter ? ra_path_join(c->f.dir, adapter) : NULL;
    ra_modelfile *file = NULL;
    ra_lora_config lora;
    ra_err err = ra_modelfile_open(path, &file);
    if (err == RA_OK && adapter) err = ra_lora_read_config(adapter_path, &lora);
    if (err == RA_OK) err = ra_model_open(c->b, file, training, adapter ? &lora : NULL, c->f.longest + 1, out);
    if (err == RA_OK && adapter) err = ra_model_load_adapter(*out, adapter_path);
    ra_modelfile_close(file);
    free(path);
    free(adapter_path);
    return err;
}

const void *ra_check_reference_head(const ra_checker *c)
{
    return (const char *)c->reference->w_a + (size_t)c->reference->head * c->b->a_size;
}

static ra_loss_kind kind_of(int32_t action)
{
    static const ra_loss_kind kinds[] = {RA_LOSS_INVERT, RA_LOSS_PUNISH, RA_LOSS_RETAIN, RA_LOSS_PUNISH_CORRECTED};
    return kinds[action];
}

/* log p_ref(y|x) by role, from the file. */
static void references(const ra_check_sample *s, double reference[RA_ROLES])
{
    for (int r = 0; r < RA_ROLES; r++) {
        reference[r] = 0.0;
        for (int32_t i = 0; s->ref_logp[r] && i < s->sample.response[r].count; i++) reference[r] += s->ref_logp[r][i];
    }
}

static void load(ra_checker *c, const ra_check_sample *s, ra_loss_kind kind, double weight)
{
    double reference[RA_ROLES];
    references(s, reference);
    ra_microbatch_clear(c->mb);
    if (!ra_microbatch_add(c->mb, &s->sample, kind, weight, reference)) ra_die("check: a sample does not fit");
}

static void *reference_states(ra_checker *c, ra_engine *reference, const ra_check_sample *s, double weight)
{
    load(c, s, RA_LOSS_RETAIN, weight);
    ra_engine_forward(reference, c->mb, &c->objective, NULL);
    return (void *)(uintptr_t)ra_engine_hidden(reference);
}

/* ---- logits, log-probabilities, losses ---- */
static ra_err check_logits(ra_checker *c, ra_model *m, const ra_check_sample *s)
{
    char path[64];
    snprintf(path, sizeof path, "sample/%lld/logits_chosen", (long long)s->sample.id);
    int32_t n = s->sample.prompt_count + s->sample.response[RA_CHOSEN].count;
    int64_t v = m->arch.vocabulary, h = m->arch.hidden;
    int32_t *token = ra_calloc((size_t)n, sizeof *token), *position = ra_calloc((size_t)n, sizeof *position);
    memcpy(token, s->sample.prompt, (size_t)s->sample.prompt_count * sizeof *token);
    memcpy(token + s->sample.prompt_count, s->sample.response[RA_CHOSEN].token,
           (size_t)s->sample.response[RA_CHOSEN].count * sizeof *token);
    for (int32_t i = 0; i < n; i++) position[i] = i;
    ra_segment segment = {-1, 0, n};
    int32_t trees[2] = {0, 1};
    ra_pack pack = {
        .rows = n, .segments = 1, .trees = 1, .token = token, .position = position, .segment = &segment, .tree_begin = trees};
    ra_backend *b = c->b;
    ra_activations *acts = ra_activations_new(m, n, false);
    ra_model_forward(m, &pack, acts);
    void *hn = b->ops->alloc(b, (size_t)(n * h) * b->a_size), *rstd = b->ops->alloc(b, (size_t)n * b->r_size),
         *z = b->ops->alloc(b, (size_t)(n * v) * b->r_size);
    b->ops->rmsnorm(b, n, h, ra_activations_last(acts), (char *)m->vectors + (size_t)m->final_norm_v * b->r_size,
                    m->arch.plus_one, m->arch.eps, hn, rstd);
    b->ops->gemm(b, RA_NO_TRANSPOSE, RA_TRANSPOSE, n, v, h, hn, h, (char *)m->w_a + (size_t)m->head * b->a_size, h, false, true,
                 z, v);
    double *got = ra_alloc((size_t)(n * v), sizeof *got), *want = ra_alloc((size_t)(n * v), sizeof *want);
    ra_dtype_convert(RA_DTYPE_F64, got, b->r, z, n * v);
    double cap = m->arch.final_softcap;
    for (int64_t i = 0; cap > 0.0 && i < n * v; i++) got[i] = cap * tanh(got[i] / cap);
    ra_err err = ra_check_read(c, path, n * v, want);
    double largest = 1.0;
    for (int64_t i = 0; err == RA_OK && i < n * v; i++) largest = fmax(largest, fabs(want[i]));
    if (err == RA_OK) ra_check_compare(&c->table, "logits of x + y_w", c->tol.logp, largest, got, want, n * v);
    ra_free(got);
    ra_free(want);
    b->ops->release(b, hn);
    b->ops->release(b, rstd);
    b->ops->release(b, z);
    ra_activations_free(acts);
    ra_free(token);
    ra_free(position);
    return err;
}

static void check_logp(ra_checker *c, ra_engine *e, const ra_check_sample *s, bool reference)
{
    load(c, s, RA_LOSS_SCORE, 1.0);
    ra_engine_forward(e, c->mb, &c->objective, NULL);
    for (int32_t i = 0; i < c->mb->responses; i++) {
        const ra_response *y = &c->mb->response[i];
        const double *want = reference ? s->ref_logp[y->role] : s->logp[y->role];
        if (want)
            ra_check_compare(&c->table, reference ? "log p_ref of response tokens" : "log p_theta of response tokens",
                             c->tol.logp, 1.0, ra_engine_logp(e) + y->first, want, y->count);
    }
}

static ra_err check_losses(ra_checker *c, ra_engine *e, ra_engine *reference, const ra_check_sample *s)
{
    static const struct {
        const char *attribute, *name;
        ra_loss_kind kind;
        bool ipo;
    } losses[] = {{"dpo_original", "DPO, original pair", RA_LOSS_PAIR, false},
                  {"invert_dpo", "invert, DPO form (eq. 1)", RA_LOSS_INVERT, false},
                  {"invert_ipo", "invert, IPO form (eq. 1')", RA_LOSS_INVERT, true},
                  {"punish_npo", "punish both (eq. 2)", RA_LOSS_PUNISH, false},
                  {"punish_corrected", "punish, corrected (eq. 2c)", RA_LOSS_PUNISH_CORRECTED, false},
                  {"retain_kl", "retain, KL (eq. 3)", RA_LOSS_RETAIN, false}};
    char group[64];
    snprintf(group, sizeof group, "sample/%lld", (long long)s->sample.id);
    for (size_t i = 0; i < sizeof losses / sizeof losses[0]; i++) {
        double want;
        RA_TRY(ra_h5_read_attr_f64(c->f.h5, group, losses[i].attribute, &want));
        const void *states = losses[i].kind == RA_LOSS_RETAIN ? reference_states(c, reference, s, 1.0) : NULL;
        load(c, s, losses[i].kind, 1.0);
        c->objective.ipo = losses[i].ipo;
        ra_engine_forward(e, c->mb, &c->objective, states);
        c->objective.ipo = false;
        double tolerance = losses[i].ipo ? c->tol.square : losses[i].kind == RA_LOSS_RETAIN ? c->tol.kl : c->tol.loss;
        ra_check_compare(&c->table, losses[i].name, tolerance, losses[i].ipo ? 0.25 / (c->f.tau * c->f.tau) : 1.0,
                         &c->mb->item[0].loss, &want, 1);
    }
    return RA_OK;
}

/* ---- gradients ---- */
static void to_doubles(ra_backend *b, const void *values, int64_t at, int64_t n, double *out)
{
    char *part = ra_alloc((size_t)n, b->r_size);
    b->ops->download(b, part, (const char *)values + (size_t)at * b->r_size, (size_t)n * b->r_size);
    ra_dtype_convert(RA_DTYPE_F64, out, b->r, part, n);
    ra_free(part);
}

/* Compares a flat vector with the tensors of a group. Adapter tensors are named as PEFT names them inside a model. */
ra_err ra_check_tensors(ra_checker *c, const ra_layout *layout, const char *group, const char *row, double tolerance,
                        const void *values)
{
    for (int i = 0; i < layout->count; i++) {
        const ra_param *p = &layout->param[i];
        char path[256];
        const char *lora = strstr(p->name, ".lora_");
        if (lora) {
            snprintf(path, sizeof path, "%s/base_model.model.%.*s.default.weight", group, (int)(lora - p->name + 7), p->name);
        } else {
            snprintf(path, sizeof path, "%s/%s", group, p->name);
        }
        double *want = ra_alloc((size_t)p->count, sizeof *want), *got = ra_alloc((size_t)p->count, sizeof *got);
        ra_err err = ra_check_read(c, path, p->count, want);
        to_doubles(c->b, values, p->offset, p->count, got);
        if (err == RA_OK) ra_check_compare_tensor(&c->table, row, tolerance, got, want, p->count);
        ra_free(want);
        ra_free(got);
        RA_TRY(err);
    }
    return RA_OK;
}

static ra_err read_vector(ra_checker *c, const char *group, const char *name, int64_t n, double *out)
{
    char path[96];
    snprintf(path, sizeof path, "%s/%s", group, name);
    return ra_check_read(c, path, n, out);
}

/* a(y) of METHOD section 4: <g_J, grad log p(y|x)>, by contraction, one response at a time. */
static void directional(ra_checker *c, ra_engine *e, const ra_check_sample *s, const void *tangent_r, const void *tangent_a,
                        double a[RA_ROLES])
{
    for (int role = 0; role < RA_ROLES; role++) {
        ra_sample one = s->sample;
        for (int r = 0; r < RA_ROLES; r++) {
            if (r != role) one.response[r].count = 0;
        }
        ra_microbatch_clear(c->mb);
        if (one.response[role].count == 0 || !ra_microbatch_add(c->mb, &one, RA_LOSS_SCORE, 1.0, NULL)) {
            a[role] = 0.0;
            continue;
        }
        ra_engine_forward(e, c->mb, &c->objective, NULL);
        ra_engine_contract(e, c->mb, &c->objective, tangent_r, tangent_a, &a[role]);
    }
}

typedef struct {
    double *a, *dot, *norm, *cosine, *weight, *want;
} impact_values;

/* Rows that do not conflict (Retain) have no weight; the file holds values for all rows, by the loss of each row's action. */
static ra_err compare_impact(ra_checker *c, const char *group, const impact_values *v, double target_norm)
{
    int64_t n = c->f.samples;
    char row[64];
    double scale = 0.0;
    RA_TRY(read_vector(c, group, "directional", n * RA_ROLES, v->want));
    for (int64_t i = 0; i < n * RA_ROLES; i++) scale = fmax(scale, fabs(v->want[i]));
    snprintf(row, sizeof row, "%s: a(y), directional", group);
    ra_check_compare(&c->table, row, c->tol.product, scale, v->a, v->want, n * RA_ROLES);
    RA_TRY(read_vector(c, group, "gradient_norm", n, v->want));
    double largest = 0.0;
    for (int64_t i = 0; i < n; i++) largest = fmax(largest, v->want[i]);
    snprintf(row, sizeof row, "%s: |grad L_i|, explicit", group);
    ra_check_compare(&c->table, row, c->tol.norm, 1e-3 * largest, v->norm, v->want, n);
    /* at theta_ref a Retain gradient is zero up to rounding (section 8, trap 3) and has no direction */
    for (int64_t i = 0; i < n; i++) v->cosine[i] = v->want[i] > 1e-9 * largest ? v->dot[i] / (target_norm * v->norm[i]) : NAN;
    RA_TRY(read_vector(c, group, "cosine", n, v->want));
    snprintf(row, sizeof row, "%s: cosine", group);
    for (int64_t i = 0; i < n; i++) {
        if (!isnan(v->cosine[i]) || c->f.sample[i].action != 2)
            ra_check_compare(&c->table, row, c->tol.product, 1.0, &v->cosine[i], &v->want[i], 1);
    }
    RA_TRY(read_vector(c, group, "dot", n, v->want));
    scale = 0.0;
    for (int64_t i = 0; i < n; i++) scale = fmax(scale, fabs(v->want[i]));
    snprintf(row, sizeof row, "%s: <g_J, grad L_i>, contraction", group);
    ra_check_compare(&c->table, row, c->tol.product, scale, v->dot, v->want, n);
    double total = 0.0;
    for (int64_t i = 0; i < n; i++) {
        v->weight[i] = c->f.sample[i].action == 2 ? 0.0 : fmax(0.0, v->dot[i] / c->f.gamma);
        total += v->weight[i];
    }
    for (int64_t i = 0; i < n && total > 0.0; i++) v->weight[i] /= total;
    RA_TRY(read_vector(c, group, "weight", n, v->want));
    snprintf(row, sizeof row, "%s: w_i (eq. 5)", group);
    scale = 0.0;
    for (int64_t i = 0; i < n; i++) scale = fmax(scale, v->want[i]);
    ra_check_compare(&c->table, row, c->tol.product, scale, v->weight, v->want, n);
    return RA_OK;
}

static ra_err check_impact(ra_checker *c, ra_training training, const char *adapter, const char *group)
{
    ra_model *m = NULL;
    RA_TRY(ra_check_open_model(c, "reference", training, adapter, &m));
    ra_backend *b = c->b;
    const ra_layout *layout = ra_model_trainable(m);
    size_t bytes = (size_t)layout->size * b->r_size;
    ra_engine *e = ra_engine_new(m, c->mb->max_rows, true, NULL);
    void *target = b->ops->alloc(b, bytes), *own = b->ops->alloc(b, bytes),
         *target_a = b->a == b->r ? target : b->ops->alloc(b, (size_t)layout->size * b->a_size);
    for (int64_t i = 0; i < c->f.gold; i++) { /* eq. 5: the model is its own reference, so its own log p stand for log p_ref */
        ra_microbatch_clear(c->mb);
        if (!ra_microbatch_add(c->mb, &c->f.pair[i].sample, RA_LOSS_PAIR, 1.0, NULL)) ra_die("check: a gold pair does not fit");
        ra_engine_forward(e, c->mb, &c->objective, NULL);
        for (int32_t j = 0; j < c->mb->responses; j++) c->mb->response[j].reference = c->mb->response[j].logp;
        ra_engine_backward(e, c->mb, &c->objective, &(ra_backward){.gradient = target});
    }
    char row[64];
    snprintf(row, sizeof row, "%s: g_J (eq. 5)", group);
    char path[64];
    snprintf(path, sizeof path, "%s/target_gradient", group);
    ra_err err = ra_check_tensors(c, layout, path, row, c->tol.gradient, target);
    if (target_a != target) b->ops->cast_to_a(b, layout->size, target, target_a);
    int64_t n = c->f.samples;
    double *block = ra_calloc((size_t)n * (4 + 2 * RA_ROLES), sizeof *block);
    impact_values v = {block, block + 3 * n, block + 4 * n, block + 5 * n, block + 6 * n, block + 7 * n};
    for (int64_t i = 0; i < n && err == RA_OK; i++) {
        const ra_check_sample *s = &c->f.sample[i];
        directional(c, e, s, target, target_a, v.a + i * RA_ROLES);
        ra_loss_kind kind = kind_of(s->action);
        const void *states = kind == RA_LOSS_RETAIN ? reference_states(c, e, s, 1.0) : NULL;
        void *kept = NULL;
        if (states) { /* the engine's buffer is about to be reused */
            size_t size = (size_t)c->mb->head_rows * (size_t)m->arch.hidden * b->a_size;
            kept = b->ops->alloc(b, size);
            b->ops->copy(b, kept, states, size);
        }
        load(c, s, kind, 1.0);
        ra_engine_forward(e, c->mb, &c->objective, kept);
        for (int32_t j = 0; j < c->mb->responses; j++) c->mb->response[j].reference = c->mb->response[j].logp;
        ra_engine_contract(e, c->mb, &c->objective, target, target_a, &v.dot[i]);
        b->ops->zero(b, own, bytes);
        ra_engine_backward(e, c->mb, &c->objective, &(ra_backward){.gradient = own});
        v.norm[i] = sqrt(b->ops->sum_squares(b, layout->size, own));
        if (kept) b->ops->release(b, kept);
    }
    if (err == RA_OK) err = compare_impact(c, group, &v, sqrt(b->ops->sum_squares(b, layout->size, target)));
    ra_free(block);
    if (target_a != target) b->ops->release(b, target_a);
    b->ops->release(b, target);
    b->ops->release(b, own);
    ra_engine_free(e);
    ra_model_close(m);
    return err;
}

/* Adds the gradient of eq. 6 over all samples; returns its value. */
double ra_check_objective(ra_checker *c, ra_engine *e, ra_engine *reference, const double *weight, void *gradient)
{
    double total = 0.0;
    for (int64_t i = 0; i < c->f.samples; i++) {
        const ra_check_sample *s = &c->f.sample[i];
        ra_loss_kind kind = kind_of(s->action);
        double w = kind == RA_LOSS_RETAIN ? c->f.alpha_kl : weight[i];
        const void *states = kind == RA_LOSS_RETAIN ? reference_states(c, reference, s, w) : NULL;
        load(c, s, kind, w);
        ra_engine_forward(e, c->mb, &c->objective, states);
        total += w * c->mb->item[0].loss;
        ra_engine_backward(e, c->mb, &c->objective, &(ra_backward){.gradient = gradient});
    }
    return total;
}

static ra_err check_trace(ra_checker *c, ra_engine *reference, const char *model, ra_training training, const char *adapter,
                          const char *group)
{
    ra_model *m = NULL;
    RA_TRY(ra_check_open_model(c, model, training, adapter, &m));
    ra_backend *b = c->b;
    const ra_layout *layout = ra_model_trainable(m);
    ra_engine *e = ra_engine_new(m, c->mb->max_rows, true, NULL);
    ra_engine_set_reference_head(e, ra_check_reference_head(c));
    void *gradient = b->ops->alloc(b, (size_t)layout->size * b->r_size);
    double *weight = ra_calloc((size_t)c->f.samples, sizeof *weight), want;
    ra_err err = read_vector(c, "impact", "weight", c->f.samples, weight);
    double loss = err == RA_OK ? ra_check_objective(c, e, reference, weight, gradient) : 0.0;
    double norm = sqrt(b->ops->sum_squares(b, layout->size, gradient));
    char row[64], path[64];
    if (err == RA_OK) err = read_vector(c, group, "loss", 1, &want);
    snprintf(row, sizeof row, "%s: loss (eq. 6)", group);
    if (err == RA_OK) ra_check_compare(&c->table, row, c->tol.objective, 1e-12, &loss, &want, 1);
    if (err == RA_OK) err = read_vector(c, group, "gradient_norm", 1, &want);
    snprintf(row, sizeof row, "%s: gradient norm", group);
    if (err == RA_OK) ra_check_compare(&c->table, row, c->tol.norm, 1e-12, &norm, &want, 1);
    snprintf(row, sizeof row, "%s: gradient", group);
    snprintf(path, sizeof path, "%s/gradient", group);
    if (err == RA_OK) err = ra_check_tensors(c, layout, path, row, c->tol.gradient, gradient);
    ra_free(weight);
    b->ops->release(b, gradient);
    ra_engine_free(e);
    ra_model_close(m);
    return err;
}

static ra_err check_forward(ra_checker *c, ra_engine *reference)
{
    ra_model *policy = NULL;
    RA_TRY(ra_check_open_model(c, "policy", RA_FROZEN, NULL, &policy));
    ra_engine *e = ra_engine_new(policy, c->mb->max_rows, false, NULL);
    ra_engine_set_reference_head(e, ra_check_reference_head(c));
    ra_err err = RA_OK;
    for (int64_t i = 0; i < c->f.samples && err == RA_OK; i++) {
        const ra_check_sample *s = &c->f.sample[i];
        err = check_logits(c, policy, s);
        check_logp(c, e, s, false);
        check_logp(c, reference, s, true);
        if (err == RA_OK) err = check_losses(c, e, reference, s);
    }
    ra_engine_free(e);
    ra_model_close(policy);
    return err;
}

static ra_err check_all(ra_checker *c)
{
    RA_TRY(ra_check_open_model(c, "reference", RA_FROZEN, NULL, &c->reference));
    RA_TRY(check_ids(c, c->reference, "sample", c->f.sample, c->f.samples));
    RA_TRY(check_ids(c, c->reference, "gold", c->f.pair, c->f.gold));
    ra_engine *reference = ra_engine_new(c->reference, c->mb->max_rows, false, NULL);
    ra_err err = check_forward(c, reference);
    if (err == RA_OK) err = check_impact(c, RA_TRAIN_FULL, NULL, "impact");
    if (err == RA_OK && ra_h5_has(c->f.h5, "impact_lora")) err = check_impact(c, RA_TRAIN_ADAPTER, "adapter_init", "impact_lora");
    if (err == RA_OK) err = check_trace(c, reference, "policy", RA_TRAIN_FULL, NULL, "trace");
    if (err == RA_OK && ra_h5_has(c->f.h5, "trace_lora"))
        err = check_trace(c, reference, "reference", RA_TRAIN_ADAPTER, "adapter", "trace_lora");
    if (err == RA_OK) err = ra_check_trajectory(c, reference);
    ra_engine_free(reference);
    return err;
}

ra_err ra_tool_check(int argc, char **argv)
{
    if (argc < 1 || strchr(argv[0], '='))
        return ra_fail(RA_ERR_ARG, "usage: realign check DIR [backend=ref|cpu] [precision=fp64|fp32|bf16]");
    ra_settings *s = ra_settings_new();
    ra_checker c = {0};
    ra_err err = ra_settings_read_words(s, argc - 1, argv + 1);
    if (err == RA_OK) {
        err = ra_backend_open(ra_set_text(s, "backend"), ra_set_text(s, "precision"), (int)ra_set_int(s, "run.threads"), &c.b);
    }
    if (err == RA_OK) err = ra_fixture_open(argv[0], &c.f);
    int failures = 0;
    if (err == RA_OK) {
        c.tol = tolerances_of(c.b);
        c.objective = (ra_objective){.beta = c.f.beta, .tau = c.f.tau, .alpha_kl = c.f.alpha_kl, .npo_scale = 1.0};
        c.mb = ra_microbatch_new(c.f.longest + 1);
        err = check_all(&c);
        if (err == RA_OK) {
            printf("%s on %s\n", argv[0], ra_backend_describe(c.b));
            failures = ra_check_print(&c.table);
        }
    }
    ra_model_close(c.reference);
    ra_microbatch_free(c.mb);
    ra_fixture_close(&c.f);
    if (c.b) ra_backend_close(c.b);
    ra_settings_free(s);
    if (err != RA_OK) return err;
    return failures
               ? ra_fail(RA_ERR_NUMERIC, "%s: %d quantit%s outside the tolerance", argv[0], failures, failures == 1 ? "y" : "ies")
               : RA_OK;
}
