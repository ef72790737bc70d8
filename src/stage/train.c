/* train: TRACE (eq. 6) or plain DPO. Each step draws the next samples of the epoch's order, deals them to packs and the packs to ranks, reduces the gradient and updates. */
#include "memory.h"
#include "train_log.h"
#include "weights_file.h"

#include <realign/checkpoint.h>
#include <realign/hash.h>
#include <realign/log.h>
#include <realign/mem.h>
#include <realign/rng.h>
#include <realign/runctl.h>
#include <realign/stage.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    ra_run run;
    ra_model *m;
    ra_optimiser *o;
    ra_engine *e;
    ra_weights w;
    ra_map hidden;             /* hidden.bin */
    void *ref_head, *ref_rows; /* frozen head (V, hidden) A or NULL; (head rows, hidden) A */
    ra_work *work;             /* samples that train, in id order */
    int64_t n;
    int64_t *order; /* (n) this epoch's order of them */
    int64_t order_epoch;
    ra_optimiser_config config;
    ra_checkpoint_policy policy;
    ra_train_state state;
    ra_steps_file steps;
    ra_runctl control;
    int64_t batch, batches, total; /* samples a step, steps an epoch, steps in all */
    double interval_loss, begun;
    int64_t interval_steps, first_step;
    char *checkpoints;
    ra_buf used;
} train;

/* ---- what trains ---- */
static bool trains(const train *t, int64_t i)
{
    const ra_run *r = &t->run;
    switch (r->action[i]) {
    case RA_ACTION_NONE: return false;
    case RA_ACTION_RETAIN: return ra_set_bool(r->s, "train.kl") && r->objective.alpha_kl > 0.0;
    case RA_ACTION_PAIR: return true;
    default: return t->w.weight[i] > 0.0; /* a weight of 0 has no gradient */
    }
}

static ra_err list_work(train *t)
{
    ra_run *r = &t->run;
    int64_t silent = 0;
    t->work = ra_alloc((size_t)r->n, sizeof *t->work);
    for (int64_t i = 0; i < r->n; i++) {
        if (!trains(t, i)) {
            silent += r->action[i] == RA_ACTION_INVERT || r->action[i] == RA_ACTION_PUNISH;
            continue;
        }
        ra_work *w = &t->work[t->n++];
        *w = (ra_work){.sample = i, .kind = ra_run_kind(r, i)};
        w->weight = w->kind == RA_LOSS_RETAIN ? r->objective.alpha_kl
                    : w->kind == RA_LOSS_PAIR ? 1.0 / (double)t->batch
                                              : t->w.weight[i];
        for (int role = 0; role < RA_ROLES; role++) {
            double reference = t->w.reference[i * RA_ROLES + role];
            w->reference[role] = isnan(reference) ? 0.0 : reference;
        }
    }
    if (t->n == 0)
        return ra_fail(RA_ERR_DATA, "nothing to train on: no conflict has a positive weight%s",
                       t->w.conflicts ? "" : ", because the policy conflicts with no pair");
    if (silent) ra_info("train: %lld conflicts have weight 0 and no gradient; they are left out", (long long)silent);
    t->batches = (t->n + t->batch - 1) / t->batch;
    return RA_OK;
}

static void make_order(train *t, int64_t epoch)
{
    if (t->order_epoch == epoch) return;
    if (!t->order) t->order = ra_alloc((size_t)t->n, sizeof *t->order);
    for (int64_t i = 0; i < t->n; i++) t->order[i] = i;
    ra_rng rng = ra_rng_make((uint64_t)ra_set_int(t->run.s, "seed"), (uint64_t)RA_STREAM_SHUFFLE << 32 | (uint64_t)epoch);
    ra_rng_shuffle(&rng, t->order, (size_t)t->n);
    t->order_epoch = epoch;
}

/* ---- the reference ---- */
static ra_err open_reference(train *t)
{
    ra_run *r = &t->run;
    ra_backend *b = r->b;
    size_t row = (size_t)t->m->arch.hidden * b->a_size, states, bytes;
    if (r->count[RA_ACTION_RETAIN] == 0 || !t->m->last) return RA_OK;
    char *path = ra_run_path(r, "hidden.bin");
    ra_err err = ra_map_open(path, &t->hidden);
    if (err == RA_OK && t->hidden.size != (size_t)t->w.hidden_rows * row) {
        err = ra_fail(RA_ERR_FORMAT, "%s has %zu bytes, weights.h5 asks for %zu: run weigh again", path, t->hidden.size,
                      (size_t)t->w.hidden_rows * row);
    }
    free(path);
    if (err != RA_OK) return err;
    ra_memory_reference(t->m, r->rows, &states, &bytes);
    t->ref_rows = b->ops->alloc(b, states);
    if (bytes == 0) return RA_OK; /* with adapters the head does not move */
    t->ref_head = b->ops->alloc(b, bytes);
    b->ops->copy(b, t->ref_head, (char *)t->m->w_a + (size_t)t->m->head * b->a_size, bytes);
    ra_engine_set_reference_head(t->e, t->ref_head);
    return RA_OK;
}

/* Reference states of the micro-batch's Retain rows, or NULL where it has none. */
static const void *reference_rows(const train *t, const ra_microbatch *mb)
{
    ra_backend *b = t->run.b;
    size_t row = (size_t)t->m->arch.hidden * b->a_size;
    if (mb->kl_first == mb->head_rows) return NULL;
    for (int32_t i = 0; i < mb->responses; i++) {
        const ra_response *y = &mb->response[i];
        const ra_item *item = &mb->item[y->item];
        if (item->kind != RA_LOSS_RETAIN) continue;
        b->ops->upload(b, (char *)t->ref_rows + (size_t)(y->first - mb->kl_first) * row,
                       t->hidden.data + (size_t)t->w.hidden[item->sample] * row, (size_t)y->count * row);
    }
    return t->ref_rows;
}

/* ---- a step ---- */

/* METHOD section 8, trap 3: before the first update the model is the reference. Per token, since sums grow with length. */
static ra_err check_first(const ra_backend *b, const ra_microbatch *mb)
{
    double tolerance = b->a == RA_DTYPE_F64 ? 1e-9 : b->a == RA_DTYPE_F32 ? 1e-5 : 2e-2, most = 0.0, kl = 0.0;
    for (int32_t i = 0; i < mb->responses; i++) {
        const ra_response *y = &mb->response[i];
        double r = fabs(y->logp - y->reference) / y->count;
        if (isnan(r) || r > most) most = r; /* a NaN stays */
    }
    for (int32_t i = 0; i < mb->items; i++) {
        double loss = mb->item[i].loss;
        if (mb->item[i].kind == RA_LOSS_RETAIN && (isnan(loss) || loss > kl)) kl = loss;
    }
    if (most <= tolerance && kl <= tolerance) return RA_OK;
    return ra_fail(RA_ERR_NUMERIC,
                   "before the first step the model is not its reference: |r(y)| per token reaches %.2e, KL %.2e (at most %.0e): "
                   "weigh and train must use the same "
                   "model, tokens and precision",
                   most, kl, tolerance);
}

/* One step's pass over its packs, which the replicas take in turn. */
typedef struct {
    train *t;
    const ra_packing *packing;
    const ra_work *work;
    ra_step_sums *sums;
} step_pass;

static void fill_pack(void *context, int32_t index, ra_microbatch *mb)
{
    const step_pass *p = context;
    const ra_run *r = &p->t->run;
    ra_packing_fill(p->packing, r->grid.data.rank + index * r->grid.data.size, r->store, p->work, mb);
}

static const void *reference_of_pack(void *context, const ra_microbatch *mb)
{
    return reference_rows(((const step_pass *)context)->t, mb);
}

static ra_err check_pack(void *context, int32_t index, ra_microbatch *mb, const double *logp, const void *hidden)
{
    (void)index;
    (void)logp;
    (void)hidden;
    return check_first(((const step_pass *)context)->t->run.b, mb);
}

static ra_err add_pack(void *context, int32_t index, const ra_microbatch *mb, const double *dot)
{
    (void)index;
    (void)dot;
    const step_pass *p = context;
    ra_step_sums_add(p->sums, &p->t->run, mb);
    return RA_OK;
}

static ra_err micro_steps(train *t, const ra_work *work, int64_t n, ra_step_sums *sums)
{
    ra_run *r = &t->run;
    ra_packing packing;
    RA_TRY(ra_packing_make(r->store, work, n, r->rows, (int32_t)ra_set_int(r->s, "pack.minimum"), false, &packing));
    step_pass context = {t, &packing, work, sums};
    ra_pass pass = {.context = &context,
                    .count = ra_run_packs(r, packing.packs),
                    .fill = fill_pack,
                    .reference = reference_of_pack,
                    .scored = t->state.step == 0 ? check_pack : NULL,
                    .result = add_pack,
                    .backward = &(ra_backward){.gradient = ra_optimiser_gradient(t->o)}};
    ra_err err = ra_engine_run(t->e, &r->objective, &pass);
    ra_packing_free(&packing);
    return err;
}

/* The samples of a step, from place `begin` of an epoch's order on. Returns where the next step begins; *batch: free with ra_free. */
static int64_t take_batch(train *t, int64_t epoch, int64_t begin, ra_work **batch)
{
    make_order(t, epoch);
    int64_t end = begin + t->batch < t->n ? begin + t->batch : t->n;
    *batch = ra_alloc((size_t)(end - begin), sizeof **batch);
    for (int64_t i = begin; i < end; i++) (*batch)[i - begin] = t->work[t->order[i]];
    return end;
}

/* Packs the steps to come, for what schedules hold depends on the number of packs: all steps where it grows with them or has its ups and downs, else until one is long. */
static ra_err list_passes(train *t, ra_pass_list *list)
{
    ra_run *r = &t->run;
    const bool bounded = r->engine.schedule == RA_PIPELINE_1F1B || r->engine.schedule == RA_PIPELINE_ZERO_BUBBLE;
    int64_t epoch = 0, begin = 0;
    for (int64_t step = 0; step < t->total; step++) {
        ra_work *batch;
        ra_packing packing;
        int64_t end = take_batch(t, epoch, begin, &batch);
        ra_err err =
            ra_packing_make(r->store, batch, end - begin, r->rows, (int32_t)ra_set_int(r->s, "pack.minimum"), false, &packing);
        ra_free(batch);
        RA_TRY(err);
        const int32_t count = ra_run_packs(r, packing.packs);
        ra_pass_list_add(list, true, false, count);
        ra_packing_free(&packing);
        if (bounded && count >= 2 * r->grid.stages) break;
        epoch += end == t->n;
        begin = end == t->n ? 0 : end;
    }
    return RA_OK;
}

static ra_err plan_memory(train *t, ra_pass_list *passes, ra_memory_plan *out)
{
    RA_TRY(list_passes(t, passes));
    return ra_memory_check(&t->run, RA_MEMORY_OF_TRAINING, passes, out);
}

static ra_err one_step(train *t)
{
    ra_run *r = &t->run;
    double begun = ra_now();
    ra_work *batch;
    int64_t begin = t->state.next, end = take_batch(t, t->state.epoch, begin, &batch);
    ra_step_sums sums = {0};
    ra_err err = ra_comm_agree(r->world, micro_steps(t, batch, end - begin, &sums));
    ra_free(batch);
    RA_TRY(err);
    ra_timer_begin(r->timers, "reduce statistics");
    ra_comm_sum_f64(&r->grid.data, (double *)&sums, sizeof sums / sizeof(double));
    ra_timer_end(r->timers, "reduce statistics");
    if (!isfinite(sums.loss)) return ra_fail(RA_ERR_NUMERIC, "step %lld: the loss is not finite", (long long)t->state.step + 1);
    ra_step_info info = {.step = t->state.step + 1,
                         .epoch = t->state.epoch,
                         .samples = end - begin,
                         .lr = ra_learning_rate(&t->config, t->state.step + 1)};
    ra_timer_begin(r->timers, "reduce and update");
    err = ra_optimiser_step(t->o, &info.norm);
    ra_timer_end(r->timers, "reduce and update");
    RA_TRY(err);
    t->state.step++;
    t->state.next = end;
    if (end == t->n) {
        t->state.epoch++;
        t->state.next = 0;
    }
    t->interval_loss += sums.loss;
    t->interval_steps++;
    info.seconds = ra_now() - begun;
    if (t->steps.file) err = ra_steps_write(&t->steps, &info, &sums);
    RA_TRY(ra_comm_agree(r->world, err));
    double per_step = (ra_now() - t->begun) / (double)(t->state.step - t->first_step);
    ra_progress(t->state.step == t->total,
                "train: step %lld of %lld, loss %.4g, |g| %.3g, lr %.2e, %.0f tokens/s, %.1f samples/s, %.0f s left",
                (long long)t->state.step, (long long)t->total, sums.loss, info.norm, info.lr, sums.tokens / info.seconds,
                (double)info.samples / info.seconds, per_step * (double)(t->total - t->state.step));
    double epsilon = ra_set_real(r->s, "train.stop_gradient_norm");
    if (epsilon > 0.0 && info.norm <= epsilon) {
        ra_info("train: gradient norm %.3g is at most train.stop_gradient_norm %.3g: done", info.norm, epsilon);
        t->total = t->state.step;
    }
    return RA_OK;
}

static ra_err checkpoint(train *t)
{
    double mean = t->interval_steps ? t->interval_loss / (double)t->interval_steps : NAN;
    bool best = !isnan(mean) && (isnan(t->state.best) || mean < t->state.best);
    if (best) t->state.best = mean;
    t->policy.keep_best = best && ra_set_bool(t->run.s, "checkpoint.keep_best");
    t->interval_loss = 0.0;
    t->interval_steps = 0;
    ra_timer_begin(t->run.timers, "checkpoint");
    ra_err err = ra_checkpoint_write(&t->run.grid, &t->policy, t->m, t->o, &t->state);
    ra_timer_end(t->run.timers, "checkpoint");
    return err;
}

static ra_err steps(train *t)
{
    int64_t every = ra_set_int(t->run.s, "checkpoint.every"), written = t->state.step;
    t->begun = ra_now();
    t->first_step = t->state.step;
    while (t->state.step < t->total) {
        const char *reason = NULL;
        if (ra_runctl_should_stop(&t->control, t->run.world, &reason)) {
            if (written != t->state.step) RA_TRY(checkpoint(t));
            ra_info("train: stopped by %s after step %lld of %lld; run the same command again to go on", reason,
                    (long long)t->state.step, (long long)t->total);
            return ra_fail(RA_ERR_STOPPED, "stopped by %s after step %lld", reason, (long long)t->state.step);
        }
        RA_TRY(one_step(t));
        if (every > 0 && t->state.step % every == 0) {
            RA_TRY(checkpoint(t));
            written = t->state.step;
        }
    }
    return written == t->state.step ? RA_OK : checkpoint(t);
}

/* ---- setting up ---- */
static void configure(train *t)
{
    const ra_settings *s = t->run.s;
    static const char *const names[] = {"constant", "linear", "cosine"};
    t->config = (ra_optimiser_config){.lr = ra_set_real(s, "train.lr"),
                                      .beta1 = ra_set_real(s, "train.beta1"),
                                      .beta2 = ra_set_real(s, "train.beta2"),
                                      .eps = ra_set_real(s, "train.eps"),
                                      .weight_decay = ra_set_real(s, "train.weight_decay"),
                                      .clip = ra_set_real(s, "train.clip"),
                                      .warmup_steps = ra_set_int(s, "train.warmup"),
                                      .min_lr_ratio = ra_set_real(s, "train.min_lr_ratio")};
    for (int i = 0; i < 3; i++) {
        if (strcmp(ra_set_text(s, "train.schedule"), names[i]) == 0) t->config.schedule = (unsigned)i;
    }
    t->total = (int64_t)ceil(ra_set_real(s, "train.epochs") * (double)t->batches);
    int64_t most = ra_set_int(s, "train.max_steps");
    if (most > 0 && most < t->total) t->total = most;
    t->config.total_steps = t->total;
    t->checkpoints = ra_run_path(&t->run, "checkpoints");
    ra_settings_write_yaml(s, &t->used);
    t->policy =
        (ra_checkpoint_policy){.dir = t->checkpoints, .keep = (int)ra_set_int(s, "checkpoint.keep"), .used_yaml = t->used.data};
    t->control = ra_run_control(s);
}

/* What must agree between a checkpoint and the run that goes on from it. */
static uint64_t key_of(const train *t)
{
    static const char *const keys[] = {"method",  "seed", "beta", "alpha_kl", "tau",  "gamma",     "invert_loss", "npo_scale",
                                       "weights", "gold", "lora", "train",    "pack", "precision", "backend"};
    uint64_t parts[3] = {t->run.key, t->w.key, ra_settings_hash(t->run.s, keys, sizeof keys / sizeof keys[0])};
    return ra_hash_bytes(parts, sizeof parts).low;
}

static ra_err resume(train *t)
{
    const char *how = ra_set_text(t->run.s, "run.resume");
    t->state = (ra_train_state){.best = NAN, .key = key_of(t)};
    bool found = false;
    if (strcmp(how, "never") != 0)
        RA_TRY(ra_checkpoint_load(&t->run.grid, t->checkpoints, t->state.key, t->m, t->o, &t->state, &found));
    if (!found && strcmp(how, "must") == 0)
        return ra_fail(RA_ERR_IO, "run.resume=must, and %s holds no checkpoint", t->checkpoints);
    if (found) ra_info("train: goes on from step %lld of %lld", (long long)t->state.step, (long long)t->total);
    return RA_OK;
}

/* A run that its gradient norm ended is not taken further when it is started again. */
static void end_where_it_ended(train *t)
{
    double epsilon = ra_set_real(t->run.s, "train.stop_gradient_norm"), norm = t->steps.last_norm;
    ra_comm_bcast(t->run.world, &norm, sizeof norm, 0);
    if (t->state.step > 0 && epsilon > 0.0 && norm <= epsilon) t->total = t->state.step;
}

static ra_dtype output_dtype(const train *t)
{
    const char *name = ra_set_text(t->run.s, "output.dtype");
    if (strcmp(name, "fp32") == 0) return RA_DTYPE_F32;
    if (strcmp(name, "bf16") == 0) return RA_DTYPE_BF16;
    if (strcmp(name, "fp16") == 0) return RA_DTYPE_F16;
    int i = ra_modelfile_find(t->run.file, t->m->base.param[0].name);
    const char *stored = i < 0 ? "" : ra_modelfile_info(t->run.file, i)->stored;
    return strcmp(stored, "F32") == 0 ? RA_DTYPE_F32 : strcmp(stored, "F16") == 0 ? RA_DTYPE_F16 : RA_DTYPE_BF16;
}

static ra_err export_result(train *t)
{
    char *dir = ra_run_path(&t->run, "model");
    bool merge = ra_set_bool(t->run.s, "output.merge"), adapter = t->m->training == RA_TRAIN_ADAPTER;
    ra_export_kind kind = !adapter ? RA_EXPORT_MODEL : merge ? RA_EXPORT_MERGED : RA_EXPORT_ADAPTER;
    ra_dtype dtype = kind == RA_EXPORT_ADAPTER ? RA_DTYPE_F32 : output_dtype(t);
    ra_err err = ra_export(&t->run.grid, t->m, t->run.file, ra_set_text(t->run.s, "model"), kind, dtype, (int64_t)4 << 30, dir);
    if (err == RA_OK)
        ra_info("train: the result is in %s (%s, %s)", dir, adapter && !merge ? "PEFT adapter" : "Hugging Face directory",
                ra_dtype_name(dtype));
    free(dir);
    return err;
}

static ra_err work_through(train *t)
{
    ra_run *r = &t->run;
    const ra_comm *world = r->world;
    RA_TRY(ra_weights_read(r, &t->w));
    t->batch = ra_set_int(r->s, "train.batch");
    RA_TRY(ra_comm_agree(world, list_work(t)));
    configure(t);
    ra_pass_list passes = {0};
    ra_memory_plan memory;
    t->order_epoch = -1;
    RA_TRY(ra_comm_agree(world, plan_memory(t, &passes, &memory)));
    RA_TRY(ra_run_open_model(r, ra_memory_training(r, RA_MEMORY_OF_TRAINING), &t->m));
    r->engine.rows = r->rows;
    r->engine.keep = true;
    r->engine.pass = passes.shape;
    r->engine.passes = passes.n;
    RA_TRY(ra_comm_agree(world, ra_engine_new(t->m, &r->grid, &r->engine, r->timers, &t->e)));
    t->o = ra_optimiser_new(t->m, &r->grid, &t->config);
    RA_TRY(ra_comm_agree(world, open_reference(t)));
    RA_TRY(resume(t));
    RA_TRY(ra_comm_agree(world, world->rank == 0 ? ra_steps_open(r, t->state.step, &t->steps) : RA_OK));
    end_where_it_ended(t);
    char text[256];
    ra_arch_describe(&t->m->arch, text, sizeof text);
    ra_info("train: %s", text);
    ra_info("train: %s; %.2f M trainable parameters", ra_backend_describe(r->b), (double)ra_model_trainable(t->m)->size * 1e-6);
    ra_info("train: %lld samples, %lld a step, %lld steps an epoch, %lld steps in all, %d rank%s", (long long)t->n,
            (long long)t->batch, (long long)t->batches, (long long)t->total, world->size, world->size == 1 ? "" : "s");
    if (t->w.conflicts && r->count[RA_ACTION_RETAIN] && ra_set_bool(r->s, "train.kl")) {
        ra_info("train: a Retain sample's KL carries %.4g times the weight of an average conflict (alpha_kl %g, "
                "weights.normalise %s)",
                r->objective.alpha_kl / t->w.average, r->objective.alpha_kl, ra_set_text(r->s, "weights.normalise"));
    }
    ra_runctl_start(&t->control);
    ra_err err = steps(t);
    ra_runctl_end();
    RA_TRY(err);
    RA_TRY(export_result(t));
    char *timers = ra_run_path(r, "timers.tsv");
    err = ra_comm_agree(world, ra_timers_write(r->timers, world->comm, "train", timers));
    free(timers);
    if (err == RA_OK) err = ra_memory_report(r, RA_MEMORY_OF_TRAINING, &memory);
    double peak = (double)ra_peak_rss() * 1e-6;
    ra_comm_max_f64(world, &peak, 1);
    ra_info("train: peak memory of a rank %.0f MB", peak);
    return err;
}

ra_err ra_stage_train(const ra_settings *s, const ra_comm *world)
{
    train t = {0};
    RA_TRY(ra_run_open(s, world, &t.run));
    ra_backend *b = t.run.b;
    ra_err err = work_through(&t);
    if (t.ref_head) b->ops->release(b, t.ref_head);
    if (t.ref_rows) b->ops->release(b, t.ref_rows);
    ra_map_close(&t.hidden);
    ra_steps_close(&t.steps);
    ra_optimiser_free(t.o);
    ra_engine_free(t.e);
    ra_model_close(t.m);
    ra_weights_free(&t.w);
    ra_free(t.work);
    ra_free(t.order);
    free(t.checkpoints);
    ra_buf_free(&t.used);
    ra_run_close(&t.run);
    return err;
}
