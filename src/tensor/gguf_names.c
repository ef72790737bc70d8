/* GGUF's tensor names and layouts to Hugging Face's, for the families of this program. */
#include "stored.h"

#include <realign/mem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LLAMA = 1, QWEN2 = 2, GEMMA2 = 4, ALL = 7 };

static const struct {
    const char *gguf, *hugging_face; /* without ".weight" and ".bias"; of a layer: what follows "blk.N." and "model.layers.N." */
    int families;
} whole_names[] =
    {
        {"token_embd", "model.embed_tokens", ALL},
        {"output_norm", "model.norm", ALL},
        {"output", "lm_head", ALL},
},
  layer_names[] = {
      {"attn_norm", "input_layernorm", ALL},
      {"attn_q", "self_attn.q_proj", ALL},
      {"attn_k", "self_attn.k_proj", ALL},
      {"attn_v", "self_attn.v_proj", ALL},
      {"attn_output", "self_attn.o_proj", ALL},
      {"ffn_gate", "mlp.gate_proj", ALL},
      {"ffn_up", "mlp.up_proj", ALL},
      {"ffn_down", "mlp.down_proj", ALL},
      {"ffn_norm", "post_attention_layernorm", LLAMA | QWEN2},
      {"post_attention_norm", "post_attention_layernorm", GEMMA2},
      {"ffn_norm", "pre_feedforward_layernorm", GEMMA2},
      {"post_ffw_norm", "post_feedforward_layernorm", GEMMA2},
};
enum { WHOLE = sizeof whole_names / sizeof whole_names[0], LAYER = sizeof layer_names / sizeof layer_names[0] };

/* Returns NULL where the family has no such tensor. Free with free. */
static char *translate(const char *name, int family)
{
    const char *suffix = strrchr(name, '.');
    if (!suffix || (strcmp(suffix, ".weight") != 0 && strcmp(suffix, ".bias") != 0)) return NULL;
    size_t stem = (size_t)(suffix - name);
    for (int i = 0; i < WHOLE; i++) {
        if (strlen(whole_names[i].gguf) == stem && strncmp(name, whole_names[i].gguf, stem) == 0) {
            return ra_format("%s%s", whole_names[i].hugging_face, suffix);
        }
    }
    int layer, used = 0;
    if (sscanf(name, "blk.%9d.%n", &layer, &used) != 1 || used == 0 || layer < 0) return NULL;
    char *canonical = ra_format("blk.%d.", layer); /* "blk.01." is no name */
    bool plain = strncmp(name, canonical, strlen(canonical)) == 0 && (size_t)used == strlen(canonical);
    free(canonical);
    if (!plain || stem < (size_t)used) return NULL;
    for (int i = 0; i < LAYER; i++) {
        if ((layer_names[i].families & family) && strlen(layer_names[i].gguf) == stem - (size_t)used &&
            strncmp(name + used, layer_names[i].gguf, stem - (size_t)used) == 0) {
            return ra_format("model.layers.%d.%s%s", layer, layer_names[i].hugging_face, suffix);
        }
    }
    return NULL;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* Llama's q and k rows are stored interleaved for rope's pairs (2i, 2i+1); Hugging Face pairs (i, i + half). */
static ra_err mark_interleaved(const ra_gguf *g, ra_stored *t, int64_t heads)
{
    if (heads < 1 || heads > 1 << 20 || t->info.ndim < 1 || t->info.shape[0] % (2 * heads) != 0) {
        char text[96];
        ra_shape_text(&t->info, text);
        return ra_fail(RA_ERR_FORMAT, "%s: tensor %s %s: its rows do not divide into %lld heads of an even size", ra_gguf_path(g),
                       t->name_in_file, text, (long long)heads);
    }
    t->rope_heads = (int)heads;
    return RA_OK;
}

/* Reads the factors of rope_freqs.weight and takes the tensor off the list. */
static void take_rope_factors(ra_stored_list *tensors, int index, float **factors, int64_t *n)
{
    ra_stored *t = &tensors->item[index];
    *n = t->info.elements;
    *factors = ra_realloc(NULL, (size_t)*n, sizeof **factors);
    ra_encoding_decode(t->encoding, t->data, 0, *n, RA_DTYPE_F32, *factors);
    free((char *)(uintptr_t)t->info.name);
    free((char *)(uintptr_t)t->name_in_file);
    memmove(t, t + 1, (size_t)(tensors->count - index - 1) * sizeof *t);
    tensors->count--;
}

ra_err ra_gguf_translate(const ra_gguf *g, ra_stored_list *tensors, float **rope_factors, int64_t *n_rope_factors)
{
    ra_str arch = {"", 0};
    ra_gguf_text(g, "general.architecture", &arch);
    int family = 0;
    if (arch.length == 5 && memcmp(arch.data, "llama", 5) == 0) family = LLAMA;
    if (arch.length == 5 && memcmp(arch.data, "qwen2", 5) == 0) family = QWEN2;
    if (arch.length == 6 && memcmp(arch.data, "gemma2", 6) == 0) family = GEMMA2;
    if (!family) {
        return ra_fail(RA_ERR_UNSUPPORTED, "%s: general.architecture is \"%.*s\"; known are llama, qwen2 and gemma2",
                       ra_gguf_path(g), (int)(arch.length < 100 ? arch.length : 100), arch.data);
    }
    int64_t heads = 0, kv_heads, pieces;
    if (ra_gguf_i64(g, "split.count", &pieces) && pieces > 1) {
        return ra_fail(RA_ERR_UNSUPPORTED,
                       "%s: one of %lld pieces of a split GGUF (split.count); join them with llama-gguf-split --merge",
                       ra_gguf_path(g), (long long)pieces);
    }
    if (family == LLAMA && tensors->count && !ra_gguf_i64(g, "llama.attention.head_count", &heads)) {
        return ra_fail(RA_ERR_FORMAT, "%s: metadata llama.attention.head_count is missing or not one integer", ra_gguf_path(g));
    }
    if (!ra_gguf_i64(g, "llama.attention.head_count_kv", &kv_heads)) kv_heads = heads;
    for (int i = 0; i < tensors->count; i++) {
        ra_stored *t = &tensors->item[i];
        if (strcmp(t->info.name, "rope_freqs.weight") == 0 && t->encoding->plain >= 0 && !*rope_factors) {
            take_rope_factors(tensors, i--, rope_factors, n_rope_factors);
            continue;
        }
        char *name = translate(t->info.name, family);
        if (!name) {
            return ra_fail(RA_ERR_UNSUPPORTED, "%s: tensor %s: the %.*s family has no such tensor", ra_gguf_path(g), t->info.name,
                           (int)arch.length, arch.data);
        }
        free((char *)(uintptr_t)t->info.name);
        t->info.name = name;
        if (family == LLAMA && strstr(name, ".q_proj.")) RA_TRY(mark_interleaved(g, t, heads));
        if (family == LLAMA && strstr(name, ".k_proj.")) RA_TRY(mark_interleaved(g, t, kv_heads));
        if (family == GEMMA2 && ends_with(name, "norm.weight")) t->offset = -1.0f;
    }
    return RA_OK;
}
