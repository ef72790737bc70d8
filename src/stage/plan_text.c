/* A plan for a terminal. */
#include "plan_view.h"

#include <realign/mem.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool ra_plan_view_fits(const ra_plan_view *v, ra_memory_stage stage)
{
    const ra_plan *p = &v->stage[stage].plan;
    return v->limit == 0 || p->stage[p->fullest].total <= v->limit;
}

/* "8.03 G" */
static void add_si(ra_buf *out, double value)
{
    static const char *const prefix[] = {"", " k", " M", " G", " T", " P", " E"};
    int k = 0;
    for (; k < 6 && value >= 999.5; k++) value /= 1000.0;
    ra_buf_addf(out, "%.*f%s", value >= 99.95 || value == floor(value) ? 0 : value >= 9.995 ? 1 : 2, value, k ? prefix[k] : "");
}

static void add_flops(ra_buf *out, double value)
{
    ra_buf text = {0};
    add_si(&text, value);
    ra_buf_addf(out, "%s%sFLOP", text.data, strchr(text.data, ' ') ? "" : " ");
    ra_buf_free(&text);
}

static void write_data(const ra_plan_view *v, ra_buf *out)
{
    const ra_run *r = &v->run;
    static const char *const name[RA_ACTIONS] = {"Invert", "Punish", "Retain", "plain pairs"};
    ra_buf_adds(out, "data       ");
    if (v->prepared) {
        const char *before = "";
        for (int a = 0; a < RA_ACTIONS; a++) {
            if (r->count[a] == 0) continue;
            ra_buf_addf(out, "%s%lld %s", before, (long long)r->count[a], name[a]);
            before = ", ";
        }
        ra_buf_addf(out, " of %lld samples; a pack must hold %d rows", (long long)r->n, r->longest);
        if (v->guess) ra_buf_addf(out, " (%s)", v->guess);
    } else {
        ra_buf_addf(out, "not prepared yet%s%s; assumed: %s", v->files.length ? ": " : "", v->files.length ? v->files.data : "",
                    v->guess);
    }
    ra_buf_addf(
        out, "\n           a row sees %.0f keys on average, %.0f %% of the rows are scored, %.0f %% also against the reference\n",
        r->work.context, 100.0 * r->work.head_share, 100.0 * r->work.kl_share);
}

static void write_grid(const ra_plan_view *v, ra_buf *out)
{
    const ra_grid_layout *l = &v->stage[RA_MEMORY_OF_TRAINING].request.layout;
    static const char *const made_again[] = {"none", "inputs", "full"};
    ra_buf_addf(out, "grid       %d rank%s: %d cop%s x %d stage%s", l->ranks, l->ranks == 1 ? "" : "s", l->ranks / l->stages,
                l->ranks / l->stages == 1 ? "y" : "ies", l->stages, l->stages == 1 ? "" : "s");
    if (l->chunks > 1) ra_buf_addf(out, " of %d chunks", l->chunks);
    ra_buf_addf(out, ", %s, recompute %s, packs of %d rows\n", ra_pipeline_kind_name[l->schedule], made_again[l->recompute],
                v->run.rows);
}

static const char *trained(ra_training t)
{
    return t == RA_TRAIN_FULL ? "all parameters" : t == RA_TRAIN_ADAPTER ? "an adapter" : "nothing";
}

/* Layers and work of every virtual stage. */
static void write_split(const ra_plan_view *v, const ra_plan_stage *p, ra_buf *out)
{
    const ra_split *s = &p->plan.split;
    double sum = 0.0;
    for (int32_t i = 0; i < s->stages; i++) sum += ra_cost_work(&s->cost[i]);
    char *list = ra_split_text(s);
    ra_buf_addf(out, "  layers %s; the slowest stage takes %.3f times the mean\n", list, ra_split_imbalance(s));
    free(list);
    ra_buf_adds(out, "  rank of a copy   layers             work   parameters\n");
    for (int32_t i = 0; i < s->stages; i++) {
        ra_buf row = {0}, n = {0};
        ra_buf_addf(&row, "%d to %d%s%s", s->begin[i], s->begin[i + 1] - 1, i == 0 ? ", embedding" : "",
                    i == s->stages - 1 ? ", head" : "");
        add_si(&n, (double)s->cost[i].parameters);
        ra_buf_addf(out, "  %14d   %-15s %5.1f %%   %10s\n", i % v->stage[0].request.layout.stages, row.data,
                    100.0 * ra_cost_work(&s->cost[i]) / sum, n.data);
        ra_buf_free(&row);
        ra_buf_free(&n);
    }
}

static void write_work(const ra_plan_view *v, ra_memory_stage which, ra_buf *out)
{
    const ra_plan_stage *p = &v->stage[which];
    bool training = which == RA_MEMORY_OF_TRAINING;
    ra_buf_adds(out, "  work ");
    add_flops(out, p->flops);
    ra_buf_adds(out, " (");
    add_flops(out, p->work);
    ra_buf_addf(out, " with what is made again) %s of %.0f rows",
                training      ? "a step"
                : v->prepared ? "for all samples"
                              : "a sample",
                p->rows);
    if (training && v->prepared) {
        ra_buf_addf(out, "; %.0f steps and ", v->steps);
        add_flops(out, v->epoch_flops);
        ra_buf_adds(out, " an epoch, at most (conflicts of weight 0 are left out)");
    }
    ra_buf_adds(out, "\n");
}

static void write_schedule(const ra_plan_stage *p, ra_buf *out)
{
    ra_buf_addf(out, "  schedule %s, %d micro-batch%s a copy%s: idle %.1f %% of the time", ra_pipeline_kind_name[p->kind],
                p->micro_batches, p->micro_batches == 1 ? "" : "es", p->request.needs.updates ? " and step" : " at once",
                100.0 * p->bubble);
    if (p->request.layout.stages > 1) ra_buf_addf(out, " with this split, %.1f %% if stages were even", 100.0 * p->theory);
    ra_buf_adds(out, "\n");
}

/* A column for every kind that is a hundredth of a rank anywhere; what is smaller comes together. */
static void write_memory(const ra_plan_view *v, ra_memory_stage which, ra_buf *out)
{
    const ra_plan *p = &v->stage[which].plan;
    bool shown[RA_MEMORY_KINDS] = {0};
    for (int32_t s = 0; s < p->stages; s++) {
        for (int k = 0; k < RA_MEMORY_KINDS; k++) shown[k] |= (double)p->stage[s].bytes[k] > 0.01 * (double)p->stage[s].total;
    }
    ra_buf_adds(out, "  memory of a rank\n  stage  held");
    for (int k = 0; k < RA_MEMORY_KINDS; k++) {
        if (shown[k]) ra_buf_addf(out, " %11s", ra_memory_kind_name[k]);
    }
    ra_buf_addf(out, " %11s %11s\n", "the rest", "sum");
    for (int32_t s = 0; s < p->stages; s++) {
        const ra_memory_plan *m = &p->stage[s];
        size_t rest = m->total;
        ra_buf_addf(out, "  %5d %5d", s, m->slots);
        for (int k = 0; k <= RA_MEMORY_KINDS + 1; k++) {
            if (k < RA_MEMORY_KINDS && !shown[k]) continue;
            ra_buf cell = {0};
            const size_t bytes = k < RA_MEMORY_KINDS ? m->bytes[k] : k == RA_MEMORY_KINDS ? rest : m->total;
            if (k < RA_MEMORY_KINDS) rest -= bytes;
            ra_plan_write_bytes(&cell, (double)bytes);
            ra_buf_addf(out, " %11s", bytes ? cell.data : "-");
            ra_buf_free(&cell);
        }
        ra_buf_adds(out, "\n");
    }
}

/* What there is most of, and how it stands to the limit. */
static void write_limit(const ra_plan_view *v, ra_memory_stage which, ra_buf *out)
{
    const ra_plan *p = &v->stage[which].plan;
    const ra_memory_plan *m = &p->stage[p->fullest];
    int most = 0;
    for (int k = 1; k < RA_MEMORY_KINDS; k++) most = m->bytes[k] > m->bytes[most] ? k : most;
    ra_buf_addf(out, "  stage %d is the fullest: %.0f %% of it %s", p->fullest, 100.0 * (double)m->bytes[most] / (double)m->total,
                ra_memory_kind_name[most]);
    if (v->limit > 0) {
        bool fits = ra_plan_view_fits(v, which);
        ra_buf_addf(out, "; %s allows ", v->whose);
        ra_plan_write_bytes(out, (double)v->limit);
        ra_buf_adds(out, fits ? ", free: " : ", too little by ");
        ra_plan_write_bytes(out, fits ? (double)(v->limit - m->total) : (double)(m->total - v->limit));
    }
    ra_buf_adds(out, "\n");
}

void ra_plan_view_text(const ra_plan_view *v, ra_buf *out)
{
    char text[256];
    ra_arch_describe(&v->arch, text, sizeof text);
    ra_buf_addf(out,
                "model      %s\n           %s\nbackend    %s %s: products read %zu bytes an element, sums and masters have %zu\n",
                ra_set_text(v->s, "model"), text, v->types.name, v->types.precision, v->types.a_size, v->types.r_size);
    write_data(v, out);
    write_grid(v, out);
    for (ra_memory_stage i = 0; i < RA_MEMORY_STAGES; i++) {
        const ra_plan_stage *p = &v->stage[i];
        ra_buf_addf(out, "\n%s: %s %s\n", ra_memory_stage_name[i], i == RA_MEMORY_OF_TRAINING ? "trains" : "gradients of",
                    trained(p->request.training));
        write_split(v, p, out);
        write_schedule(p, out);
        write_work(v, i, out);
        write_memory(v, i, out);
        write_limit(v, i, out);
    }
}
