#include "convert.h"

#include <realign/mem.h>
#include <realign/rng.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void add(ra_convert_source *s, const char *name, ra_dtype dtype, int ndim, const int64_t *shape)
{
    s->tensor = ra_realloc(s->tensor, (size_t)s->count + 1, sizeof *s->tensor);
    s->constant = ra_realloc(s->constant, (size_t)s->count + 1, sizeof *s->constant);
    s->constant[s->count] = NAN;
    ra_hf_tensor *t = &s->tensor[s->count++];
    *t = (ra_hf_tensor){.name = ra_strdup(name), .dtype = dtype, .ndim = ndim, .elements = 1};
    for (int d = 0; d < ndim; d++) {
        t->shape[d] = shape[d];
        t->elements *= shape[d];
    }
}

void ra_convert_source_free(ra_convert_source *source)
{
    for (int i = 0; i < source->count; i++) free(source->tensor[i].name);
    free(source->tensor);
    free(source->constant);
    ra_modelfile_close(source->model);
    ra_lora_close(source->adapter);
    *source = (ra_convert_source){0};
}

static ra_dtype kept_type(const char *stored)
{
    if (strcmp(stored, "F64") == 0) return RA_DTYPE_F64;
    if (strcmp(stored, "F16") == 0) return RA_DTYPE_F16;
    return strcmp(stored, "BF16") == 0 ? RA_DTYPE_BF16 : RA_DTYPE_F32;
}

ra_err ra_convert_from_model(const char *path, bool keep, ra_dtype dtype, ra_convert_source *out)
{
    RA_TRY(ra_modelfile_open(path, &out->model));
    for (int i = 0; i < ra_modelfile_count(out->model); i++) {
        const ra_tensor_info *t = ra_modelfile_info(out->model, i);
        add(out, t->name, keep ? kept_type(t->stored) : dtype, t->ndim, t->shape);
    }
    if (out->count == 0) return ra_fail(RA_ERR_DATA, "%s: it holds no tensors", path);
    return RA_OK;
}

ra_err ra_convert_add_adapter(ra_convert_source *source, const char *dir)
{
    RA_TRY(ra_lora_open(dir, &source->adapter));
    return ra_lora_check(source->adapter, source);
}

/* ---- random weights ---- */

static ra_err need_size(const char *path, const json_t *config, const char *key, int64_t otherwise, int64_t *out)
{
    const json_t *value = json_object_get(config, key);
    *out = json_is_integer(value) ? json_integer_value(value) : otherwise;
    if (*out >= 1 && *out <= INT32_MAX && (!value || json_is_integer(value) || json_is_null(value))) return RA_OK;
    return ra_fail(RA_ERR_FORMAT, "%s: %s must be an integer from 1 to 2^31 - 1", path, key);
}

static bool flag(const json_t *config, const char *key, bool otherwise)
{
    const json_t *value = json_object_get(config, key);
    return json_is_boolean(value) ? json_is_true(value) : otherwise;
}

typedef struct {
    int64_t vocabulary, hidden, inner, layers, heads, kv_heads, head_dim;
    bool qkv_bias, o_bias, mlp_bias, tied, gemma2;
} shapes;

static ra_err read_shapes(const char *path, const json_t *config, shapes *s)
{
    const char *family = json_string_value(json_object_get(config, "model_type"));
    if (!family || (strcmp(family, "llama") && strcmp(family, "qwen2") && strcmp(family, "gemma2"))) {
        return ra_fail(RA_ERR_UNSUPPORTED, "%s: model_type is \"%s\"; known are llama, qwen2 and gemma2", path,
                       family ? family : "");
    }
    s->gemma2 = strcmp(family, "gemma2") == 0;
    RA_TRY(need_size(path, config, "vocab_size", 0, &s->vocabulary));
    RA_TRY(need_size(path, config, "hidden_size", 0, &s->hidden));
    RA_TRY(need_size(path, config, "intermediate_size", 0, &s->inner));
    RA_TRY(need_size(path, config, "num_hidden_layers", 0, &s->layers));
    RA_TRY(need_size(path, config, "num_attention_heads", 0, &s->heads));
    RA_TRY(need_size(path, config, "num_key_value_heads", s->heads, &s->kv_heads));
    RA_TRY(need_size(path, config, "head_dim", s->gemma2 ? 256 : s->hidden / s->heads, &s->head_dim));
    bool attention_bias = flag(config, "attention_bias", false);
    s->qkv_bias = strcmp(family, "qwen2") == 0 || attention_bias;
    s->o_bias = strcmp(family, "qwen2") != 0 && attention_bias;
    s->mlp_bias = flag(config, "mlp_bias", false);
    s->tied = flag(config, "tie_word_embeddings", s->gemma2); /* transformers' defaults */
    return RA_OK;
}

static void add_linear(ra_convert_source *s, ra_dtype dtype, int64_t layer, const char *name, int64_t rows, int64_t columns,
                       bool bias)
{
    char *full = ra_format("model.layers.%lld.%s.weight", (long long)layer, name);
    add(s, full, dtype, 2, (int64_t[]){rows, columns});
    free(full);
    if (!bias) return;
    full = ra_format("model.layers.%lld.%s.bias", (long long)layer, name);
    add(s, full, dtype, 1, &rows);
    free(full);
}

static void add_norm(ra_convert_source *s, ra_dtype dtype, const char *name, const shapes *z)
{
    add(s, name, dtype, 1, &z->hidden);
    s->constant[s->count - 1] = z->gemma2 ? 0.0 : 1.0; /* Gemma multiplies by 1 + w */
}

static void add_layer_norm(ra_convert_source *s, ra_dtype dtype, int64_t layer, const char *name, const shapes *z)
{
    char *full = ra_format("model.layers.%lld.%s.weight", (long long)layer, name);
    add_norm(s, dtype, full, z);
    free(full);
}

ra_err ra_convert_from_config(const char *path, const json_t *config, ra_dtype dtype, uint64_t seed, ra_convert_source *out)
{
    shapes z = {0};
    RA_TRY(read_shapes(path, config, &z));
    const json_t *range = json_object_get(config, "initializer_range");
    out->seed = seed;
    out->deviation = json_is_number(range) ? json_number_value(range) : 0.02;
    add(out, "model.embed_tokens.weight", dtype, 2, (int64_t[]){z.vocabulary, z.hidden});
    for (int64_t l = 0; l < z.layers; l++) {
        int64_t q = z.heads * z.head_dim, kv = z.kv_heads * z.head_dim;
        add_layer_norm(out, dtype, l, "input_layernorm", &z);
        add_linear(out, dtype, l, "self_attn.q_proj", q, z.hidden, z.qkv_bias);
        add_linear(out, dtype, l, "self_attn.k_proj", kv, z.hidden, z.qkv_bias);
        add_linear(out, dtype, l, "self_attn.v_proj", kv, z.hidden, z.qkv_bias);
        add_linear(out, dtype, l, "self_attn.o_proj", z.hidden, q, z.o_bias);
        add_layer_norm(out, dtype, l, "post_attention_layernorm", &z);
        if (z.gemma2) {
            add_layer_norm(out, dtype, l, "pre_feedforward_layernorm", &z);
            add_layer_norm(out, dtype, l, "post_feedforward_layernorm", &z);
        }
        add_linear(out, dtype, l, "mlp.gate_proj", z.inner, z.hidden, z.mlp_bias);
        add_linear(out, dtype, l, "mlp.up_proj", z.inner, z.hidden, z.mlp_bias);
        add_linear(out, dtype, l, "mlp.down_proj", z.hidden, z.inner, z.mlp_bias);
    }
    add_norm(out, dtype, "model.norm.weight", &z);
    if (!z.tied) add(out, "lm_head.weight", dtype, 2, (int64_t[]){z.vocabulary, z.hidden});
    return RA_OK;
}

/* Four normal numbers of one block of the generator, by Box-Muller. */
static void draw_four(ra_rng *rng, uint64_t block, float out[4])
{
    rng->counter = block;
    rng->used = 4;
    for (int k = 0; k < 4; k += 2) {
        float u = (float)(((double)ra_rng_u32(rng) + 0.5) * 0x1p-32), angle = (float)((double)ra_rng_u32(rng) * (0x1p-31 * M_PI));
        float radius = sqrtf(-2.0f * logf(u));
        out[k] = radius * cosf(angle);
        out[k + 1] = radius * sinf(angle);
    }
}

/* Element i of a tensor is number i % 4 of block i / 4, whatever piece it is drawn in. */
static void draw(const ra_convert_source *s, int index, int64_t first, int64_t count, void *out)
{
    const ra_hf_tensor *t = &s->tensor[index];
    enum { PIECE = 4096 };
    size_t size = ra_dtype_size(t->dtype);
#pragma omp parallel for schedule(static) if (count > 4 * PIECE)
    for (int64_t done = 0; done < count; done += PIECE) {
        float values[PIECE + 8];
        int64_t n = count - done < PIECE ? count - done : PIECE, skip = (first + done) % 4;
        ra_rng rng = ra_rng_make(s->seed, (uint64_t)(index + 1) << 32 | RA_STREAM_INIT);
        for (int64_t i = 0; i < skip + n; i += 4) draw_four(&rng, (uint64_t)((first + done) / 4 + i / 4), values + i);
        for (int64_t i = skip; i < skip + n; i++)
            values[i] = isnan(s->constant[index]) ? (float)s->deviation * values[i] : (float)s->constant[index];
        ra_dtype_convert(t->dtype, (uint8_t *)out + (size_t)done * size, RA_DTYPE_F32, values + skip, n);
    }
}

ra_err ra_convert_read(const void *context, int index, int64_t first, int64_t count, void *out)
{
    const ra_convert_source *source = context;
    const ra_hf_tensor *t = &source->tensor[index];
    if (!source->model) {
        draw(source, index, first, count, out);
        return RA_OK;
    }
    int pair = source->adapter ? ra_lora_find(source->adapter, t->name) : -1;
    if (pair < 0) return ra_modelfile_read(source->model, t->name, first, count, t->dtype, out);
    double *w = ra_alloc((size_t)count, sizeof *w);
    ra_err err = ra_modelfile_read(source->model, t->name, first, count, RA_DTYPE_F64, w);
    if (err == RA_OK) {
        ra_lora_add_rows(source->adapter, pair, first / t->shape[1], count / t->shape[1], w);
        ra_dtype_convert(t->dtype, out, RA_DTYPE_F64, w, count);
    }
    ra_free(w);
    return err;
}
