/* FLOP and byte models. */
#include <realign/cost.h>

#include <math.h>

static int64_t adapter_parameters(const ra_arch *a, const ra_lora_config *lora, int64_t *columns)
{
    const int64_t h = a->hidden, q = (int64_t)a->heads * a->head_dim, kv = (int64_t)a->kv_heads * a->head_dim, f = a->ffn;
    const int64_t both[RA_PROJECTIONS] = {h + q, h + kv, h + kv, q + h, h + f, h + f, f + h}; /* in + out */
    int64_t sum = 0;
    *columns = 0;
    for (int i = 0; i < RA_PROJECTIONS; i++) {
        if (!(lora->targets >> i & 1)) continue;
        sum += both[i] * lora->rank;
        *columns += lora->rank;
    }
    return sum;
}

ra_cost ra_cost_layer(const ra_arch *a, int32_t i, const ra_workload *w)
{
    const int64_t h = a->hidden, q = (int64_t)a->heads * a->head_dim, kv = (int64_t)a->kv_heads * a->head_dim, f = a->ffn;
    const int64_t matrices = h * (q + 2 * kv) + q * h + 3 * h * f;
    const int64_t vectors = (a->post_norms ? 4 : 2) * h + (a->qkv_bias ? q + 2 * kv : 0);
    const bool backward = w->training != RA_FROZEN, full = w->training == RA_TRAIN_FULL,
               adapted = w->training == RA_TRAIN_ADAPTER;
    int64_t columns = 0, adapter = adapted ? adapter_parameters(a, &w->lora, &columns) : 0;
    double context = a->window > 0 && a->layer_windowed[i] ? fmin(w->context, a->window) : w->context;
    double scores = 2.0 * (double)q * context; /* q.k of a row; its weighted values cost the same */
    ra_cost c = {.forward = 2.0 * (double)(matrices + adapter) + 2.0 * scores,
                 .parameters = matrices + vectors + adapter,
                 .trainable = full ? matrices + vectors : adapter};
    if (!backward) return c;
    c.input = 2.0 * (double)(matrices + adapter) + 4.0 * scores; /* gradients of scores, q, k and v */
    c.weight = 2.0 * (double)(full ? matrices : adapter);
    c.again = scores;
    c.kept_a = 2 * h + (q + 2 * kv) + q + 3 * f + columns;
    c.kept_r = (a->post_norms ? 4 : 2) * (h + 1) + a->heads;
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
