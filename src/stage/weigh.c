/* weigh: the gold batch, g_J reduced over ranks, impact weights of all conflicts by contraction in one packed backward pass (METHOD section 4), log p_ref of every response
 * that training needs, and the reference's final hidden states of Retain samples. */
#include "run_context.h"
#include "weights_file.h"

#include <realign/gold.h>
#include <realign/h5.h>
#include <realign/hash.h>
#include <realign/log.h>
#include <realign/mem.h>
#include <realign/stage.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    ra_run run;
    ra_model *m;
    ra_engine *e;
    ra_microbatch *mb;
    ra_weights w;
    bool conflicts_weighed;  /* method trace with weights.enabled */
    void *target, *target_a; /* g_J, trainable layout, R and A */
    ra_gold_pair *pair;
    int64_t pairs;
    int hidden_fd;
    int64_t done, total; /* samples of this rank, for the progress line */
    double begun;
} weigh;

/* ---- gold batch and g_J (eq. 5) ---- */

/* The gold pairs [begin, *end) that fit one micro-batch. `joined` holds a row of `positions` ids for every pair. */
static void fill_gold(weigh *g, int64_t begin, int64_t *end, int32_t *joined)
{
    ra_microbatch_clear(g->mb);
    int64_t i = begin;
    for (; i < g->pairs; i++) {
        ra_sample s = ra_gold_sample(g->run.store, &g->pair[i], joined + i * g->run.positions, g->run.positions);
        s.id = i;
        if (!ra_microbatch_add(g->mb, &s, RA_LOSS_PAIR, 1.0, NULL)) break;
    }
    if (i == begin) ra_die("gold pair %lld has more tokens than a pack takes", (long long)i);
    *end = i;
}

/* theta = theta_ref: the model's own log p is the reference's. */
static void reference_is_own(ra_microbatch *mb)
{
    for (int32_t i = 0; i < mb->responses; i++) mb->response[i].reference = mb->response[i].logp;
}

/* A first micro-batch's gradient, contracted with itself, must give its squared norm: both endings of the backward pass against each other, on this model and this data. */
static void self_check(weigh *g)
{
    ra_backend *b = g->run.b;
    int64_t n = ra_model_trainable(g->m)->size;
    double *dot = ra_alloc((size_t)g->mb->items, sizeof *dot), sum = 0.0, squares = b->ops->sum_squares(b, n, g->target);
    if (g->target_a != g->target) b->ops->cast_to_a(b, n, g->target, g->target_a);
    ra_engine_contract(g->e, g->mb, &g->run.objective, g->target, g->target_a, dot);
    for (int32_t i = 0; i < g->mb->items; i++) sum += dot[i];
    g->w.self_check = fabs(sum / squares - 1.0);
    ra_free(dot);
}

/* Adds the gradient of the gold batch to target; packs are dealt to ranks. */
static void gold_pass(weigh *g)
{
    ra_run *r = &g->run;
    int32_t *joined = ra_alloc((size_t)g->pairs * (size_t)r->positions, sizeof *joined);
    int64_t pack = 0;
    for (int64_t begin = 0, end; begin < g->pairs; begin = end, pack++) {
        fill_gold(g, begin, &end, joined);
        if (pack % r->grid.data.size != r->grid.data.rank) continue;
        ra_engine_forward(g->e, g->mb, &r->objective, NULL);
        reference_is_own(g->mb);
        ra_engine_backward(g->e, g->mb, &r->objective, &(ra_backward){.gradient = g->target});
        if (pack == r->grid.data.rank) self_check(g);
        ra_progress(0, "weigh: gold batch, %lld of %lld pairs", (long long)end, (long long)g->pairs);
    }
    ra_free(joined);
}

static ra_err make_target(weigh *g)
{
    ra_run *r = &g->run;
    ra_backend *b = r->b;
    int64_t size = ra_set_int(r->s, "gold.size"), n = ra_model_trainable(g->m)->size;
    g->pair = ra_alloc((size_t)size, sizeof *g->pair);
    g->pairs = ra_gold_draw(r->store, r->action, size, (uint64_t)ra_set_int(r->s, "seed"), g->pair);
    g->w.gold = g->pairs;
    if (g->pairs == 0) {
        return ra_fail(
            RA_ERR_DATA,
            "the gold batch is empty: there is no Retain or Invert sample, so nothing says where the new policy wants the model");
    }
    if (g->pairs < size)
        ra_info("gold batch: %lld pairs of %lld asked for (the sets hold no more)", (long long)g->pairs, (long long)size);
    g->target = b->ops->alloc(b, (size_t)n * b->r_size);
    g->target_a = b->a == b->r ? g->target : b->ops->alloc(b, (size_t)n * b->a_size);
    gold_pass(g);
    if (b->r == RA_DTYPE_F64) {
        ra_comm_sum_f64(&r->grid.data, g->target, n);
    } else {
        ra_comm_sum_f32(&r->grid.data, g->target, n);
    }
    ra_comm_max_f64(&r->grid.data, &g->w.self_check, 1);
    double squares = b->ops->sum_squares(b, n, g->target);
    g->w.target_norm = sqrt(squares);
    if (!isfinite(squares) || squares == 0.0) return ra_fail(RA_ERR_NUMERIC, "the norm of g_J is %g", g->w.target_norm);
    if (g->target_a != g->target) b->ops->cast_to_a(b, n, g->target, g->target_a);
    double tolerance = b->a == RA_DTYPE_BF16 ? 5e-2 : b->a == RA_DTYPE_F32 ? 1e-4 : 1e-10;
    ra_info("gold batch: %lld pairs, |g_J| %.4g; a pack's gradient contracted with itself differs from its squared norm by %.1e "
            "(at most %.0e)",
            (long long)g->pairs, g->w.target_norm, g->w.self_check, tolerance);
    if (g->w.self_check <= tolerance) return RA_OK;
    return ra_fail(RA_ERR_NUMERIC, "the two endings of the backward pass disagree: contraction and squared norm differ by %.2e",
                   g->w.self_check);
}

/* ---- all samples ---- */
static ra_err keep_hidden(weigh *g)
{
    ra_run *r = &g->run;
    ra_backend *b = r->b;
    size_t row = (size_t)g->m->arch.hidden * b->a_size;
    const ra_microbatch *mb = g->mb;
    char *rows = ra_alloc((size_t)mb->head_rows, row);
    b->ops->download(b, rows, ra_engine_hidden(g->e), (size_t)mb->head_rows * row);
    ra_err err = RA_OK;
    for (int32_t i = 0; i < mb->responses && err == RA_OK; i++) {
        const ra_response *y = &mb->response[i];
        size_t bytes = (size_t)y->count * row;
        off_t at = (off_t)((size_t)g->w.hidden[mb->item[y->item].sample] * row);
        for (size_t done = 0; done < bytes;) {
            ssize_t n = pwrite(g->hidden_fd, rows + (size_t)y->first * row + done, bytes - done, at + (off_t)done);
            if (n <= 0) {
                err = ra_fail(RA_ERR_IO, "%s/hidden.bin.part: write failed: %m", r->dir);
                break;
            }
            done += (size_t)n;
        }
    }
    ra_free(rows);
    return err;
}

/* |grad L_i| of each item, one explicit backward pass each: cosine weights need it. */
static double gradient_norm(weigh *g, const ra_work *work, void *gradient)
{
    ra_backend *b = g->run.b;
    int64_t n = ra_model_trainable(g->m)->size;
    ra_sample s = ra_store_get(g->run.store, work->sample);
    ra_microbatch_clear(g->mb);
    if (!ra_microbatch_add(g->mb, &s, work->kind, 1.0, NULL)) ra_die("weigh: sample %lld does not fit", (long long)work->sample);
    ra_engine_forward(g->e, g->mb, &g->run.objective, NULL);
    reference_is_own(g->mb);
    b->ops->zero(b, gradient, (size_t)n * b->r_size);
    ra_engine_backward(g->e, g->mb, &g->run.objective, &(ra_backward){.gradient = gradient});
    return sqrt(b->ops->sum_squares(b, n, gradient));
}

static ra_err take_results(weigh *g, const double *dot)
{
    const ra_microbatch *mb = g->mb;
    for (int32_t i = 0; i < mb->responses; i++) {
        const ra_response *y = &mb->response[i];
        int64_t sample = mb->item[y->item].sample;
        if (!isfinite(y->logp)) return ra_fail(RA_ERR_DATA, "sample %lld: log p is not finite", (long long)sample);
        g->w.reference[sample * RA_ROLES + y->role] = y->logp;
    }
    for (int32_t i = 0; dot && i < mb->items; i++) {
        if (!isfinite(dot[i]))
            return ra_fail(RA_ERR_DATA, "sample %lld: <g_J, grad L> is not finite", (long long)mb->item[i].sample);
        g->w.raw[mb->item[i].sample] = dot[i] / ra_set_real(g->run.s, "gamma");
    }
    return RA_OK;
}

static void progress(weigh *g, const char *what, bool last)
{
    double seconds = ra_now() - g->begun, rate = (double)g->done / (seconds > 0.0 ? seconds : 1e-9);
    ra_progress(last, "weigh: %s %lld of %lld samples on this rank, %.1f samples/s, %.0f s left", what, (long long)g->done,
                (long long)g->total, rate, rate > 0.0 ? (double)(g->total - g->done) / rate : 0.0);
}

/* One pass over the samples in `work`, in global order, packs dealt to ranks. */
static ra_err pass(weigh *g, const ra_work *work, int64_t n, bool contract, bool hidden, const char *what)
{
    ra_run *r = &g->run;
    ra_packing packing;
    RA_TRY(ra_packing_make(r->store, work, n, r->rows, 1, true, &packing));
    double *dot = ra_alloc((size_t)r->rows, sizeof *dot);
    ra_err err = RA_OK;
    g->done = g->total = 0;
    for (int32_t p = r->grid.data.rank; p < packing.packs; p += r->grid.data.size)
        g->total += packing.begin[p + 1] - packing.begin[p];
    g->begun = ra_now();
    for (int32_t p = r->grid.data.rank; p < packing.packs && err == RA_OK; p += r->grid.data.size) {
        ra_packing_fill(&packing, p, r->store, work, g->mb);
        ra_engine_forward(g->e, g->mb, &r->objective, NULL);
        if (hidden) err = keep_hidden(g);
        if (contract) {
            reference_is_own(g->mb);
            ra_engine_contract(g->e, g->mb, &r->objective, g->target, g->target_a, dot);
        }
        if (err == RA_OK) err = take_results(g, contract ? dot : NULL);
        g->done += g->mb->items;
        progress(g, what, false);
    }
    progress(g, what, true);
    ra_free(dot);
    ra_packing_free(&packing);
    return err;
}

static ra_err divide_by_norms(weigh *g, const ra_work *work, int64_t n)
{
    ra_run *r = &g->run;
    ra_backend *b = r->b;
    void *gradient = b->ops->alloc(b, (size_t)ra_model_trainable(g->m)->size * b->r_size);
    g->done = 0;
    g->total = n / r->grid.data.size;
    g->begun = ra_now();
    for (int64_t i = 0; i < n; i++) {
        double *raw = &g->w.raw[work[i].sample];
        if (*raw == 0.0) continue; /* another rank's sample, or no product */
        double norm = gradient_norm(g, &work[i], gradient);
        *raw = norm > 0.0 ? *raw / (norm * g->w.target_norm) : 0.0;
        g->done++;
        progress(g, "cosine,", false);
    }
    b->ops->release(b, gradient);
    return RA_OK;
}

static int64_t list_work(const ra_run *r, bool retain, ra_work *work)
{
    int64_t n = 0;
    for (int64_t i = 0; i < r->n; i++) {
        if (r->action[i] == RA_ACTION_NONE || (r->action[i] == RA_ACTION_RETAIN) != retain) continue;
        work[n++] = (ra_work){.sample = i, .kind = ra_run_kind(r, i), .weight = 1.0};
    }
    return n;
}

static ra_err open_hidden(weigh *g)
{
    char *path = ra_run_path(&g->run, "hidden.bin.part");
    ra_err err = RA_OK;
    g->hidden_fd = -1;
    g->w.hidden_bytes = g->w.hidden_rows * g->m->arch.hidden * (int64_t)g->run.b->a_size;
    if (g->run.world->rank == 0) {
        g->hidden_fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0666);
        int64_t bytes = g->w.hidden_bytes;
        int code = g->hidden_fd < 0 ? errno : bytes ? posix_fallocate(g->hidden_fd, 0, bytes) : 0;
        if (code != 0) err = ra_fail(RA_ERR_IO, "%s: cannot set aside %.1f MB: %s", path, (double)bytes * 1e-6, strerror(code));
    }
    err = ra_comm_agree(g->run.world, err);
    if (err == RA_OK && g->run.world->rank != 0) {
        g->hidden_fd = open(path, O_WRONLY | O_CLOEXEC);
        if (g->hidden_fd < 0) err = ra_fail(RA_ERR_IO, "%s: %m", path);
    }
    free(path);
    return ra_comm_agree(g->run.world, err);
}

static ra_err close_hidden(weigh *g)
{
    ra_err err = fsync(g->hidden_fd) == 0 ? RA_OK : ra_fail(RA_ERR_IO, "%s/hidden.bin.part: %m", g->run.dir);
    close(g->hidden_fd);
    RA_TRY(ra_comm_agree(g->run.world, err));
    if (g->run.world->rank == 0) {
        char *part = ra_run_path(&g->run, "hidden.bin.part"), *path = ra_run_path(&g->run, "hidden.bin");
        if (rename(part, path) != 0) err = ra_fail(RA_ERR_IO, "cannot rename %s: %m", part);
        free(part);
        free(path);
    }
    return ra_comm_agree(g->run.world, err);
}

static ra_err compute(weigh *g)
{
    ra_run *r = &g->run;
    const ra_comm *world = r->world;
    ra_work *work = ra_alloc((size_t)r->n, sizeof *work);
    int64_t conflicts = list_work(r, false, work);
    ra_err err = ra_comm_agree(
        world, pass(g, work, conflicts, g->conflicts_weighed, false, g->conflicts_weighed ? "conflicts," : "log p_ref of"));
    if (err == RA_OK && g->conflicts_weighed && strcmp(ra_set_text(r->s, "weights.direction"), "cosine") == 0)
        err = ra_comm_agree(world, divide_by_norms(g, work, conflicts));
    if (err == RA_OK) err = open_hidden(g);
    if (err == RA_OK) {
        int64_t retain = list_work(r, true, work);
        err = ra_comm_agree(world, pass(g, work, retain, false, true, "Retain,"));
        ra_err closed = close_hidden(g);
        if (err == RA_OK) err = closed;
    }
    ra_free(work);
    if (err != RA_OK) return err;
    ra_comm_sum_f64(world, g->w.raw, r->n); /* one rank computed each, the others hold 0 */
    ra_comm_sum_f64(world, g->w.reference, r->n * RA_ROLES);
    return RA_OK;
}

/* ---- weights (eq. 5) ---- */
static bool is_conflict(const ra_run *r, int64_t i)
{
    return r->action[i] == RA_ACTION_INVERT || r->action[i] == RA_ACTION_PUNISH;
}

static void correlate_with_length(weigh *g)
{
    const ra_run *r = &g->run;
    double n = 0.0, sx = 0.0, sy = 0.0, sxx = 0.0, syy = 0.0, sxy = 0.0;
    for (int64_t i = 0; i < r->n; i++) {
        if (!is_conflict(r, i)) continue;
        double x = g->w.length[i * RA_ROLES] + g->w.length[i * RA_ROLES + 1], y = g->w.weight[i];
        n++, sx += x, sy += y, sxx += x * x, syy += y * y, sxy += x * y;
    }
    double spread = (n * sxx - sx * sx) * (n * syy - sy * sy);
    g->w.length_correlation = spread > 0.0 ? (n * sxy - sx * sy) / sqrt(spread) : NAN;
}

static ra_err normalise(weigh *g)
{
    ra_run *r = &g->run;
    double total = 0.0;
    for (int64_t i = 0; i < r->n; i++) {
        if (!is_conflict(r, i)) continue;
        g->w.conflicts++;
        g->w.weight[i] = g->conflicts_weighed ? fmax(0.0, g->w.raw[i]) : 1.0;
        g->w.positive += g->w.weight[i] > 0.0;
        total += g->w.weight[i];
    }
    if (g->w.conflicts == 0) {
        if (r->count[RA_ACTION_PAIR] == 0) ra_info("weigh: the new policy conflicts with no pair; there is nothing to weigh");
        return RA_OK;
    }
    if (total <= 0.0) {
        return ra_fail(RA_ERR_DATA, "no conflict has a positive product with g_J: no update would move the model towards the new "
                                    "policy; look at the policy and at gold.size, or "
                                    "set weights.enabled=false");
    }
    bool mean = strcmp(ra_set_text(r->s, "weights.normalise"), "mean") == 0;
    double scale = (mean ? (double)g->w.conflicts : 1.0) / total, average = (mean ? 1.0 : 1.0 / (double)g->w.conflicts);
    for (int64_t i = 0; i < r->n; i++) g->w.weight[i] *= scale;
    g->w.effective_ratio = ra_set_real(r->s, "alpha_kl") / average;
    correlate_with_length(g);
    ra_info("weights: %lld conflicts, %lld with a positive weight; normalisation %s: a Retain sample's KL carries %.4g times the "
            "weight of an average conflict",
            (long long)g->w.conflicts, (long long)g->w.positive, mean ? "mean" : "l1", g->w.effective_ratio);
    ra_info("weights: correlation with the responses' length %.2f%s", g->w.length_correlation,
            fabs(g->w.length_correlation) > 0.5 ? " (summed log-probabilities favour long responses)" : "");
    return RA_OK;
}

static void mask_missing(weigh *g)
{
    const ra_run *r = &g->run;
    for (int64_t i = 0; i < r->n; i++) {
        unsigned roles = r->action[i] == RA_ACTION_NONE ? 0 : ra_loss_roles(ra_run_kind(r, i));
        for (int role = 0; role < RA_ROLES; role++) {
            if (!(roles >> role & 1)) g->w.reference[i * RA_ROLES + role] = NAN;
        }
        if (!is_conflict(r, i)) g->w.raw[i] = NAN;
    }
}

/* Lengths, and where each Retain sample's states go. */
static void plan(weigh *g)
{
    const ra_run *r = &g->run;
    for (int64_t i = 0; i < r->n; i++) {
        g->w.hidden[i] = -1;
        if (r->action[i] == RA_ACTION_NONE) continue;
        ra_sample s = ra_store_get(r->store, i);
        for (int role = 0; role < RA_ROLES; role++)
            g->w.length[i * RA_ROLES + role] = s.response[role].count - s.response[role].skip;
        if (r->action[i] != RA_ACTION_RETAIN) continue;
        g->w.hidden[i] = g->w.hidden_rows;
        g->w.hidden_rows += g->w.length[i * RA_ROLES + RA_CHOSEN];
    }
}

static ra_err work_through(weigh *g)
{
    ra_run *r = &g->run;
    bool adapter = g->conflicts_weighed && strcmp(ra_set_text(r->s, "weights.parameters"), "adapter") == 0;
    ra_training training = !g->conflicts_weighed ? RA_FROZEN : adapter ? RA_TRAIN_ADAPTER : RA_TRAIN_FULL;
    RA_TRY(ra_run_open_model(r, training, &g->m));
    if (adapter)
        ra_info("weights.parameters=adapter: at its start an adapter has B = 0, so its A has no gradient and w_i sees B alone; "
                "weights.parameters=full sees all matrices");
    g->e = ra_engine_new(g->m, r->rows, g->conflicts_weighed, r->timers);
    g->mb = ra_microbatch_new(r->rows);
    plan(g);
    if (g->conflicts_weighed) RA_TRY(ra_comm_agree(r->world, make_target(g)));
    RA_TRY(compute(g));
    RA_TRY(normalise(g));
    mask_missing(g);
    return ra_weights_write(r, &g->w);
}

ra_err ra_stage_weigh(const ra_settings *s, const ra_comm *world)
{
    weigh g = {0};
    RA_TRY(ra_run_open(s, world, &g.run));
    ra_run *r = &g.run;
    double begun = ra_now();
    g.w = ra_weights_new(r->n);
    g.w.key = ra_weights_key(r);
    bool conflicts = r->count[RA_ACTION_INVERT] + r->count[RA_ACTION_PUNISH] > 0;
    g.conflicts_weighed = conflicts && ra_set_bool(s, "weights.enabled");
    ra_err err = RA_OK;
    int fresh = strcmp(ra_set_text(s, "run.resume"), "never") != 0 && world->rank == 0 && ra_weights_up_to_date(r, g.w.key);
    ra_comm_bcast(world, &fresh, sizeof fresh, 0);
    if (fresh) {
        ra_info("weigh: %s/weights.h5 is up to date", r->dir);
    } else {
        ra_info("weigh: %s; %lld Invert, %lld Punish (%lld corrected), %lld Retain samples, %lld plain pairs",
                ra_backend_describe(r->b), (long long)r->count[RA_ACTION_INVERT], (long long)r->count[RA_ACTION_PUNISH],
                (long long)r->corrected, (long long)r->count[RA_ACTION_RETAIN], (long long)r->count[RA_ACTION_PAIR]);
        err = work_through(&g);
        if (err == RA_OK) {
            char *timers = ra_run_path(r, "timers.tsv");
            err = ra_timers_write(r->timers, world->comm, "weigh", timers);
            free(timers);
            ra_info("weigh: done in %.1f s", ra_now() - begun);
        }
    }
    if (r->b && g.target_a && g.target_a != g.target) r->b->ops->release(r->b, g.target_a);
    if (r->b && g.target) r->b->ops->release(r->b, g.target);
    ra_free(g.pair);
    ra_engine_free(g.e);
    ra_microbatch_free(g.mb);
    ra_model_close(g.m);
    ra_weights_free(&g.w);
    ra_run_close(r);
    return err;
}
