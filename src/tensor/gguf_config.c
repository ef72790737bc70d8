/* config.json, as transformers writes it, from a GGUF's metadata. */
#include "stored.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const ra_gguf *g;
    char arch[16];
    json_t *config;
} maker;

static const char *full_key(const maker *m, const char *key, char text[96])
{
    snprintf(text, 96, "%s.%s", m->arch, key);
    return text;
}

/* A size that must be there and lie in [1, 2^31). */
static ra_err need_size(const maker *m, const char *key, int64_t *out)
{
    char text[96];
    if (!ra_gguf_i64(m->g, full_key(m, key, text), out)) {
        return ra_fail(RA_ERR_FORMAT, "%s: metadata %s is missing or not one integer", ra_gguf_path(m->g), text);
    }
    if (*out < 1 || *out > INT32_MAX) {
        return ra_fail(RA_ERR_FORMAT, "%s: metadata %s is %lld, it must be at least 1 and below 2^31", ra_gguf_path(m->g), text,
                       (long long)*out);
    }
    return RA_OK;
}

static int64_t size_or(const maker *m, const char *key, int64_t otherwise)
{
    char text[96];
    int64_t value;
    return ra_gguf_i64(m->g, full_key(m, key, text), &value) ? value : otherwise;
}

static double real_or(const maker *m, const char *key, double otherwise)
{
    char text[96];
    double value;
    return ra_gguf_f64(m->g, full_key(m, key, text), &value) && isfinite(value) ? value : otherwise;
}

static void put_int(const maker *m, const char *key, int64_t value)
{
    json_object_set_new(m->config, key, json_integer(value));
}

static void put_real(const maker *m, const char *key, double value)
{
    json_object_set_new(m->config, key, json_real(value));
}

static void put_bool(const maker *m, const char *key, bool value)
{
    json_object_set_new(m->config, key, json_boolean(value));
}

static void put_token(const maker *m, const char *key, const char *gguf_key)
{
    int64_t id;
    bool given = ra_gguf_i64(m->g, gguf_key, &id) && id >= 0;
    json_object_set_new(m->config, key, given ? json_integer(id) : json_null());
}

typedef struct {
    double factor, low, high, context;
} llama3_scaling;

/* The largest relative difference between the factors and those of Llama 3's rule. */
static double misfit(llama3_scaling s, double theta, int64_t head_dim, const float *factors, int64_t n)
{
    double worst = 0.0;
    for (int64_t i = 0; i < n; i++) {
        double wavelength = 2.0 * M_PI * pow(theta, (double)(2 * i) / (double)head_dim), expected = s.factor;
        if (wavelength < s.context / s.high) {
            expected = 1.0;
        } else if (wavelength <= s.context / s.low) {
            double smooth = (s.context / wavelength - s.low) / (s.high - s.low);
            expected = 1.0 / ((1.0 - smooth) / s.factor + smooth);
        }
        double difference = fabs((double)factors[i] / expected - 1.0);
        if (isnan(difference)) return INFINITY;
        if (difference > worst) worst = difference;
    }
    return worst;
}

/* rope_freqs.weight holds what rope_scaling of type "llama3" computes, one divisor a frequency. The rule's numbers are found again:
 * the usual ones, or from the blended frequencies: 1/f_i = (1-s)/F + s with s linear in 1/wavelength, low = 1, and high = 4 where
 * only one frequency is blended. */
static ra_err llama3_from_factors(const maker *m, double theta, int64_t head_dim, const float *factors, int64_t n, json_t **out)
{
    double largest = 1.0;
    for (int64_t i = 0; i < n; i++) {
        if (!(factors[i] >= 0.99f && factors[i] < 1e6f) || 2 * n != head_dim) {
            return ra_fail(RA_ERR_FORMAT,
                           "%s: tensor rope_freqs.weight: %lld divisors for heads of %lld, value %lld is %g; they must be "
                           "head_dim/2 numbers >= 1",
                           ra_gguf_path(m->g), (long long)n, (long long)head_dim, (long long)i, (double)factors[i]);
        }
        if ((double)factors[i] > largest) largest = factors[i];
    }
    enum { GUESSES = 4 };
    llama3_scaling guess[GUESSES] = {
        {largest, 1.0, 4.0, (double)size_or(m, "rope.scaling.original_context_length", 8192)},
        {largest, 1.0, 4.0, 8192.0},
    };
    int64_t first = 0;
    while (first < n && factors[first] < 1.0001f) first++;
    double x[2], s[2]; /* of two blended frequencies: 1/wavelength and s */
    for (int k = 0; k < 2 && first + k < n; k++) {
        x[k] = pow(theta, -(double)(2 * (first + k)) / (double)head_dim) / (2.0 * M_PI);
        s[k] = (1.0 / (double)factors[first + k] - 1.0 / largest) / (1.0 - 1.0 / largest);
    }
    if (first < n) guess[2] = (llama3_scaling){largest, 1.0, 4.0, round((3.0 * s[0] + 1.0) / x[0])};
    if (first + 1 < n) {
        double slope = (s[0] - s[1]) / (x[0] - x[1]),
               start = s[0] - slope * x[0]; /* slope = C/(high-low), start = -low/(high-low) */
        double high = round(1.0 - 1.0 / start);
        guess[3] = (llama3_scaling){largest, 1.0, high, round(slope * (high - 1.0))};
    }
    for (int i = 0; i < GUESSES; i++) {
        if (!(guess[i].high > 1.0 && guess[i].context >= 1.0 && guess[i].context < 1e9) ||
            misfit(guess[i], theta, head_dim, factors, n) > 1e-4)
            continue;
        *out = json_pack("{s:s, s:f, s:f, s:f, s:I}", "rope_type", "llama3", "factor", guess[i].factor, "low_freq_factor",
                         guess[i].low, "high_freq_factor", guess[i].high, "original_max_position_embeddings",
                         (json_int_t)guess[i].context);
        return RA_OK;
    }
    return ra_fail(RA_ERR_UNSUPPORTED, "%s: tensor rope_freqs.weight: its divisors follow no Llama-3 scaling rule",
                   ra_gguf_path(m->g));
}

static ra_err rope_scaling(const maker *m, double theta, int64_t head_dim, const float *factors, int64_t n, json_t **out)
{
    *out = json_null();
    if (factors) return llama3_from_factors(m, theta, head_dim, factors, n, out);
    char key[96];
    ra_str type = {"none", 4};
    ra_gguf_text(m->g, full_key(m, "rope.scaling.type", key), &type);
    double factor = real_or(m, "rope.scaling.factor", real_or(m, "rope.scale_linear", 1.0));
    if (type.length == 4 && memcmp(type.data, "yarn", 4) == 0) {
        *out = json_pack("{s:s, s:f, s:I}", "rope_type", "yarn", "factor", factor, "original_max_position_embeddings",
                         (json_int_t)size_or(m, "rope.scaling.original_context_length", 0));
    } else if (type.length == 6 && memcmp(type.data, "linear", 6) == 0 && factor != 1.0) {
        *out = json_pack("{s:s, s:f}", "rope_type", "linear", "factor", factor);
    } else if (type.length == 4 && memcmp(type.data, "none", 4) == 0 && factor != 1.0) {
        *out = json_pack("{s:s, s:f}", "rope_type", "linear", "factor", factor);
    } else if (!(type.length == 4 && memcmp(type.data, "none", 4) == 0) &&
               !(type.length == 6 && memcmp(type.data, "linear", 6) == 0)) {
        return ra_fail(RA_ERR_UNSUPPORTED, "%s: metadata %s is \"%.*s\"; known are none, linear and yarn", ra_gguf_path(m->g),
                       key, (int)(type.length < 60 ? type.length : 60), type.data);
    }
    return RA_OK;
}

static const ra_stored *tensor(const ra_stored_list *tensors, const char *name)
{
    for (int i = 0; i < tensors->count; i++) {
        if (strcmp(tensors->item[i].info.name, name) == 0) return &tensors->item[i];
    }
    return NULL;
}

static void gemma2_keys(const maker *m, int64_t layers, int64_t hidden, int64_t heads, int64_t head_dim)
{
    put_real(m, "attn_logit_softcapping", real_or(m, "attn_logit_softcapping", 50.0)); /* the defaults are llama.cpp's */
    put_real(m, "final_logit_softcapping", real_or(m, "final_logit_softcapping", 30.0));
    put_int(m, "sliding_window", size_or(m, "attention.sliding_window", 4096));
    /* GGUF has no key for it: as in llama.cpp, the 27B model (46 layers) scales by hidden/heads, the others by head_dim. */
    double scale = real_or(m, "attention.scale", 0.0), scalar = layers == 46 ? (double)(hidden / heads) : (double)head_dim;
    if (scale > 1e-4) scalar = round(1.0 / (scale * scale));
    put_int(m, "query_pre_attn_scalar", (int64_t)scalar);
    json_object_set_new(m->config, "hidden_activation", json_string("gelu_pytorch_tanh"));
}

static ra_err fill(const maker *m, const ra_stored_list *tensors, const float *factors, int64_t n_factors)
{
    bool llama = strcmp(m->arch, "llama") == 0, gemma2 = strcmp(m->arch, "gemma2") == 0;
    int64_t layers, hidden, inner, heads, context, tokens = 0;
    RA_TRY(need_size(m, "block_count", &layers));
    RA_TRY(need_size(m, "embedding_length", &hidden));
    RA_TRY(need_size(m, "feed_forward_length", &inner));
    RA_TRY(need_size(m, "attention.head_count", &heads));
    RA_TRY(need_size(m, "context_length", &context));
    int64_t kv_heads = size_or(m, "attention.head_count_kv", heads);
    int64_t head_dim = size_or(m, "attention.key_length", gemma2 ? 256 : hidden / heads);
    if (kv_heads < 1 || heads % kv_heads != 0 || head_dim < 1 || head_dim % 2 != 0 || head_dim > 1 << 16) {
        return ra_fail(RA_ERR_FORMAT, "%s: %lld heads, %lld key/value heads and a head size of %lld do not go together",
                       ra_gguf_path(m->g), (long long)heads, (long long)kv_heads, (long long)head_dim);
    }
    const ra_stored *embedding = tensor(tensors, "model.embed_tokens.weight");
    if (!ra_gguf_count(m->g, "tokenizer.ggml.tokens", &tokens)) tokens = size_or(m, "vocab_size", 0);
    if (embedding && embedding->info.ndim == 2) tokens = embedding->info.shape[0]; /* rows beyond the tokens count */
    double theta = real_or(m, "rope.freq_base", 10000.0);

    json_object_set_new(m->config, "architectures",
                        json_pack("[s]", llama    ? "LlamaForCausalLM"
                                         : gemma2 ? "Gemma2ForCausalLM"
                                                  : "Qwen2ForCausalLM"));
    json_object_set_new(m->config, "model_type", json_string(m->arch));
    put_int(m, "vocab_size", tokens);
    put_int(m, "hidden_size", hidden);
    put_int(m, "intermediate_size", inner);
    put_int(m, "num_hidden_layers", layers);
    put_int(m, "num_attention_heads", heads);
    put_int(m, "num_key_value_heads", kv_heads);
    put_int(m, "head_dim", head_dim);
    put_int(m, "max_position_embeddings", context);
    put_real(m, "rms_norm_eps", real_or(m, "attention.layer_norm_rms_epsilon", gemma2 ? 1e-6 : 1e-5));
    put_real(m, "rope_theta", theta);
    json_t *scaling;
    RA_TRY(rope_scaling(m, theta, head_dim, factors, n_factors, &scaling));
    json_object_set_new(m->config, "rope_scaling", scaling);
    json_object_set_new(m->config, "hidden_act", json_string(gemma2 ? "gelu_pytorch_tanh" : "silu"));
    if (strcmp(m->arch, "qwen2") != 0) { /* Qwen2 always has q, k and v biases and no key for it */
        put_bool(m, "attention_bias", tensor(tensors, "model.layers.0.self_attn.q_proj.bias") != NULL);
    } else {
        put_bool(m, "use_sliding_window", false);
    }
    if (llama) put_bool(m, "mlp_bias", tensor(tensors, "model.layers.0.mlp.up_proj.bias") != NULL);
    if (gemma2) gemma2_keys(m, layers, hidden, heads, head_dim);
    put_real(m, "attention_dropout", 0.0);
    put_real(m, "initializer_range", 0.02);
    put_bool(m, "tie_word_embeddings", tensor(tensors, "lm_head.weight") == NULL);
    put_token(m, "bos_token_id", "tokenizer.ggml.bos_token_id");
    put_token(m, "eos_token_id", "tokenizer.ggml.eos_token_id");
    put_token(m, "pad_token_id", "tokenizer.ggml.padding_token_id");
    put_bool(m, "use_cache", true);
    json_object_set_new(m->config, "torch_dtype", json_string("float32"));
    return RA_OK;
}

ra_err ra_gguf_config(const ra_gguf *g, const ra_stored_list *tensors, const float *rope_factors, int64_t n_rope_factors,
                      char **json)
{
    maker m = {.g = g, .config = json_object()};
    ra_str arch = {"", 0};
    ra_gguf_text(g, "general.architecture", &arch);
    snprintf(m.arch, sizeof m.arch, "%.*s", (int)(arch.length < 15 ? arch.length : 15), arch.data);
    ra_err err = fill(&m, tensors, rope_factors, n_rope_factors);
    if (err == RA_OK) *json = json_dumps(m.config, JSON_INDENT(2));
    json_decref(m.config);
    return err;
}
