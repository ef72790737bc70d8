/* Opening a model: parameters from its files, rope tables, adapters. */
#include "layout.h"

#include <realign/file.h>
#include <realign/mem.h>
#include <realign/rng.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* theta^(-2 i / d); Llama-3.1 scales it by wave length, at every sequence length. Exact in double: published code rounds to float32, which is its own error. */
static double inverse_frequency(const ra_arch *a, int32_t i)
{
    double exact = pow(a->rope_theta, -2.0 * i / a->head_dim);
    if (!a->rope.llama3) return exact;
    double wave = 2.0 * 3.14159265358979323846 / exact;
    double low = a->rope.original_positions / a->rope.low_frequency, high = a->rope.original_positions / a->rope.high_frequency;
    if (wave > low) return exact / a->rope.factor;
    if (wave < high) return exact;
    double smooth =
        (a->rope.original_positions / wave - a->rope.low_frequency) / (a->rope.high_frequency - a->rope.low_frequency);
    return (1.0 - smooth) * exact / a->rope.factor + smooth * exact;
}

static void upload_r(ra_backend *b, void *to, int64_t at, const double *values, int64_t n)
{
    char *part = ra_alloc((size_t)n, b->r_size);
    ra_dtype_convert(b->r, part, RA_DTYPE_F64, values, n);
    b->ops->upload(b, (char *)to + (size_t)at * b->r_size, part, (size_t)n * b->r_size);
    ra_free(part);
}

static void make_rope_tables(ra_model *m)
{
    int32_t half = m->arch.head_dim / 2;
    int64_t n = (int64_t)m->rope_positions * half;
    double *c = ra_alloc((size_t)n, sizeof *c), *s = ra_alloc((size_t)n, sizeof *s);
    for (int32_t i = 0; i < half; i++) {
        double f = inverse_frequency(&m->arch, i);
        for (int32_t p = 0; p < m->rope_positions; p++) {
            c[(int64_t)p * half + i] = cos(p * f);
            s[(int64_t)p * half + i] = sin(p * f);
        }
    }
    size_t bytes = ra_model_sizes_of(m).rope / 2;
    m->cosine = m->b->ops->alloc(m->b, bytes);
    m->sine = m->b->ops->alloc(m->b, bytes);
    upload_r(m->b, m->cosine, 0, c, n);
    upload_r(m->b, m->sine, 0, s, n);
    ra_free(c);
    ra_free(s);
}

static ra_err check_shape(const ra_modelfile *file, const ra_param *p)
{
    int i = ra_modelfile_find(file, p->name);
    if (i < 0) return ra_fail(RA_ERR_FORMAT, "%s: tensor %s is missing", ra_modelfile_path(file), p->name);
    const ra_tensor_info *info = ra_modelfile_info(file, i);
    if (info->ndim == p->ndim && info->shape[0] == p->shape[0] && (p->ndim == 1 || info->shape[1] == p->shape[1])) return RA_OK;
    return ra_fail(RA_ERR_FORMAT, "%s: tensor %s has shape (%lld%s%.0lld); config.json asks for (%lld%s%.0lld)",
                   ra_modelfile_path(file), p->name, (long long)info->shape[0], info->ndim > 1 ? ", " : "",
                   info->ndim > 1 ? (long long)info->shape[1] : 0LL, (long long)p->shape[0], p->ndim > 1 ? ", " : "",
                   p->ndim > 1 ? (long long)p->shape[1] : 0LL);
}

enum { PIECE = 1 << 22 }; /* elements read at a time */

/* A value whose exponent is all ones is a NaN or an infinity. */
static bool all_finite(ra_dtype type, const void *values, int64_t n)
{
    unsigned special = 0;
    const uint16_t *half = values;
    const uint32_t *single = values;
    const uint64_t *wide = values;
    for (int64_t i = 0; type == RA_DTYPE_BF16 && i < n; i++) special |= (half[i] & 0x7f80U) == 0x7f80U;
    for (int64_t i = 0; type == RA_DTYPE_F32 && i < n; i++) special |= (single[i] & 0x7f800000U) == 0x7f800000U;
    for (int64_t i = 0; type == RA_DTYPE_F64 && i < n; i++) special |= wide[i] << 1 >= UINT64_C(0x7ff) << 53;
    return !special;
}

static ra_err load_tensor(ra_model *m, const ra_modelfile *file, const ra_param *p, char *piece)
{
    ra_backend *b = m->b;
    RA_TRY(check_shape(file, p));
    for (int64_t at = 0; at < p->count; at += PIECE) {
        int64_t n = p->count - at < PIECE ? p->count - at : PIECE;
        ra_dtype type = m->w_r ? b->r : b->a;
        RA_TRY(ra_modelfile_read(file, p->name, at, n, type, piece));
        if (!all_finite(type, piece, n)) {
            return ra_fail(RA_ERR_DATA, "%s: tensor %s holds a value that is no finite number (NaN or infinity)",
                           ra_modelfile_path(file), p->name);
        }
        if (m->w_r) {
            b->ops->upload(b, (char *)m->w_r + (size_t)(p->offset + at) * b->r_size, piece, (size_t)n * b->r_size);
        } else {
            b->ops->upload(b, (char *)m->w_a + (size_t)(p->offset + at) * b->a_size, piece, (size_t)n * b->a_size);
            if (p->ndim != 1) continue;
            RA_TRY(ra_modelfile_read(file, p->name, at, n, b->r, piece));
            b->ops->upload(b, (char *)m->vectors + (size_t)(p->vector_offset + at) * b->r_size, piece, (size_t)n * b->r_size);
        }
    }
    return RA_OK;
}

void ra_model_refresh(ra_model *m)
{
    ra_backend *b = m->b;
    if (m->adapter.size && m->adapter_a != m->adapter_r) b->ops->cast_to_a(b, m->adapter.size, m->adapter_r, m->adapter_a);
    if (!m->w_r) return;
    if (m->w_a != m->w_r) b->ops->cast_to_a(b, m->base.size, m->w_r, m->w_a);
    for (int i = 0; i < m->base.count; i++) {
        const ra_param *p = &m->base.param[i];
        if (p->ndim != 1) continue;
        b->ops->copy(b, (char *)m->vectors + (size_t)p->vector_offset * b->r_size, (char *)m->w_r + (size_t)p->offset * b->r_size,
                     (size_t)p->count * b->r_size);
    }
}

static double embedding_scale(const ra_model *m)
{
    if (!m->arch.scaled_embedding) return 1.0;
    double scale = sqrt((double)m->arch.hidden); /* the published models round it to their own type */
    if (m->b->a == RA_DTYPE_BF16) return ra_bf16_to_f32(ra_f32_to_bf16((float)scale));
    return m->b->a == RA_DTYPE_F32 ? (float)scale : scale;
}

ra_err ra_arch_of(const ra_modelfile *file, ra_arch *arch)
{
    char *json = NULL;
    RA_TRY(ra_modelfile_config_json(file, &json));
    ra_err err = ra_arch_parse(json, ra_modelfile_path(file), arch);
    free(json);
    return err;
}

ra_err ra_arch_read(const char *path, ra_arch *out)
{
    if (ra_file_is_dir(path)) {
        ra_buf json = {0};
        char *config = ra_path_join(path, "config.json");
        ra_err err = ra_file_read(config, &json);
        if (err == RA_OK) err = ra_arch_parse(json.data ? json.data : "", config, out);
        ra_buf_free(&json);
        free(config);
        return err;
    }
    ra_modelfile *file;
    RA_TRY(ra_modelfile_open(path, &file));
    ra_err err = ra_arch_of(file, out);
    ra_modelfile_close(file);
    return err;
}

ra_model_sizes ra_model_sizes_of(const ra_model *m)
{
    const ra_backend *b = m->b;
    bool narrower = b->a != b->r;
    ra_model_sizes s = {.vectors = (size_t)m->base.vector_size * b->r_size,
                        .adapter_masters = (size_t)m->adapter.size * b->r_size,
                        .rope = 2 * (size_t)m->rope_positions * (size_t)(m->arch.head_dim / 2) * b->r_size};
    if (m->training == RA_TRAIN_FULL || !narrower) s.masters = (size_t)m->base.size * b->r_size;
    if (narrower) s.weights = (size_t)m->base.size * b->a_size;
    if (narrower) s.adapter = (size_t)m->adapter.size * b->a_size;
    return s;
}

ra_err ra_model_open(ra_backend *b, const ra_modelfile *file, ra_training training, const ra_lora_config *lora, int32_t positions,
                     const ra_part *part, ra_model **out)
{
    ra_model *m = ra_calloc(1, sizeof *m);
    m->b = b;
    m->training = training;
    if (part) m->part = *part;
    m->rope_positions = positions;
    if (lora) m->lora = *lora;
    ra_err err = ra_arch_of(file, &m->arch);
    if (err != RA_OK) {
        ra_free(m);
        return err;
    }
    ra_model_lay_out(m);
    ra_model_sizes sizes = ra_model_sizes_of(m);
    if (sizes.masters) m->w_r = b->ops->alloc(b, sizes.masters);
    m->w_a = sizes.weights ? b->ops->alloc(b, sizes.weights) : m->w_r;
    m->vectors = b->ops->alloc(b, sizes.vectors);
    if (sizes.adapter_masters) m->adapter_r = b->ops->alloc(b, sizes.adapter_masters);
    m->adapter_a = sizes.adapter ? b->ops->alloc(b, sizes.adapter) : m->adapter_r;
    char *piece = ra_alloc(PIECE, sizeof(double));
    for (int i = 0; i < m->base.count && err == RA_OK; i++) err = load_tensor(m, file, &m->base.param[i], piece);
    ra_free(piece);
    if (err != RA_OK) {
        ra_model_close(m);
        return err;
    }
    ra_modelfile_release_pages(file);
    m->embedding_scale = embedding_scale(m);
    make_rope_tables(m);
    ra_model_refresh(m);
    *out = m;
    return RA_OK;
}

enum { PRODUCTS = 4 };

static void layer_products(ra_layer *y, ra_linear *list[PRODUCTS])
{
    list[0] = &y->qkv, list[1] = &y->o, list[2] = &y->gate_up, list[3] = &y->down;
}

void ra_model_pack(ra_model *m, int64_t limit)
{
    const struct ra_backend_ops *ops = m->b->ops;
    if (m->training != RA_FROZEN) ra_die("ra_model_pack: the model is being trained; packed weights would not follow");
    for (int32_t i = 0; i < m->layers; i++) {
        ra_linear *list[PRODUCTS];
        layer_products(&m->layer[i], list);
        if (list[0]->packed) return;
        int64_t bytes = 0;
        for (int k = 0; k < PRODUCTS; k++) bytes += (int64_t)ops->packed_bytes(m->b, list[k]->out, list[k]->in);
        limit -= bytes;
        if (bytes == 0 || limit < 0) return;
        for (int k = 0; k < PRODUCTS; k++) {
            list[k]->packed = ops->pack_weights(m->b, list[k]->out, list[k]->in,
                                                (const char *)m->w_a + (size_t)list[k]->weight * m->b->a_size, list[k]->in);
        }
    }
}

static void release_packed(ra_model *m)
{
    for (int32_t i = 0; m->layer && i < m->layers; i++) {
        ra_linear *list[PRODUCTS];
        layer_products(&m->layer[i], list);
        for (int k = 0; k < PRODUCTS; k++) {
            if (list[k]->packed) m->b->ops->release_packed(m->b, list[k]->packed);
        }
    }
}

void ra_model_close(ra_model *m)
{
    if (!m) return;
    ra_backend *b = m->b;
    release_packed(m);
    void *memory[] = {m->w_r,
                      m->w_a == m->w_r ? NULL : m->w_a,
                      m->vectors,
                      m->adapter_r,
                      m->adapter_a == m->adapter_r ? NULL : m->adapter_a,
                      m->cosine,
                      m->sine};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++) {
        if (memory[i]) b->ops->release(b, memory[i]);
    }
    ra_layout_free(&m->base);
    ra_layout_free(&m->adapter);
    ra_arch_free(&m->arch);
    ra_free(m->layer);
    ra_free(m);
}

const ra_layout *ra_model_trainable(const ra_model *m)
{
    return m->training == RA_TRAIN_ADAPTER ? &m->adapter : &m->base;
}

void *ra_model_masters(ra_model *m)
{
    return m->training == RA_TRAIN_ADAPTER ? m->adapter_r : m->w_r;
}

void ra_model_init_adapter(ra_model *m, uint64_t seed)
{
    ra_backend *b = m->b;
    b->ops->zero(b, m->adapter_r, (size_t)m->adapter.size * b->r_size);
    for (int i = 0; i < m->adapter.count; i++) {
        const ra_param *p = &m->adapter.param[i];
        if (!strstr(p->name, ".lora_A.")) continue;
        ra_rng rng = ra_rng_make(seed, (uint64_t)RA_STREAM_LORA << 32 | (uint64_t)p->number);
        double bound = 1.0 / sqrt((double)p->shape[1]), *values = ra_alloc((size_t)p->count, sizeof *values);
        for (int64_t j = 0; j < p->count; j++) values[j] = (2.0 * ra_rng_uniform(&rng) - 1.0) * bound;
        upload_r(b, m->adapter_r, p->offset, values, p->count);
        ra_free(values);
    }
    ra_model_refresh(m);
}
