/* Families as rows of a table, and the numbers of one model from its config.json. A fourth family should be a row. */
#include <realign/mem.h>
#include <realign/model.h>

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct ra_family {
    const char *model_type;
    bool qkv_bias;         /* unless config.json's attention_bias says so */
    bool post_norms;       /* norms after attention and after the feed-forward network too */
    bool plus_one;         /* gain 1 + w */
    bool scaled_embedding; /* times sqrt(hidden) */
    bool soft_caps;        /* reads attn_logit_softcapping, final_logit_softcapping, query_pre_attn_scalar */
    bool alternate_window; /* even layers slide where config.json has no layer_types */
    bool always_window;    /* sliding_window holds without use_sliding_window */
    bool tied_by_default;
    ra_glu glu;
};

static const ra_family families[] = {
    {.model_type = "llama", .glu = RA_GLU_SILU},
    {.model_type = "qwen2", .qkv_bias = true, .glu = RA_GLU_SILU},
    {.model_type = "gemma2",
     .post_norms = true,
     .plus_one = true,
     .scaled_embedding = true,
     .soft_caps = true,
     .alternate_window = true,
     .always_window = true,
     .tied_by_default = true,
     .glu = RA_GLU_GELU_TANH},
};
enum { FAMILIES = sizeof families / sizeof families[0] };

typedef struct {
    json_t *root;
    const char *path;
    ra_err err;
} reader;

static bool absent(const json_t *value)
{
    return !value || json_is_null(value);
}

static int32_t read_int(reader *r, const char *key, int64_t fallback, int64_t low, int64_t high)
{
    json_t *value = json_object_get(r->root, key);
    if (absent(value) && fallback >= 0) return (int32_t)fallback;
    if (r->err != RA_OK) return 1;
    if (!json_is_integer(value)) {
        r->err = ra_fail(RA_ERR_FORMAT, "%s: \"%s\" %s", r->path, key, absent(value) ? "is missing" : "is not an integer");
        return 1;
    }
    int64_t n = json_integer_value(value);
    if (n < low || n > high) {
        r->err = ra_fail(RA_ERR_FORMAT, "%s: \"%s\" is %lld; accepted: %lld to %lld", r->path, key, (long long)n, (long long)low,
                         (long long)high);
        return 1;
    }
    return (int32_t)n;
}

static double read_real(reader *r, json_t *object, const char *key, double fallback)
{
    json_t *value = json_object_get(object, key);
    if (absent(value) && !isnan(fallback)) return fallback;
    if (!json_is_number(value) || !isfinite(json_number_value(value))) {
        if (r->err == RA_OK)
            r->err =
                ra_fail(RA_ERR_FORMAT, "%s: \"%s\" %s", r->path, key, absent(value) ? "is missing" : "is not a finite number");
        return 1.0;
    }
    return json_number_value(value);
}

static bool read_bool(reader *r, const char *key, bool fallback)
{
    json_t *value = json_object_get(r->root, key);
    if (absent(value)) return fallback;
    if (!json_is_boolean(value) && r->err == RA_OK)
        r->err = ra_fail(RA_ERR_FORMAT, "%s: \"%s\" is not true or false", r->path, key);
    return json_is_true(value);
}

static void read_rope_scaling(reader *r, ra_arch *a)
{
    json_t *scaling = json_object_get(r->root, "rope_scaling");
    if (absent(scaling)) return;
    json_t *type = json_object_get(scaling, "rope_type");
    if (!type) type = json_object_get(scaling, "type");
    const char *name = type ? json_string_value(type) : NULL;
    if (name && strcmp(name, "default") == 0) return;
    if (!name || strcmp(name, "llama3") != 0) {
        if (r->err == RA_OK) {
            r->err = ra_fail(RA_ERR_UNSUPPORTED, "%s: \"rope_scaling\" of type \"%s\"; accepted: llama3, default or null",
                             r->path, name ? name : "?");
        }
        return;
    }
    a->rope.llama3 = true;
    a->rope.factor = read_real(r, scaling, "factor", NAN);
    a->rope.low_frequency = read_real(r, scaling, "low_freq_factor", NAN);
    a->rope.high_frequency = read_real(r, scaling, "high_freq_factor", NAN);
    a->rope.original_positions = read_real(r, scaling, "original_max_position_embeddings", NAN);
    if (r->err == RA_OK &&
        (a->rope.factor <= 0.0 || a->rope.high_frequency <= a->rope.low_frequency || a->rope.low_frequency <= 0.0)) {
        r->err = ra_fail(RA_ERR_FORMAT,
                         "%s: \"rope_scaling\": factors must be positive, and high_freq_factor above low_freq_factor", r->path);
    }
}

static void read_windows(reader *r, const ra_family *family, ra_arch *a)
{
    a->layer_windowed = ra_calloc((size_t)a->layers, 1);
    json_t *types = json_object_get(r->root, "layer_types");
    bool sliding = family->always_window || read_bool(r, "use_sliding_window", false);
    a->window = sliding ? read_int(r, "sliding_window", 0, 1, INT32_MAX) : 0;
    if (a->window == 0) return;
    if (json_is_array(types)) {
        if (json_array_size(types) != (size_t)a->layers) {
            if (r->err == RA_OK)
                r->err = ra_fail(RA_ERR_FORMAT, "%s: \"layer_types\" has %zu entries for %d layers", r->path,
                                 json_array_size(types), a->layers);
            return;
        }
        for (int32_t i = 0; i < a->layers; i++) {
            const char *name = json_string_value(json_array_get(types, (size_t)i));
            a->layer_windowed[i] = name && strcmp(name, "sliding_attention") == 0;
        }
        return;
    }
    int32_t first = family->alternate_window ? 0 : read_int(r, "max_window_layers", a->layers, 0, INT32_MAX);
    for (int32_t i = 0; i < a->layers; i++) a->layer_windowed[i] = family->alternate_window ? i % 2 == 0 : i >= first;
}

static const ra_family *find_family(const char *model_type)
{
    for (int i = 0; model_type && i < FAMILIES; i++) {
        if (strcmp(families[i].model_type, model_type) == 0) return &families[i];
    }
    return NULL;
}

static void check_activation(reader *r, const ra_family *family)
{
    json_t *value = json_object_get(r->root, "hidden_activation");
    if (absent(value)) value = json_object_get(r->root, "hidden_act");
    const char *name = json_string_value(value), *want = family->glu == RA_GLU_SILU ? "silu" : "gelu_pytorch_tanh";
    if (name && strcmp(name, want) != 0 && r->err == RA_OK) {
        r->err = ra_fail(RA_ERR_UNSUPPORTED, "%s: activation \"%s\" in a model of type \"%s\"; accepted: %s", r->path, name,
                         family->model_type, want);
    }
}

ra_err ra_arch_parse(const char *json, const char *path, ra_arch *a)
{
    memset(a, 0, sizeof *a);
    json_error_t where;
    json_t *root = json_loads(json, 0, &where);
    if (!json_is_object(root)) {
        json_decref(root);
        return ra_fail(RA_ERR_FORMAT, "%s:%d: not a JSON object: %s", path, where.line, where.text);
    }
    reader r = {root, path, RA_OK};
    const char *type = json_string_value(json_object_get(root, "model_type"));
    const ra_family *family = find_family(type);
    if (!family) {
        r.err = ra_fail(RA_ERR_UNSUPPORTED, "%s: \"model_type\" is \"%s\"; accepted: llama, qwen2, gemma2", path,
                        type ? type : "(missing)");
        json_decref(root);
        return r.err;
    }
    a->family = family->model_type;
    a->hidden = read_int(&r, "hidden_size", -1, 1, 1 << 20);
    a->layers = read_int(&r, "num_hidden_layers", -1, 1, 4096);
    a->heads = read_int(&r, "num_attention_heads", -1, 1, 4096);
    a->kv_heads = read_int(&r, "num_key_value_heads", a->heads, 1, 4096);
    a->head_dim = read_int(&r, "head_dim", a->heads ? a->hidden / a->heads : 0, 2, 1024);
    a->ffn = read_int(&r, "intermediate_size", -1, 1, 1 << 22);
    a->vocabulary = read_int(&r, "vocab_size", -1, 1, 1 << 24);
    a->max_position = read_int(&r, "max_position_embeddings", 2048, 1, INT32_MAX);
    a->eps = read_real(&r, root, "rms_norm_eps", 1e-6);
    a->rope_theta = read_real(&r, root, "rope_theta", 10000.0);
    a->tied = read_bool(&r, "tie_word_embeddings", family->tied_by_default);
    a->qkv_bias = family->qkv_bias;
    a->post_norms = family->post_norms;
    a->plus_one = family->plus_one;
    a->scaled_embedding = family->scaled_embedding;
    a->glu = family->glu;
    a->query_scale = 1.0 / sqrt((double)a->head_dim);
    if (family->soft_caps) {
        a->attention_softcap = read_real(&r, root, "attn_logit_softcapping", 0.0);
        a->final_softcap = read_real(&r, root, "final_logit_softcapping", 0.0);
        a->query_scale = 1.0 / sqrt(read_real(&r, root, "query_pre_attn_scalar", (double)a->head_dim));
    }
    read_rope_scaling(&r, a);
    read_windows(&r, family, a);
    check_activation(&r, family);
    if (r.err == RA_OK && (read_bool(&r, "attention_bias", false) || read_bool(&r, "mlp_bias", false)) && !family->qkv_bias) {
        r.err = ra_fail(RA_ERR_UNSUPPORTED, "%s: biases in a model of type \"%s\"", path, type);
    }
    if (r.err == RA_OK && a->heads % a->kv_heads != 0) {
        r.err = ra_fail(RA_ERR_FORMAT, "%s: %d attention heads cannot share %d key/value heads", path, a->heads, a->kv_heads);
    }
    if (r.err == RA_OK && a->head_dim % 2 != 0)
        r.err = ra_fail(RA_ERR_FORMAT, "%s: \"head_dim\" is %d; rope needs an even one", path, a->head_dim);
    json_decref(root);
    if (r.err != RA_OK) ra_arch_free(a);
    return r.err;
}

void ra_arch_free(ra_arch *a)
{
    ra_free(a->layer_windowed);
    a->layer_windowed = NULL;
}

int64_t ra_arch_parameters(const ra_arch *a)
{
    int64_t h = a->hidden, q = (int64_t)a->heads * a->head_dim, kv = (int64_t)a->kv_heads * a->head_dim;
    int64_t layer = h * (q + 2 * kv) + q * h + 3 * h * a->ffn + (a->post_norms ? 4 : 2) * h + (a->qkv_bias ? q + 2 * kv : 0);
    return a->layers * layer + h + (a->tied ? 1 : 2) * h * a->vocabulary;
}

void ra_arch_describe(const ra_arch *a, char *text, int n)
{
    snprintf(text, (size_t)n, "%s: %.1f M parameters, %d layers, hidden %d, %d/%d heads of %d, ffn %d, vocabulary %d%s",
             a->family, (double)ra_arch_parameters(a) * 1e-6, a->layers, a->hidden, a->heads, a->kv_heads, a->head_dim, a->ffn,
             a->vocabulary, a->tied ? " (tied)" : "");
}
