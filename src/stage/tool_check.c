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
    ra_arch arch = {0};
    ra_part part;
    ra_err err = ra_modelfile_open(path, &file);
    if (err == RA_OK && adapter) err = ra_lora_read_config(adapter_path, &lora);
    if (err == RA_OK) err = ra_arch_of(file, &arch);
    if (err == RA_OK)
        err =
            ra_grid_part(c->s, &c->grid, &arch, &(ra_workload){.training = training, .context = 16.0, .head_share = 0.5}, &part);
    if (err == RA_OK) err = ra_model_open(c->b, file, training, adapter ? &lora : NULL, c->f.longest + 1, &part, out);
    if (err == RA_OK && adapter) err = ra_model_load_adapter(*out, adapter_path);
    ra_modelfile_close(file);
    ra_arch_free(&arch);
    free(path);
    free(adapter_path);
    err = ra_comm_agree(&c->grid.world, err);
    if (err == RA_OK) return RA_OK;
    ra_model_close(*out);
    *out = NULL;
    return err;
}

ra_err ra_check_open_engine(ra_checker *c, ra_model *m, bool keep, ra_engine **out)
{
    ra_engine_config config = c->engine;
    config.rows = c->mb->max_rows;
    config.keep = keep;
    ra_err err = ra_comm_agree(&c->grid.world, ra_engine_new(m, &c->grid, &config, NULL, out));
    if (err != RA_OK) {
        ra_engine_free(*out);
        *out = NULL;
        return err;
    }
    const ra_model *reference = c->reference;
    if (m->last) ra_engine_set_reference_head(*out, (const char *)reference->w_a + (size_t)reference->head * c->b->a_size);
    return RA_OK;
}

void ra_check_reduce(ra_checker *c, const ra_model *m, void *vector)
{
    ra_backend *b = c->b;
    int64_t n = ra_model_trainable(m)->size;
    ra_host_view view = ra_host_view_of(b, vector, (size_t)n * b->r_size);
    if (b->r == RA_DTYPE_F64) {
        ra_comm_sum_f64(&c->grid.data, view.host, n);
    } else {
        ra_comm_sum_f32(&c->grid.data, view.host, n);
    }
    ra_host_view_end(b, &view, true);
    ra_grid_sum_tied(&c->grid, m, vector);
}

/* Retain samples: the reference's final states, kept in c->states. */
static ra_err keep_reference(ra_checker *c, ra_engine *reference, const ra_check_sample *s)
{
    return ra_check_run(c, reference,
                        &(ra_check_step){.sample = &s->sample, .kind = RA_LOSS_RETAIN, .weight = 1.0, .keep_states = true}, NULL,
                        NULL);
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
    ra_activations *acts = ra_activations_new(m, n, &(ra_keeping){0});
    b->ops->place_pack(b, &pack);
    ra_model_forward(m, 0, &pack, acts, 0);
    b->ops->release_pack(b, &pack);
    void *hn = b->ops->alloc(b, (size_t)(n * h) * b->a_size), *rstd = b->ops->alloc(b, (size_t)n * b->r_size),
         *z = b->ops->alloc(b, (size_t)(n * v) * b->r_size);
    b->ops->rmsnorm(b, n, h, ra_activations_last(acts, 0), (char *)m->vectors + (size_t)m->final_norm_v * b->r_size,
                    m->arch.plus_one, m->arch.eps, hn, rstd);
    b->ops->gemm(b, RA_NO_TRANSPOSE, RA_TRANSPOSE, n, v, h, hn, h, (char *)m->w_a + (size_t)m->head * b->a_size, h, false, true,
                 z, v);
    double *got = ra_alloc((size_t)(n * v), sizeof *got), *want = ra_alloc((size_t)(n * v), sizeof *want);
    ra_host_view logits = ra_host_view_of(b, z, (size_t)(n * v) * b->r_size);
    ra_dtype_convert(RA_DTYPE_F64, got, b->r, logits.host, n * v);
    ra_host_view_end(b, &logits, false);
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

static ra_err check_logp(ra_checker *c, ra_engine *e, const ra_check_sample *s, bool reference)
{
    RA_TRY(ra_check_run(c, e, &(ra_check_step){.sample = &s->sample, .kind = RA_LOSS_SCORE, .weight = 1.0}, NULL, NULL));
    for (int32_t i = 0; i < c->mb->responses; i++) {
        const ra_response *y = &c->mb->response[i];
        const double *want = reference ? s->ref_logp[y->role] : s->logp[y->role];
        if (want)
            ra_check_compare(&c->table, reference ? "log p_ref of response tokens" : "log p_theta of response tokens",
                             c->tol.logp, 1.0, c->token_logp + y->first, want, y->count);
    }
    return RA_OK;
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
        bool retain = losses[i].kind == RA_LOSS_RETAIN;
        if (retain) RA_TRY(keep_reference(c, reference, s));
        double reference_logp[RA_ROLES], loss;
        ra_check_references(s, reference_logp);
        c->objective.ipo = losses[i].ipo;
        ra_err err = ra_check_run(
            c, e,
            &(ra_check_step){
                .sample = &s->sample, .kind = losses[i].kind, .weight = 1.0, .reference = reference_logp, .with_states = retain},
            &loss, NULL);
        c->objective.ipo = false;
        RA_TRY(err);
        double tolerance = losses[i].ipo ? c->tol.square : losses[i].kind == RA_LOSS_RETAIN ? c->tol.kl : c->tol.loss;
        ra_check_compare(&c->table, losses[i].name, tolerance, losses[i].ipo ? 0.25 / (c->f.tau * c->f.tau) : 1.0, &loss, &want,
                         1);
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
static ra_err compare_tensors(ra_checker *c, const ra_layout *layout, const char *group, const char *row, double tolerance,
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

ra_err ra_check_tensors(ra_checker *c, const ra_layout *layout, const char *group, const char *row, double tolerance,
                        const void *values)
{
    return ra_comm_agree(&c->grid.world, compare_tensors(c, layout, group, row, tolerance, values));
}

ra_err ra_check_read_vector(ra_checker *c, const char *group, const char *name, int64_t n, double *out)
{
    char path[96];
    snprintf(path, sizeof path, "%s/%s", group, name);
    return ra_check_read(c, path, n, out);
}

/* The gradient of this replica's samples, and their part of the loss. */
static ra_err add_objective(ra_checker *c, ra_engine *e, ra_engine *reference, const double *weight, void *gradient, double *loss)
{
    const ra_comm *data = &c->grid.data;
    const ra_backward mode = {.gradient = gradient};
    *loss = 0.0;
    for (int64_t i = data->rank; i < c->f.samples; i += data->size) {
        const ra_check_sample *s = &c->f.sample[i];
        double reference_logp[RA_ROLES], own;
        ra_check_references(s, reference_logp);
        ra_check_step step = {.sample = &s->sample, .kind = ra_check_kind(s), .reference = reference_logp, .backward = &mode};
        step.with_states = step.kind == RA_LOSS_RETAIN;
        step.weight = step.with_states ? c->f.alpha_kl : weight[i];
        if (step.with_states) RA_TRY(keep_reference(c, reference, s));
        RA_TRY(ra_check_run(c, e, &step, &own, NULL));
        *loss += step.weight * own;
    }
    return RA_OK;
}

ra_err ra_check_objective(ra_checker *c, ra_engine *e, ra_engine *reference, const double *weight, void *gradient, double *loss)
{
    RA_TRY(ra_comm_agree(&c->grid.world, add_objective(c, e, reference, weight, gradient, loss)));
    ra_comm_sum_f64(&c->grid.data, loss, 1);
    return RA_OK;
}

static ra_err check_trace(ra_checker *c, ra_engine *reference, const char *model, ra_training training, const char *adapter,
                          const char *group)
{
    ra_model *m = NULL;
    RA_TRY(ra_check_open_model(c, model, training, adapter, &m));
    ra_backend *b = c->b;
    const ra_layout *layout = ra_model_trainable(m);
    ra_engine *e = NULL;
    ra_err err = ra_check_open_engine(c, m, true, &e);
    void *gradient = b->ops->alloc(b, (size_t)layout->size * b->r_size);
    double *weight = ra_calloc((size_t)c->f.samples, sizeof *weight), want, loss = 0.0;
    if (err == RA_OK) err = ra_check_read_vector(c, "impact", "weight", c->f.samples, weight);
    if (err == RA_OK) err = ra_check_objective(c, e, reference, weight, gradient, &loss);
    if (err == RA_OK) ra_check_reduce(c, m, gradient);
    double norm = err == RA_OK ? sqrt(ra_grid_sum_squares(&c->grid, m, gradient)) : 0.0;
    char row[64], path[64];
    if (err == RA_OK) err = ra_check_read_vector(c, group, "loss", 1, &want);
    snprintf(row, sizeof row, "%s: loss (eq. 6)", group);
    if (err == RA_OK) ra_check_compare(&c->table, row, c->tol.objective, 1e-12, &loss, &want, 1);
    if (err == RA_OK) err = ra_check_read_vector(c, group, "gradient_norm", 1, &want);
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
    ra_engine *e = NULL;
    ra_err err = ra_check_open_engine(c, policy, false, &e);
    for (int64_t i = 0; i < c->f.samples && err == RA_OK; i++) {
        const ra_check_sample *s = &c->f.sample[i];
        if (c->grid.stages == 1) err = check_logits(c, policy, s); /* one rank has no more than its own layers' states */
        if (err == RA_OK) err = check_logp(c, e, s, false);
        if (err == RA_OK) err = check_logp(c, reference, s, true);
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
    ra_engine *reference = NULL;
    ra_err err = ra_check_open_engine(c, c->reference, false, &reference);
    c->states = c->b->ops->alloc(c->b, (size_t)c->mb->max_rows * (size_t)c->reference->arch.hidden * c->b->a_size);
    if (err == RA_OK) err = check_forward(c, reference);
    if (err == RA_OK) err = ra_check_impact(c, RA_TRAIN_FULL, NULL, "impact");
    if (err == RA_OK && ra_h5_has(c->f.h5, "impact_lora"))
        err = ra_check_impact(c, RA_TRAIN_ADAPTER, "adapter_init", "impact_lora");
    if (err == RA_OK) err = check_trace(c, reference, "policy", RA_TRAIN_FULL, NULL, "trace");
    if (err == RA_OK && ra_h5_has(c->f.h5, "trace_lora"))
        err = check_trace(c, reference, "reference", RA_TRAIN_ADAPTER, "adapter", "trace_lora");
    if (err == RA_OK) err = ra_check_trajectory(c, reference);
    ra_engine_free(reference);
    c->b->ops->release(c->b, c->states);
    return err;
}

/* Collective. Opens what every rank needs, then compares; the table of all ranks goes to rank 0. */
static ra_err check_directory(ra_checker *c, const char *dir, int *failures)
{
    const ra_settings *s = c->s;
    const ra_comm world = ra_comm_world();
    RA_TRY(ra_grid_make(&world, (int32_t)ra_set_int(s, "grid.pipeline"), &c->grid));
    ra_err err = ra_grid_check(s, &c->grid);
    if (err == RA_OK) err = ra_engine_configure(s, &c->engine);
    if (err == RA_OK)
        err = ra_backend_open(ra_set_text(s, "backend"), ra_set_text(s, "precision"), (int)ra_set_int(s, "run.threads"), &c->b);
    if (err == RA_OK) err = ra_fixture_open(dir, &c->f);
    RA_TRY(ra_comm_agree(&world, err));
    c->tol = tolerances_of(c->b);
    c->objective = (ra_objective){.beta = c->f.beta, .tau = c->f.tau, .alpha_kl = c->f.alpha_kl, .npo_scale = 1.0};
    c->mb = ra_microbatch_new(c->f.longest + 1);
    c->token_logp = ra_calloc((size_t)c->mb->max_head_rows, sizeof *c->token_logp);
    RA_TRY(ra_comm_agree(&world, check_all(c)));
    ra_check_merge(&c->table, &world, &c->grid.pipeline);
    if (world.rank == 0) {
        printf("%s on %s, %d x %d\n", dir, ra_backend_describe(c->b), c->grid.data.size, c->grid.stages);
        ra_check_print(&c->table);
    }
    *failures = ra_check_failures(&c->table);
    return RA_OK;
}

ra_err ra_tool_check(int argc, char **argv)
{
    if (argc < 1 || strchr(argv[0], '='))
        return ra_fail(RA_ERR_ARG,
                       "usage: realign check DIR [backend=ref|cpu|cuda] [precision=fp64|fp32|bf16|tf32] [grid.pipeline=N]");
    ra_settings *s = ra_settings_new();
    ra_checker c = {.s = s};
    ra_err err = ra_settings_read_words(s, argc - 1, argv + 1);
    int failures = 0;
    if (err == RA_OK) err = check_directory(&c, argv[0], &failures);
    ra_model_close(c.reference);
    ra_microbatch_free(c.mb);
    ra_free(c.token_logp);
    ra_fixture_close(&c.f);
    if (c.b) ra_backend_close(c.b);
    ra_grid_free(&c.grid);
    ra_settings_free(s);
    if (err != RA_OK) return err;
    return failures
               ? ra_fail(RA_ERR_NUMERIC, "%s: %d quantit%s outside the tolerance", argv[0], failures, failures == 1 ? "y" : "ies")
               : RA_OK;
}
