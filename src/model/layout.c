#include "layout.h"

#include <realign/mem.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const ra_projection_name[RA_PROJECTIONS] = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                                        "gate_proj", "up_proj", "down_proj"};

static int64_t align16(int64_t n)
{
    return (n + 15) / 16 * 16;
}

/* Appends a tensor; `glued` puts it right behind the one before. Returns its offset. */
static int64_t add(ra_layout *l, bool glued, int ndim, int64_t rows, int64_t columns, const char *format, ...)
{
    if (l->count % 64 == 0) l->param = ra_realloc(l->param, (size_t)l->count + 64, sizeof *l->param);
    ra_param *p = &l->param[l->count++];
    memset(p, 0, sizeof *p);
    va_list args;
    va_start(args, format);
    vsnprintf(p->name, sizeof p->name, format, args);
    va_end(args);
    if (!glued) l->size = align16(l->size);
    p->ndim = ndim;
    p->shape[0] = rows;
    p->shape[1] = ndim == 2 ? columns : 1;
    p->count = rows * p->shape[1];
    p->offset = l->size;
    l->size += p->count;
    if (ndim == 1) {
        if (!glued) l->vector_size = align16(l->vector_size);
        p->vector_offset = l->vector_size;
        l->vector_size += p->count;
    }
    return p->offset;
}

static int64_t last_vector(const ra_layout *l)
{
    return l->param[l->count - 1].vector_offset;
}

static void lay_out_base(ra_model *m)
{
    const ra_arch *a = &m->arch;
    ra_layout *l = &m->base;
    int64_t h = a->hidden, f = a->ffn, q = (int64_t)a->heads * a->head_dim, kv = (int64_t)a->kv_heads * a->head_dim;
    m->embedding = add(l, false, 2, a->vocabulary, h, "model.embed_tokens.weight");
    for (int32_t i = 0; i < a->layers; i++) {
        ra_layer *y = &m->layer[i];
        y->input_norm = add(l, false, 1, h, 1, "model.layers.%d.input_layernorm.weight", i);
        y->input_norm_v = last_vector(l);
        y->qkv = (ra_linear){.in = (int32_t)h, .out = (int32_t)(q + 2 * kv), .bias = -1};
        y->qkv.weight = add(l, false, 2, q, h, "model.layers.%d.self_attn.q_proj.weight", i);
        add(l, true, 2, kv, h, "model.layers.%d.self_attn.k_proj.weight", i);
        add(l, true, 2, kv, h, "model.layers.%d.self_attn.v_proj.weight", i);
        if (a->qkv_bias) {
            y->qkv.bias = add(l, false, 1, q, 1, "model.layers.%d.self_attn.q_proj.bias", i);
            y->qkv.bias_vector = last_vector(l);
            add(l, true, 1, kv, 1, "model.layers.%d.self_attn.k_proj.bias", i);
            add(l, true, 1, kv, 1, "model.layers.%d.self_attn.v_proj.bias", i);
        }
        y->o = (ra_linear){.in = (int32_t)q, .out = (int32_t)h, .bias = -1};
        y->o.weight = add(l, false, 2, h, q, "model.layers.%d.self_attn.o_proj.weight", i);
        y->post_attention_norm = y->post_ffn_norm = -1;
        if (a->post_norms) { /* Gemma-2: post_attention_layernorm follows attention, pre_feedforward_layernorm precedes the network */
            y->post_attention_norm = add(l, false, 1, h, 1, "model.layers.%d.post_attention_layernorm.weight", i);
            y->post_attention_norm_v = last_vector(l);
            y->ffn_norm = add(l, false, 1, h, 1, "model.layers.%d.pre_feedforward_layernorm.weight", i);
        } else {
            y->ffn_norm = add(l, false, 1, h, 1, "model.layers.%d.post_attention_layernorm.weight", i);
        }
        y->ffn_norm_v = last_vector(l);
        y->gate_up = (ra_linear){.in = (int32_t)h, .out = (int32_t)(2 * f), .bias = -1};
        y->gate_up.weight = add(l, false, 2, f, h, "model.layers.%d.mlp.gate_proj.weight", i);
        add(l, true, 2, f, h, "model.layers.%d.mlp.up_proj.weight", i);
        y->down = (ra_linear){.in = (int32_t)f, .out = (int32_t)h, .bias = -1};
        y->down.weight = add(l, false, 2, h, f, "model.layers.%d.mlp.down_proj.weight", i);
        if (a->post_norms) {
            y->post_ffn_norm = add(l, false, 1, h, 1, "model.layers.%d.post_feedforward_layernorm.weight", i);
            y->post_ffn_norm_v = last_vector(l);
        }
    }
    m->final_norm = add(l, false, 1, h, 1, "model.norm.weight");
    m->final_norm_v = last_vector(l);
    m->head = a->tied ? m->embedding : add(l, false, 2, a->vocabulary, h, "lm_head.weight");
    l->size = align16(l->size);
    l->vector_size = align16(l->vector_size);
}

/* Adapters on the projections [first, first + n) that are stacked in one product. */
static void lay_out_adapters(ra_model *m, ra_linear *y, int32_t layer, int first, int n, const int32_t *rows, const char *block)
{
    ra_layout *l = &m->adapter;
    int32_t rank = m->lora.rank, row = 0;
    for (int i = 0; i < n; i++) {
        if (m->lora.targets >> (first + i) & 1) {
            int64_t a = add(l, y->adapters > 0, 2, rank, y->in, "model.layers.%d.%s.%s.lora_A.weight", layer, block,
                            ra_projection_name[first + i]);
            if (y->adapters == 0) y->a = a;
            y->adapter[y->adapters].row = row;
            y->adapter[y->adapters++].rows = rows[i];
        }
        row += rows[i];
    }
    for (int i = 0, j = 0; i < n; i++) {
        if (!(m->lora.targets >> (first + i) & 1)) continue;
        y->adapter[j++].b =
            add(l, false, 2, rows[i], rank, "model.layers.%d.%s.%s.lora_B.weight", layer, block, ra_projection_name[first + i]);
    }
}

void ra_model_lay_out(ra_model *m)
{
    const ra_arch *a = &m->arch;
    m->layer = ra_calloc((size_t)a->layers, sizeof *m->layer);
    lay_out_base(m);
    if (m->lora.rank == 0) return;
    int32_t q = a->heads * a->head_dim, kv = a->kv_heads * a->head_dim;
    for (int32_t i = 0; i < a->layers; i++) {
        ra_layer *y = &m->layer[i];
        lay_out_adapters(m, &y->qkv, i, RA_Q, 3, (int32_t[]){q, kv, kv}, "self_attn");
        lay_out_adapters(m, &y->o, i, RA_O, 1, (int32_t[]){a->hidden}, "self_attn");
        lay_out_adapters(m, &y->gate_up, i, RA_GATE, 2, (int32_t[]){a->ffn, a->ffn}, "mlp");
        lay_out_adapters(m, &y->down, i, RA_DOWN, 1, (int32_t[]){a->hidden}, "mlp");
    }
    m->adapter.size = align16(m->adapter.size);
}

void ra_layout_free(ra_layout *l)
{
    free(l->param);
    *l = (ra_layout){0};
}

int ra_layout_find(const ra_layout *l, const char *name)
{
    for (int i = 0; i < l->count; i++) {
        if (strcmp(l->param[i].name, name) == 0) return i;
    }
    return -1;
}
