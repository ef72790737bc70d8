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

/* Counts a tensor of the network and, where it is held here, appends it; `glued` puts it right behind the one before. Returns its offset, -1 where it is elsewhere. */
static int64_t add(ra_layout *l, bool held, bool glued, int ndim, int64_t rows, int64_t columns, const char *format, ...)
{
    if (!glued) l->canonical_size = align16(l->canonical_size);
    int64_t canonical = l->canonical_size;
    l->canonical_size += rows * (ndim == 2 ? columns : 1);
    int32_t number = l->canonical_count++;
    if (!held) return -1;
    if (l->count % 64 == 0) l->param = ra_realloc(l->param, (size_t)l->count + 64, sizeof *l->param);
    ra_param *p = &l->param[l->count++];
    memset(p, 0, sizeof *p);
    va_list args;
    va_start(args, format);
    vsnprintf(p->name, sizeof p->name, format, args);
    va_end(args);
    if (!glued) l->size = align16(l->size);
    p->number = number;
    p->canonical = canonical;
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
    return l->count ? l->param[l->count - 1].vector_offset : -1;
}

/* Whether the layer is held here; *y is then the next of the model's layers, else memory to write to. */
static bool take_layer(ra_model *m, int32_t index, int32_t *next, ra_layer *elsewhere, ra_layer **y)
{
    bool held = *next < m->layers && m->layer[*next].index == index;
    *y = held ? &m->layer[(*next)++] : elsewhere;
    return held;
}

/* The same tensor as the embedding, on a rank that has only the head: last, so that what a rank owns is in front. */
static int64_t add_copy_of_embedding(ra_layout *l, int64_t rows, int64_t columns)
{
    ra_layout whole = *l;
    int64_t offset = add(l, true, false, 2, rows, columns, "model.embed_tokens.weight");
    ra_param *p = &l->param[l->count - 1];
    p->number = 0;
    p->canonical = 0;
    p->copy = true;
    l->canonical_count = whole.canonical_count;
    l->canonical_size = whole.canonical_size;
    return offset;
}

static void finish(ra_layout *l)
{
    l->size = align16(l->size);
    l->vector_size = align16(l->vector_size);
    l->canonical_size = align16(l->canonical_size);
    l->own_size = l->size;
}

static void lay_out_base(ra_model *m)
{
    const ra_arch *a = &m->arch;
    ra_layout *l = &m->base;
    int64_t h = a->hidden, f = a->ffn, q = (int64_t)a->heads * a->head_dim, kv = (int64_t)a->kv_heads * a->head_dim;
    m->embedding = add(l, m->first, false, 2, a->vocabulary, h, "model.embed_tokens.weight");
    ra_layer elsewhere, *y;
    for (int32_t i = 0, next = 0; i < a->layers; i++) {
        bool held = take_layer(m, i, &next, &elsewhere, &y);
        y->input_norm = add(l, held, false, 1, h, 1, "model.layers.%d.input_layernorm.weight", i);
        y->input_norm_v = last_vector(l);
        y->qkv = (ra_linear){.in = (int32_t)h, .out = (int32_t)(q + 2 * kv), .bias = -1};
        y->qkv.weight = add(l, held, false, 2, q, h, "model.layers.%d.self_attn.q_proj.weight", i);
        add(l, held, true, 2, kv, h, "model.layers.%d.self_attn.k_proj.weight", i);
        add(l, held, true, 2, kv, h, "model.layers.%d.self_attn.v_proj.weight", i);
        if (a->qkv_bias) {
            y->qkv.bias = add(l, held, false, 1, q, 1, "model.layers.%d.self_attn.q_proj.bias", i);
            y->qkv.bias_vector = last_vector(l);
            add(l, held, true, 1, kv, 1, "model.layers.%d.self_attn.k_proj.bias", i);
            add(l, held, true, 1, kv, 1, "model.layers.%d.self_attn.v_proj.bias", i);
        }
        y->o = (ra_linear){.in = (int32_t)q, .out = (int32_t)h, .bias = -1};
        y->o.weight = add(l, held, false, 2, h, q, "model.layers.%d.self_attn.o_proj.weight", i);
        y->post_attention_norm = y->post_ffn_norm = -1;
        if (a->post_norms) { /* Gemma-2: post_attention_layernorm follows attention, pre_feedforward_layernorm precedes the network */
            y->post_attention_norm = add(l, held, false, 1, h, 1, "model.layers.%d.post_attention_layernorm.weight", i);
            y->post_attention_norm_v = last_vector(l);
            y->ffn_norm = add(l, held, false, 1, h, 1, "model.layers.%d.pre_feedforward_layernorm.weight", i);
        } else {
            y->ffn_norm = add(l, held, false, 1, h, 1, "model.layers.%d.post_attention_layernorm.weight", i);
        }
        y->ffn_norm_v = last_vector(l);
        y->gate_up = (ra_linear){.in = (int32_t)h, .out = (int32_t)(2 * f), .bias = -1};
        y->gate_up.weight = add(l, held, false, 2, f, h, "model.layers.%d.mlp.gate_proj.weight", i);
        add(l, held, true, 2, f, h, "model.layers.%d.mlp.up_proj.weight", i);
        y->down = (ra_linear){.in = (int32_t)f, .out = (int32_t)h, .bias = -1};
        y->down.weight = add(l, held, false, 2, h, f, "model.layers.%d.mlp.down_proj.weight", i);
        if (a->post_norms) {
            y->post_ffn_norm = add(l, held, false, 1, h, 1, "model.layers.%d.post_feedforward_layernorm.weight", i);
            y->post_ffn_norm_v = last_vector(l);
        }
    }
    m->final_norm = add(l, m->last, false, 1, h, 1, "model.norm.weight");
    m->final_norm_v = m->last ? last_vector(l) : -1;
    if (!a->tied) m->head = add(l, m->last, false, 2, a->vocabulary, h, "lm_head.weight");
    finish(l);
    if (!a->tied) return;
    m->head = !m->last ? -1 : m->first ? m->embedding : add_copy_of_embedding(l, a->vocabulary, h);
    l->size = align16(l->size);
}

/* Adapters on the projections [first, first + n) that are stacked in one product. */
static void lay_out_adapters(ra_model *m, bool held, ra_linear *y, int32_t layer, int first, int n, const int32_t *rows,
                             const char *block)
{
    ra_layout *l = &m->adapter;
    int32_t rank = m->lora.rank, row = 0;
    for (int i = 0; i < n; i++) {
        if (m->lora.targets >> (first + i) & 1) {
            int64_t a = add(l, held, y->adapters > 0, 2, rank, y->in, "model.layers.%d.%s.%s.lora_A.weight", layer, block,
                            ra_projection_name[first + i]);
            if (y->adapters == 0) y->a = a;
            y->adapter[y->adapters].row = row;
            y->adapter[y->adapters++].rows = rows[i];
        }
        row += rows[i];
    }
    for (int i = 0, j = 0; i < n; i++) {
        if (!(m->lora.targets >> (first + i) & 1)) continue;
        y->adapter[j++].b = add(l, held, false, 2, rows[i], rank, "model.layers.%d.%s.%s.lora_B.weight", layer, block,
                                ra_projection_name[first + i]);
    }
}

/* The model's layers, numbered; a part that was not given is the whole network. */
static void number_layers(ra_model *m)
{
    ra_part *part = &m->part;
    if (part->chunks == 0) {
        part->chunks = 1;
        part->chunk[0].first = 0;
        part->chunk[0].count = m->arch.layers;
    }
    m->layers = 0;
    for (int32_t c = 0; c < part->chunks; c++) m->layers += part->chunk[c].count;
    m->layer = ra_calloc((size_t)m->layers, sizeof *m->layer);
    int32_t next = 0;
    for (int32_t c = 0; c < part->chunks; c++) {
        for (int32_t i = 0; i < part->chunk[c].count; i++) m->layer[next++].index = part->chunk[c].first + i;
    }
    m->first = m->layer[0].index == 0;
    m->last = m->layer[m->layers - 1].index == m->arch.layers - 1;
}

void ra_model_lay_out(ra_model *m)
{
    const ra_arch *a = &m->arch;
    if (m->rope_positions == 0) m->rope_positions = a->max_position;
    number_layers(m);
    lay_out_base(m);
    if (m->lora.rank == 0) return;
    int32_t q = a->heads * a->head_dim, kv = a->kv_heads * a->head_dim;
    ra_layer elsewhere, *y;
    for (int32_t i = 0, next = 0; i < a->layers; i++) {
        elsewhere = (ra_layer){0};
        bool held = take_layer(m, i, &next, &elsewhere, &y);
        elsewhere.qkv.in = elsewhere.gate_up.in = a->hidden;
        elsewhere.o.in = q;
        elsewhere.down.in = a->ffn;
        lay_out_adapters(m, held, &y->qkv, i, RA_Q, 3, (int32_t[]){q, kv, kv}, "self_attn");
        lay_out_adapters(m, held, &y->o, i, RA_O, 1, (int32_t[]){a->hidden}, "self_attn");
        lay_out_adapters(m, held, &y->gate_up, i, RA_GATE, 2, (int32_t[]){a->ffn, a->ffn}, "mlp");
        lay_out_adapters(m, held, &y->down, i, RA_DOWN, 1, (int32_t[]){a->hidden}, "mlp");
    }
    finish(&m->adapter);
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
