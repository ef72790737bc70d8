/* The hot path against its own limit: a micro-batch of 1,024 rows (samples of 60 prompt and 2 x 58 response tokens) forward, backward with gradients, backward by contraction, full parameters
 * and LoRA r32 on q and v, beside the bare products of the same shapes.
 *   bench_engine [MODEL [PRECISION]]     MODEL: a directory or a GGUF file; else $REALIGN_DEMO_GGUF
 * FLOP model, P_l the weights of the layers' products, n the head rows: forward 2 rows P_l + 2 n V H; backward through activations as much; gradients, or products with the tangent, as much
 * again with full parameters. The head's second logits product is work we add, not necessary work, and attention's products are left out: both only lower the share that is printed. */
#include "support/passes.h"

#include <realign/cost.h>
#include <realign/mem.h>
#include <realign/rng.h>

#include <stdio.h>
#include <stdlib.h>

enum { ROWS = 1024, PROMPT = 60, RESPONSE = 58, REPEATS = 3 };

static void fill(const ra_model *m, ra_microbatch *mb)
{
    static int32_t ids[PROMPT + 2 * RESPONSE];
    ra_rng rng = ra_rng_make(1, RA_STREAM_TEST);
    for (int64_t id = 0;; id++) {
        for (int i = 0; i < PROMPT + 2 * RESPONSE; i++) ids[i] = (int32_t)ra_rng_below(&rng, (uint64_t)m->arch.vocabulary);
        ra_sample s = {.id = id, .prompt_count = PROMPT, .prompt = ids};
        for (int r = 0; r < 2; r++) {
            s.response[r].count = RESPONSE;
            s.response[r].token = ids + PROMPT + r * RESPONSE;
        }
        if (!ra_microbatch_add(mb, &s, RA_LOSS_PAIR, 1.0, NULL)) return;
    }
}

/* The products of one pass over the layers and the head, and nothing else. kind 0: Y = X W^T, 1: dX = dY W, 2: dW += dY^T X. */
static void products(const ra_model *m, int kind, int64_t rows, int64_t n, void *x, void *y, void *w)
{
    ra_backend *b = m->b;
    for (int32_t i = 0; i <= m->layers; i++) {
        bool head = i == m->layers;
        const ra_layer *layer = &m->layer[head ? 0 : i];
        ra_linear own = {.in = m->arch.hidden, .out = m->arch.vocabulary, .weight = m->head};
        const ra_linear *l[] = {head ? &own : &layer->qkv, &layer->o, &layer->gate_up, &layer->down};
        for (int k = 0; k < (head ? 1 : 4); k++) {
            int64_t t = head ? n : rows, block = head ? 4096 : l[k]->out;
            for (int64_t v = 0; v < l[k]->out; v += block) {
                int64_t nv = l[k]->out - v < block ? l[k]->out - v : block, in = l[k]->in;
                const void *weight = (const char *)m->w_a + (size_t)(l[k]->weight + v * in) * b->a_size;
                if (kind == 0) b->ops->gemm(b, RA_NO_TRANSPOSE, RA_TRANSPOSE, t, nv, in, x, in, weight, in, false, head, y, nv);
                if (kind == 1)
                    b->ops->gemm(b, RA_NO_TRANSPOSE, RA_NO_TRANSPOSE, t, in, nv, y, nv, weight, in, false, true, x, in);
                if (kind == 2) {
                    void *dw = (char *)w + (size_t)(l[k]->weight + v * in) * b->r_size;
                    b->ops->gemm(b, RA_TRANSPOSE, RA_NO_TRANSPOSE, nv, in, t, y, nv, x, in, true, true, dw, in);
                }
            }
        }
    }
}

static double best_products(const ra_model *m, int kinds, int64_t rows, int64_t n)
{
    ra_backend *b = m->b;
    size_t widest = (size_t)rows * (size_t)(2 * m->arch.ffn > 4096 ? 2 * m->arch.ffn : 4096) * b->r_size;
    void *x = b->ops->alloc(b, widest), *y = b->ops->alloc(b, widest), *w = b->ops->alloc(b, (size_t)m->base.size * b->r_size);
    double best = 1e30;
    for (int k = 0; k < REPEATS; k++) {
        double t = ra_now();
        for (int kind = 0; kind < kinds; kind++) products(m, kind, rows, n, x, y, w);
        if (ra_now() - t < best) best = ra_now() - t;
    }
    b->ops->release(b, x);
    b->ops->release(b, y);
    b->ops->release(b, w);
    return best;
}

static void line(const char *what, double seconds, double flops, double limit, int items)
{
    printf("%-34s %7.3f s %7.1f GFLOP/s  %5.2f pairs/s  %4.0f %% of the products alone\n", what, seconds, flops / seconds * 1e-9,
           items / seconds, 100.0 * limit / seconds);
}

/* The least of several. */
static void seconds_of(const one_pass *pass, ra_microbatch *mb, double *best)
{
    double t = ra_now();
    run_pass(pass, mb);
    if (ra_now() - t < *best) *best = ra_now() - t;
}

static void bench(ra_backend *b, const ra_modelfile *file, ra_training mode)
{
    ra_lora_config lora = {.rank = 32, .alpha = 16, .targets = 1u << RA_Q | 1u << RA_V};
    bool full = mode == RA_TRAIN_FULL;
    ra_model *m = NULL;
    if (ra_model_open(b, file, mode, full ? NULL : &lora, 512, NULL, &m) != RA_OK) ra_die("%s", ra_error_message());
    if (!full) ra_model_init_adapter(m, 1);
    ra_microbatch *mb = ra_microbatch_new(ROWS);
    fill(m, mb);
    ra_engine *e = engine_alone(m, ROWS, true);
    const ra_layout *l = ra_model_trainable(m);
    void *gradient = b->ops->alloc(b, (size_t)l->size * b->r_size), *tangent_a = b->ops->alloc(b, (size_t)l->size * b->a_size);
    double *dot = ra_alloc((size_t)mb->items, sizeof *dot), forward = 1e30, backward = 1e30, contract = 1e30;
    ra_objective o = {.beta = 0.3, .npo_scale = 1.0};
    const one_pass scoring = {.e = e, .objective = &o};
    one_pass training = scoring, weighing = scoring;
    training.backward = &(ra_backward){.gradient = gradient};
    weighing.backward = &(ra_backward){.tangent_r = gradient, .tangent_a = tangent_a};
    weighing.dot = dot;
    for (int k = 0; k < REPEATS; k++) {
        seconds_of(&scoring, mb, &forward);
        seconds_of(&training, mb, &backward);
        b->ops->cast_to_a(b, l->size, gradient, tangent_a);
        seconds_of(&weighing, mb, &contract);
    }
    const ra_workload work = {.training = RA_FROZEN, .head_share = (double)mb->head_rows / mb->pack.rows};
    double once = ra_cost_model(&m->arch, &work).forward * mb->pack.rows, passes = full ? 3.0 : 2.0;
    double limit1 = best_products(m, 1, mb->pack.rows, mb->head_rows),
           limit = best_products(m, full ? 3 : 2, mb->pack.rows, mb->head_rows);
    printf("%s: %d pairs, %d rows, %d head rows, %.0f GFLOP a pass\n", full ? "full parameters" : "LoRA r32 on q_proj, v_proj",
           mb->items, mb->pack.rows, mb->head_rows, once * 1e-9);
    line("  forward (scoring)", forward, once, limit1, mb->items);
    line("  forward + backward, gradients", backward, passes * once, limit, mb->items);
    line("  forward + backward, contraction", contract, passes * once, limit, mb->items);
    ra_free(dot);
    b->ops->release(b, gradient);
    b->ops->release(b, tangent_a);
    ra_engine_free(e);
    ra_microbatch_free(mb);
    ra_model_close(m);
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : getenv("REALIGN_DEMO_GGUF");
    if (!path) {
        printf("bench_engine: no model: give a path or set REALIGN_DEMO_GGUF\n");
        return 0;
    }
    ra_backend *b = NULL;
    ra_modelfile *file = NULL;
    if (ra_backend_open("cpu", argc > 2 ? argv[2] : "auto", 0, &b) != RA_OK || ra_modelfile_open(path, &file) != RA_OK)
        ra_die("%s", ra_error_message());
    printf("%s\n", ra_backend_describe(b));
    bench(b, file, RA_TRAIN_FULL);
    bench(b, file, RA_TRAIN_ADAPTER);
    ra_modelfile_close(file);
    ra_backend_close(b);
    return 0;
}
