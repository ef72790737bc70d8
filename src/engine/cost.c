/* FLOP and byte models. */
#include <realign/cost.h>

#include <math.h>

/* A layer's matrices by projection, and the adapters on them. */
typedef struct {
    int64_t matrix[RA_PROJECTIONS], adapter[RA_PROJECTIONS], columns[RA_PROJECTIONS];
} sizes;

static sizes sizes_of(const ra_arch *a, const ra_workload *w)
{
    const int64_t h = a->hidden, q = (int64_t)a->heads * a->head_dim, kv = (int64_t)a->kv_heads * a->head_dim, f = a->ffn;
    const int64_t in[RA_PROJECTIONS] = {h, h, h, q, h, h, f}, out[RA_PROJECTIONS] = {q, kv, kv, h, f, f, h};
    sizes s = {0};
    for (int i = 0; i < RA_PROJECTIONS; i++) {
        s.matrix[i] = in[i] * out[i];
        if (w->training != RA_TRAIN_ADAPTER || !(w->lora.targets >> i & 1)) continue;
        s.columns[i] = w->lora.rank;
        s.adapter[i] = w->lora.rank * (in[i] + out[i]);
    }
    return s;
}

/* FLOPs a row of projections [first, last], forward. */
static double products(const sizes *s, int first, int last)
{
    int64_t n = 0;
    for (int i = first; i <= last; i++) n += s->matrix[i] + s->adapter[i];
    return 2.0 * (double)n;
}

static int64_t sum(const int64_t *values)
{
    int64_t n = 0;
    for (int i = 0; i < RA_PROJECTIONS; i++) n += values[i];
    return n;
}

/* What the backward pass of a layer makes again, attention's scores apart. */
static double made_again(const ra_arch *a, const ra_workload *w, const sizes *s, double attention)
{
    if (w->recompute == RA_RECOMPUTE_NONE) return 0.0;
    double flops = products(s, RA_GATE, RA_UP);
    if (w->recompute == RA_RECOMPUTE_INPUTS) return flops;
    flops += products(s, RA_Q, RA_O) + attention;
    return a->post_norms || s->columns[RA_DOWN] ? flops + products(s, RA_DOWN, RA_DOWN) : flops;
}

static void count_kept(const ra_arch *a, const ra_workload *w, const sizes *s, ra_cost *c)
{
    const int64_t h = a->hidden, q = (int64_t)a->heads * a->head_dim, qkv = q + 2 * (int64_t)a->kv_heads * a->head_dim,
                  f = a->ffn;
    const int64_t gate_up = s->columns[RA_GATE] + s->columns[RA_UP];
    c->kept_r = h;
    if (w->split) c->kept_a += qkv + 2 * h;
    if (w->recompute == RA_RECOMPUTE_FULL) return;
    c->kept_r += h + 2 + (a->post_norms ? 2 * (h + 1) : 0) + a->heads;
    c->kept_a += qkv + q + sum(s->columns) - gate_up;
    if (w->recompute == RA_RECOMPUTE_INPUTS) return;
    c->kept_a += 2 * h + 3 * f + gate_up;
}

ra_cost ra_cost_layer(const ra_arch *a, int32_t i, const ra_workload *w)
{
    const int64_t h = a->hidden, q = (int64_t)a->heads * a->head_dim, kv = (int64_t)a->kv_heads * a->head_dim;
    const sizes s = sizes_of(a, w);
    const int64_t matrices = sum(s.matrix), adapters = sum(s.adapter);
    const int64_t vectors = (a->post_norms ? 4 : 2) * h + (a->qkv_bias ? q + 2 * kv : 0);
    const bool full = w->training == RA_TRAIN_FULL;
    const double context = a->window > 0 && a->layer_windowed[i] ? fmin(w->context, a->window) : w->context;
    const double scores = 2.0 * (double)q * context; /* q.k of a row; its weighted values cost the same */
    ra_cost c = {.forward = products(&s, RA_Q, RA_DOWN) + 2.0 * scores,
                 .parameters = matrices + vectors + adapters,
                 .trainable = full ? matrices + vectors : adapters};
    if (w->training == RA_FROZEN) return c;
    c.input = products(&s, RA_Q, RA_DOWN) + 4.0 * scores; /* gradients of scores, q, k and v */
    c.weight = 2.0 * (double)(full ? matrices : adapters);
    c.again = scores + made_again(a, w, &s, 2.0 * scores);
    count_kept(a, w, &s, &c);
    return c;
}

ra_cost ra_cost_embedding(const ra_arch *a, const ra_workload *w)
{
    const int64_t n = (int64_t)a->vocabulary * a->hidden;
    return (ra_cost){.parameters = n, .trainable = w->training == RA_TRAIN_FULL ? n : 0};
}

ra_cost ra_cost_head(const ra_arch *a, const ra_workload *w, bool own_copy)
{
    const int64_t n = (int64_t)a->vocabulary * a->hidden, held = (own_copy ? n : 0) + a->hidden;
    const double logits = 2.0 * (double)n, rows = w->head_share, reference = w->kl_share;
    ra_cost c = {.forward = logits * (rows + reference), .parameters = held};
    if (w->training == RA_FROZEN) return c;
    c.input = logits * rows;
    c.again = logits * (rows + reference);
    if (w->training == RA_TRAIN_FULL) {
        c.weight = logits * rows;
        c.trainable = held;
    }
    return c;
}

ra_cost ra_cost_model(const ra_arch *a, const ra_workload *w)
{
    ra_cost sum = ra_cost_add(ra_cost_embedding(a, w), ra_cost_head(a, w, !a->tied));
    for (int32_t i = 0; i < a->layers; i++) sum = ra_cost_add(sum, ra_cost_layer(a, i, w));
    return sum;
}

ra_cost ra_cost_add(ra_cost a, ra_cost b)
{
    return (ra_cost){.forward = a.forward + b.forward,
                     .input = a.input + b.input,
                     .weight = a.weight + b.weight,
                     .again = a.again + b.again,
                     .parameters = a.parameters + b.parameters,
                     .trainable = a.trainable + b.trainable,
                     .kept_a = a.kept_a + b.kept_a,
                     .kept_r = a.kept_r + b.kept_r};
}

double ra_cost_flops(const ra_cost *c)
{
    return c->forward + c->input + c->weight;
}

double ra_cost_work(const ra_cost *c)
{
    return c->forward + c->input + c->weight + c->again;
}

double ra_cost_bytes(const ra_cost *c, const ra_workload *w, const ra_memory *m, double held)
{
    const double a = (double)m->a_size, r = (double)m->r_size, trained = (double)c->trainable;
    double bytes = (double)c->parameters * a;
    if (w->training != RA_FROZEN) bytes += trained * r * (1.0 + 2.0 / m->shards); /* gradient, moments */
    if (m->a_size != m->r_size) bytes += trained * r;                             /* masters */
    return bytes + held * m->rows * ((double)c->kept_a * a + (double)c->kept_r * r);
}
