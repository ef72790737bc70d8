/* What would fit: the plan itself, tried with other settings. */
#include "plan_impl.h"

#include <realign/mem.h>

#include <string.h>

static const char *const recompute_name[] = {"none", "inputs", "full"};

void ra_plan_write_bytes(ra_buf *out, double bytes)
{
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    int k = 0;
    for (; k < 4 && bytes >= 999.5; k++) bytes /= 1024.0;
    ra_buf_addf(out, "%.*f %s", k == 0 || bytes >= 99.95 ? 0 : bytes >= 9.995 ? 1 : 2, bytes, unit[k]);
}

/* Bytes of the fullest rank; false where the settings do not go together or a rank has more than `limit`. */
static bool fits(const ra_plan_request *q, size_t limit, size_t *bytes)
{
    ra_plan plan;
    bool within;
    if (ra_plan_make_within(q, limit, &plan, &within) != RA_OK) return false;
    *bytes = plan.stage[plan.fullest].total;
    ra_plan_free(&plan);
    return within;
}

/* Recomputation and, where it stands in the way, another schedule: what costs least first. */
static bool try_schedules(ra_plan_request *q, size_t limit, size_t *bytes)
{
    const ra_grid_layout asked = q->layout;
    for (int plain = 0; plain < 2; plain++) {
        if (plain && asked.schedule == RA_PIPELINE_1F1B) break;
        for (ra_recompute r = asked.recompute; r <= RA_RECOMPUTE_FULL; r++) {
            q->layout.recompute = r;
            if (plain) {
                q->layout.schedule = RA_PIPELINE_1F1B;
                q->layout.chunks = 1;
                if (asked.chunks > 1) q->layout.layers = "";
            }
            if (fits(q, limit, bytes)) return true;
        }
        q->layout = asked;
    }
    return false;
}

/* The same ranks in deeper pipelines, then smaller packs. */
static bool try_layouts(ra_plan_request *q, size_t limit, size_t *bytes)
{
    const ra_grid_layout asked = q->layout;
    for (int32_t rows = asked.rows; rows == asked.rows || (rows >= 16 && rows >= q->longest); rows /= 2) {
        for (int32_t stages = asked.stages; stages <= asked.ranks && stages <= q->arch->layers; stages++) {
            if (asked.ranks % stages != 0 || (stages != asked.stages && stages % asked.stages != 0)) continue;
            q->layout.rows = rows;
            q->layout.stages = stages;
            if (stages != asked.stages) q->layout.layers = "";
            if (try_schedules(q, limit, bytes)) return true;
            q->layout = asked;
        }
    }
    return false;
}

static void describe(const ra_plan_request *from, const ra_plan_request *to, const char *adapter_key, size_t bytes, ra_buf *out)
{
    const ra_grid_layout *a = &from->layout, *b = &to->layout;
    ra_buf words = {0}; /* each with a blank before it */
    if (a->ranks != b->ranks) ra_buf_addf(&words, " %d ranks", b->ranks);
    if (from->training != to->training) ra_buf_addf(&words, " %s", adapter_key ? adapter_key : "");
    if (a->schedule != b->schedule) ra_buf_addf(&words, " grid.schedule=%s", ra_pipeline_kind_name[b->schedule]);
    if (a->chunks != b->chunks) ra_buf_addf(&words, " grid.chunks=%d", b->chunks);
    if (a->recompute != b->recompute) ra_buf_addf(&words, " recompute=%s", recompute_name[b->recompute]);
    if (a->stages != b->stages) ra_buf_addf(&words, " grid.pipeline=%d", b->stages);
    if (*a->layers && !*b->layers) ra_buf_adds(&words, " grid.layers=");
    if (a->copies > 0 && b->ranks / b->stages != a->copies) ra_buf_adds(&words, " grid.data=0");
    if (a->rows != b->rows) ra_buf_addf(&words, " pack.tokens=%d", b->rows);
    ra_buf_addf(out, "%s%s", out->length ? ", or " : "", words.length ? words.data + 1 : "as it is");
    ra_buf_free(&words);
    ra_buf_adds(out, " (");
    ra_plan_write_bytes(out, (double)bytes);
    ra_buf_adds(out, ")");
}

/* Twice, four times ... as many ranks: as more copies, which share the moments, or as more stages. */
static bool try_ranks(ra_plan_request *q, size_t limit, size_t *bytes)
{
    const ra_plan_request asked = *q;
    for (int32_t factor = 2; factor <= 64; factor *= 2) {
        q->layout.ranks = asked.layout.ranks * factor;
        if (try_layouts(q, limit, bytes)) return true;
        *q = asked;
    }
    return false;
}

/* More ranks, and the same changes as without them. */
static bool differ_in_ranks_alone(const ra_plan_request *a, const ra_plan_request *b)
{
    const ra_grid_layout *x = &a->layout, *y = &b->layout;
    return x->stages == y->stages && x->schedule == y->schedule && x->recompute == y->recompute && x->rows == y->rows;
}

void ra_plan_suggest(const ra_plan_request *request, const char *adapter_key, size_t limit, ra_buf *out)
{
    ra_buf found = {0};
    size_t bytes;
    ra_plan_request q = *request, same_ranks;
    const bool as_many = try_layouts(&q, limit, &bytes);
    if (as_many) describe(request, &q, NULL, bytes, &found);
    same_ranks = q;
    q = *request;
    q.training = RA_TRAIN_ADAPTER;
    if (adapter_key && request->training == RA_TRAIN_FULL && try_layouts(&q, limit, &bytes))
        describe(request, &q, adapter_key, bytes, &found);
    q = *request;
    if (try_ranks(&q, limit, &bytes) && !(as_many && differ_in_ranks_alone(&q, &same_ranks)))
        describe(request, &q, NULL, bytes, &found);
    ra_buf_adds(out, found.length ? found.data : "nothing that was tried here fits");
    ra_buf_free(&found);
}
