/* The passes over the samples: impact weights of all conflicts by contraction in one packed backward pass (METHOD section 4), log p_ref of every response that training needs, and
 * the reference's final hidden states of Retain samples. */
#include "weigh.h"

#include <realign/log.h>
#include <realign/mem.h>

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One round's pass over its packs, which the replicas take in turn. */
typedef struct {
    ra_weigh *g;
    const ra_packing *packing;
    const ra_work *work;
    int32_t first; /* pack of the round */
    bool hidden;   /* the states are kept, and nothing is differentiated */
} weigh_round;

static void fill_pack(void *context, int32_t index, ra_microbatch *mb)
{
    const weigh_round *p = context;
    const ra_run *r = &p->g->run;
    ra_packing_fill(p->packing, p->first + r->grid.data.rank + index * r->grid.data.size, r->store, p->work, mb);
}

static ra_err keep_hidden(void *context, int32_t index, ra_microbatch *mb, const double *logp, const void *hidden)
{
    (void)index;
    (void)logp;
    ra_weigh *g = ((weigh_round *)context)->g;
    ra_run *r = &g->run;
    ra_backend *b = r->b;
    size_t row = (size_t)g->m->arch.hidden * b->a_size;
    char *rows = ra_alloc((size_t)mb->head_rows, row);
    b->ops->download(b, rows, hidden, (size_t)mb->head_rows * row);
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

static ra_err take_results(void *context, int32_t index, const ra_microbatch *mb, const double *dot)
{
    (void)index;
    ra_weigh *g = ((weigh_round *)context)->g;
    g->samples_done += mb->items;
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

static void fill_one(void *context, int32_t index, ra_microbatch *mb)
{
    (void)index;
    const weigh_round *p = context;
    ra_sample s = ra_store_get(p->g->run.store, p->work->sample);
    ra_microbatch_clear(mb);
    if (!ra_microbatch_add(mb, &s, p->work->kind, 1.0, NULL))
        ra_die("weigh: sample %lld does not fit", (long long)p->work->sample);
}

/* |grad L_i| of one sample by an explicit backward pass: cosine weights need it. */
static ra_err gradient_norm(ra_weigh *g, const ra_work *work, void *gradient, double *norm)
{
    ra_backend *b = g->run.b;
    b->ops->zero(b, gradient, (size_t)ra_model_trainable(g->m)->size * b->r_size);
    weigh_round context = {.g = g, .work = work};
    ra_pass pass = {.context = &context,
                    .count = 1,
                    .fill = fill_one,
                    .scored = ra_weigh_reference_is_own,
                    .backward = &(ra_backward){.gradient = gradient}};
    RA_TRY(ra_engine_run(g->e, &g->run.objective, &pass));
    ra_grid_sum_tied(&g->run.grid, g->m, gradient);
    *norm = sqrt(ra_grid_sum_squares(&g->run.grid, g->m, gradient));
    return RA_OK;
}

static void progress(ra_weigh *g, const char *what, bool last)
{
    double seconds = ra_now() - g->begun, rate = (double)g->samples_done / (seconds > 0.0 ? seconds : 1e-9);
    ra_progress(last, "weigh: %s %lld of %lld samples of this replica, %.1f samples/s, %.0f s left", what,
                (long long)g->samples_done, (long long)g->samples, rate,
                rate > 0.0 ? (double)(g->samples - g->samples_done) / rate : 0.0);
}

/* Collective. Saves what was done and says so where a stop was asked for. */
static ra_err stop_where_asked(ra_weigh *g)
{
    const char *reason = NULL;
    if (!ra_runctl_should_stop(&g->control, g->run.world, &reason)) return RA_OK;
    RA_TRY(ra_weigh_part_write(g));
    ra_info("weigh: stopped by %s; run the same command again to go on", reason);
    return ra_fail(RA_ERR_STOPPED, "stopped by %s", reason);
}

static ra_err one_round(ra_weigh *g, weigh_round *round, int32_t packs, bool contract)
{
    ra_backward tangent = {.tangent_r = g->target, .tangent_a = g->target_a};
    ra_pass pass = {.context = round,
                    .count = ra_run_packs(&g->run, packs),
                    .fill = fill_pack,
                    .scored = round->hidden ? keep_hidden : ra_weigh_reference_is_own,
                    .result = take_results,
                    .backward = contract ? &tangent : NULL};
    return ra_engine_run(g->e, &g->run.objective, &pass);
}

/* Collective. One pass over the samples in `work`, in global order, in rounds of packs. The first *done packs were done before. */
static ra_err pass(ra_weigh *g, const ra_work *work, int64_t n, bool contract, bool hidden, int32_t *done, const char *what)
{
    ra_run *r = &g->run;
    const ra_comm *data = &r->grid.data;
    ra_packing packing;
    RA_TRY(ra_packing_make(r->store, work, n, r->rows, 1, true, &packing));
    g->samples_done = g->samples = 0;
    for (int32_t p = *done + data->rank; p < packing.packs; p += data->size)
        g->samples += packing.begin[p + 1] - packing.begin[p];
    g->begun = ra_now();
    ra_err err = RA_OK;
    while (*done < packing.packs && err == RA_OK) {
        int32_t left = packing.packs - *done, most = ra_engine_round(r->grid.stages) * data->size,
                packs = left < most ? left : most;
        weigh_round round = {g, &packing, work, *done, hidden};
        err = ra_comm_agree(r->world, one_round(g, &round, packs, contract));
        *done += packs;
        progress(g, what, false);
        if (err == RA_OK && *done < packing.packs) err = stop_where_asked(g);
    }
    progress(g, what, true);
    ra_packing_free(&packing);
    return err;
}

/* Collective. The conflicts' products over both gradients' norms; conflicts are dealt to replicas. */
static ra_err divide_by_norms(ra_weigh *g, const ra_work *work, int64_t n)
{
    ra_run *r = &g->run;
    const ra_comm *ranks = &r->grid.data;
    ra_backend *b = r->b;
    size_t bytes, bytes_a;
    ra_memory_tangent(g->m, &bytes, &bytes_a);
    void *gradient = b->ops->alloc(b, bytes);
    double *norm = ra_calloc((size_t)n, sizeof *norm);
    g->samples_done = 0;
    g->samples = n / ranks->size + (n % ranks->size > ranks->rank);
    g->begun = ra_now();
    ra_err err = RA_OK;
    for (int64_t first = 0; first < n && err == RA_OK; first += ranks->size) {
        int64_t i = first + ranks->rank;
        if (i < n) {
            err = gradient_norm(g, &work[i], gradient, &norm[i]);
            g->samples_done++;
        }
        err = ra_comm_agree(r->world, err);
        progress(g, "cosine,", false);
        if (err == RA_OK) err = stop_where_asked(g);
    }
    ra_comm_sum_f64(ranks, norm, n);
    for (int64_t i = 0; i < n; i++) {
        double *raw = &g->w.raw[work[i].sample];
        *raw = norm[i] > 0.0 ? *raw / (norm[i] * g->w.target_norm) : 0.0;
    }
    ra_free(norm);
    b->ops->release(b, gradient);
    return err;
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

/* The rounds of one pass over samples. */
static ra_err list_rounds(const ra_run *r, const ra_work *work, int64_t n, bool contract, ra_pass_list *list)
{
    ra_packing packing;
    RA_TRY(ra_packing_make(r->store, work, n, r->rows, 1, true, &packing));
    const int32_t most = ra_engine_round(r->grid.stages) * r->grid.data.size;
    ra_pass_list_add(list, contract, contract, ra_run_packs(r, packing.packs < most ? packing.packs : most));
    ra_pass_list_add(list, contract, contract, ra_run_packs(r, packing.packs % most));
    ra_packing_free(&packing);
    return RA_OK;
}

ra_err ra_weigh_list_passes(const ra_weigh *g, ra_pass_list *list)
{
    const ra_run *r = &g->run;
    ra_work *work = ra_alloc((size_t)r->n, sizeof *work);
    ra_err err = list_rounds(r, work, list_work(r, false, work), g->conflicts_weighed, list);
    if (err == RA_OK) err = list_rounds(r, work, list_work(r, true, work), false, list);
    ra_free(work);
    return err;
}

static ra_err open_hidden(ra_weigh *g)
{
    char *path = ra_run_path(&g->run, "hidden.bin.part");
    ra_err err = RA_OK;
    g->hidden_fd = -1;
    g->w.hidden_bytes = g->w.hidden_rows * g->m->arch.hidden * (int64_t)g->run.b->a_size;
    if (g->run.world->rank == 0) {
        if (g->done.retain == 0) ra_weigh_part_remove(g); /* it may count packs of the file that is emptied here */
        g->hidden_fd = open(path, O_CREAT | (g->done.retain ? 0 : O_TRUNC) | O_WRONLY | O_CLOEXEC, 0666);
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

/* Collective. */
static ra_err close_hidden(ra_weigh *g)
{
    ra_err err = fsync(g->hidden_fd) == 0 ? RA_OK : ra_fail(RA_ERR_IO, "%s/hidden.bin.part: %m", g->run.dir);
    close(g->hidden_fd);
    return ra_comm_agree(g->run.world, err);
}

/* Collective. An older weights.h5 goes first: it must not be taken for that of the new hidden.bin. */
static ra_err rename_hidden(const ra_weigh *g)
{
    ra_err err = RA_OK;
    if (g->run.world->rank == 0) {
        char *part = ra_run_path(&g->run, "hidden.bin.part"), *path = ra_run_path(&g->run, "hidden.bin"),
             *old = ra_run_path(&g->run, "weights.h5");
        if (unlink(old) != 0 && errno != ENOENT) err = ra_fail(RA_ERR_IO, "cannot remove %s: %m", old);
        if (err == RA_OK && rename(part, path) != 0) err = ra_fail(RA_ERR_IO, "cannot rename %s: %m", part);
        free(old);
        free(part);
        free(path);
    }
    return ra_comm_agree(g->run.world, err);
}

/* Collective. */
static void share(ra_weigh *g)
{
    ra_comm_sum_f64(&g->run.grid.data, g->w.raw, g->run.n);
    ra_comm_sum_f64(&g->run.grid.data, g->w.reference, g->run.n * RA_ROLES);
    g->shared = true;
}

static ra_err weigh_retain(ra_weigh *g, ra_work *work)
{
    RA_TRY(open_hidden(g));
    int64_t n = list_work(&g->run, true, work);
    ra_err err = pass(g, work, n, false, true, &g->done.retain, "Retain,"), closed = close_hidden(g);
    return err == RA_OK ? closed : err;
}

ra_err ra_weigh_samples(ra_weigh *g)
{
    ra_run *r = &g->run;
    ra_work *work = ra_alloc((size_t)r->n, sizeof *work);
    bool contract = g->conflicts_weighed;
    int64_t conflicts = list_work(r, false, work);
    ra_err err = ra_weigh_part_read(g);
    if (err == RA_OK)
        err = pass(g, work, conflicts, contract, false, &g->done.conflicts, contract ? "conflicts," : "log p_ref of");
    if (err == RA_OK) err = weigh_retain(g, work);
    if (err == RA_OK) {
        share(g);
        conflicts = list_work(r, false, work);
        if (contract && strcmp(ra_set_text(r->s, "weights.direction"), "cosine") == 0) err = divide_by_norms(g, work, conflicts);
    }
    ra_free(work);
    return err == RA_OK ? rename_hidden(g) : err;
}
