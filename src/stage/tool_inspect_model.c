/* `realign inspect` of a model: architecture, parameters, tokenizer, types, tensors by kind. */
#include "tool_inspect.h"

#include <realign/mem.h>
#include <realign/modelfile.h>
#include <realign/tools.h>

#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Tensors that differ in their layer's number only. */
typedef struct {
    char *kind; /* "model.layers.*.mlp.up_proj.weight" */
    const ra_tensor_info *first;
    int count;
    bool same_shape, same_type;
    int64_t elements;
} group;

static char *kind_of(const char *name)
{
    ra_buf kind = {0};
    ra_buf_adds(&kind, "");
    for (const char *p = name; *p;) {
        bool at_part = p == name || p[-1] == '.';
        size_t digits = strspn(p, "0123456789");
        if (at_part && digits && (p[digits] == '.' || !p[digits])) {
            ra_buf_adds(&kind, "*");
            p += digits;
        } else {
            ra_buf_add(&kind, p++, 1);
        }
    }
    return kind.data;
}

static bool equal_shape(const ra_tensor_info *a, const ra_tensor_info *b)
{
    return a->ndim == b->ndim && memcmp(a->shape, b->shape, sizeof a->shape[0] * (size_t)a->ndim) == 0;
}

static int collect(const ra_modelfile *file, group **groups)
{
    int n = 0;
    for (int i = 0; i < ra_modelfile_count(file); i++) {
        const ra_tensor_info *t = ra_modelfile_info(file, i);
        char *kind = kind_of(t->name);
        int g = 0;
        while (g < n && strcmp((*groups)[g].kind, kind) != 0) g++;
        if (g == n) {
            *groups = ra_realloc(*groups, (size_t)++n, sizeof **groups);
            (*groups)[g] = (group){.kind = kind, .first = t, .same_shape = true, .same_type = true};
        } else {
            free(kind);
        }
        group *found = &(*groups)[g];
        found->count++;
        found->elements += t->elements;
        found->same_shape = found->same_shape && equal_shape(t, found->first);
        found->same_type = found->same_type && strcmp(t->stored, found->first->stored) == 0;
    }
    return n;
}

static void print_shape(const group *g)
{
    char text[96];
    int n = snprintf(text, sizeof text, "(");
    for (int d = 0; d < g->first->ndim; d++) {
        n += snprintf(text + n, sizeof text - (size_t)n, "%s%lld", d ? ", " : "", (long long)g->first->shape[d]);
    }
    snprintf(text + n, sizeof text - (size_t)n, ")");
    printf("%-22s", g->same_shape ? text : "several shapes");
}

static void print_config(const ra_modelfile *file)
{
    static const char *const keys[] = {"model_type",
                                       "architectures",
                                       "hidden_size",
                                       "intermediate_size",
                                       "num_hidden_layers",
                                       "num_attention_heads",
                                       "num_key_value_heads",
                                       "head_dim",
                                       "vocab_size",
                                       "max_position_embeddings",
                                       "rope_theta",
                                       "rope_scaling",
                                       "rms_norm_eps",
                                       "tie_word_embeddings",
                                       "attn_logit_softcapping",
                                       "final_logit_softcapping",
                                       "sliding_window",
                                       "bos_token_id",
                                       "eos_token_id"};
    char *text;
    if (ra_modelfile_config_json(file, &text) != RA_OK) {
        printf("configuration: none (%s)\n", ra_error_message());
        return;
    }
    json_t *config = json_loads(text, 0, NULL);
    free(text);
    puts("configuration:");
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const json_t *value = json_object_get(config, keys[i]);
        char *shown = value && !json_is_null(value) ? json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(8)) : NULL;
        if (shown) printf("  %-26s %s\n", keys[i], shown);
        free(shown);
    }
    json_decref(config);
}

static void print_types(const ra_modelfile *file)
{
    const char *name[32];
    int64_t elements[32], tensors[32];
    int n = 0;
    for (int i = 0; i < ra_modelfile_count(file); i++) {
        const ra_tensor_info *t = ra_modelfile_info(file, i);
        int k = 0;
        while (k < n && strcmp(name[k], t->stored) != 0) k++;
        if (k == n) { /* the readers know fewer types than fit here */
            name[n] = t->stored;
            elements[n] = tensors[n] = 0;
            n++;
        }
        elements[k] += t->elements;
        tensors[k]++;
    }
    printf("types:");
    for (int k = 0; k < n; k++) {
        printf("%s %s: %lld tensors, %lld elements", k ? ";" : "", name[k], (long long)tensors[k], (long long)elements[k]);
    }
    puts("");
}

static void print_gguf(const ra_gguf *g)
{
    static const char *const keys[] = {"general.name", "general.architecture", "general.license", "tokenizer.ggml.model",
                                       "tokenizer.ggml.pre"};
    puts("GGUF metadata:");
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        ra_str value;
        if (!ra_gguf_text(g, keys[i], &value)) continue;
        printf("  %-26s ", keys[i]);
        for (size_t k = 0; k < value.length && k < 200; k++) putchar(iscntrl((unsigned char)value.data[k]) ? ' ' : value.data[k]);
        puts("");
    }
    int64_t tokens;
    if (ra_gguf_count(g, "tokenizer.ggml.tokens", &tokens)) printf("  %-26s %lld\n", "tokens", (long long)tokens);
}

ra_err ra_inspect_model(const char *path)
{
    ra_modelfile *file;
    RA_TRY(ra_modelfile_open(path, &file));
    group *groups = NULL;
    int n = collect(file, &groups);
    int64_t elements = 0;
    for (int i = 0; i < n; i++) elements += groups[i].elements;
    printf("%s: %s, %d tensors, %lld parameters (%.3f million), %.1f MiB\n", path,
           ra_modelfile_gguf(file) ? "GGUF" : "safetensors", ra_modelfile_count(file), (long long)elements,
           1e-6 * (double)elements, (double)ra_modelfile_bytes(file) / (1 << 20));
    if (ra_modelfile_gguf(file)) print_gguf(ra_modelfile_gguf(file));
    print_config(file);
    ra_inspect_text(path, file);
    print_types(file);
    puts("tensors:");
    for (int i = 0; i < n; i++) {
        printf("  %4d x  ", groups[i].count);
        print_shape(&groups[i]);
        printf(" %-8s %s\n", groups[i].same_type ? groups[i].first->stored : "mixed", groups[i].kind);
        free(groups[i].kind);
    }
    free(groups);
    ra_modelfile_close(file);
    return RA_OK;
}
