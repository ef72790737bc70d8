/* PEFT LoRA adapters: base_model.model.<module>.lora_A.weight (r, in) and .lora_B.weight (out, r); W <- W + (lora_alpha / r) B A. */
#include "convert.h"

#include <realign/file.h>
#include <realign/mem.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char *base; /* name of the tensor it changes */
    int64_t rank, rows, columns;
    double scale, *a, *b; /* a (rank, columns), b (rows, rank) */
} lora_pair;

struct ra_lora_merge {
    char *dir;
    lora_pair *pair;
    int count;
};

void ra_lora_close(ra_lora_merge *lora)
{
    if (!lora) return;
    for (int i = 0; i < lora->count; i++) {
        free(lora->pair[i].base);
        ra_free(lora->pair[i].a);
        ra_free(lora->pair[i].b);
    }
    free(lora->pair);
    free(lora->dir);
    ra_free(lora);
}

static bool empty(const json_t *value)
{
    return !value || json_is_null(value) || json_is_false(value) || (json_is_object(value) && json_object_size(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0);
}

/* Features of PEFT that change what the weights mean, or name further weights. */
static ra_err check_config(const char *path, const json_t *config)
{
    static const char *const refused[] = {"alpha_pattern",           "use_dora",   "fan_in_fan_out",
                                          "modules_to_save",         "use_qalora", "layer_replication",
                                          "trainable_token_indices", "lora_bias",  "target_parameters"};
    const char *type = json_string_value(json_object_get(config, "peft_type")),
               *bias = json_string_value(json_object_get(config, "bias"));
    if (!type || strcmp(type, "LORA") != 0) {
        return ra_fail(RA_ERR_UNSUPPORTED, "%s: peft_type is \"%s\"; only LORA adapters can be merged", path, type ? type : "");
    }
    if (bias && strcmp(bias, "none") != 0)
        return ra_fail(RA_ERR_UNSUPPORTED, "%s: bias is \"%s\"; only \"none\" can be merged", path, bias);
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        if (!empty(json_object_get(config, refused[i]))) {
            return ra_fail(RA_ERR_UNSUPPORTED, "%s: %s is set; such adapters cannot be merged", path, refused[i]);
        }
    }
    if (!json_is_number(json_object_get(config, "lora_alpha"))) return ra_fail(RA_ERR_FORMAT, "%s: lora_alpha is missing", path);
    return RA_OK;
}

/* "base_model.model.X.lora_A.weight" -> "X.weight"; NULL for other names. */
static char *base_of(const char *name, const char *end)
{
    static const char prefix[] = "base_model.model.";
    size_t n = strlen(name), head = sizeof prefix - 1, tail = strlen(end);
    if (n <= head + tail || strncmp(name, prefix, head) != 0 || strcmp(name + n - tail, end) != 0) return NULL;
    return ra_format("%.*s.weight", (int)(n - head - tail), name + head);
}

static double *read_all(const ra_modelfile *file, const ra_tensor_info *t, ra_err *err)
{
    double *values = ra_alloc((size_t)t->elements, sizeof *values);
    *err = ra_modelfile_read(file, t->name, 0, t->elements, RA_DTYPE_F64, values);
    return values;
}

static ra_err read_pair(ra_lora_merge *lora, const ra_modelfile *file, const ra_tensor_info *a, char *base, double alpha,
                        bool rank_root)
{
    lora->pair = ra_realloc(lora->pair, (size_t)lora->count + 1, sizeof *lora->pair);
    lora_pair *p = &lora->pair[lora->count++];
    *p = (lora_pair){.base = base};
    char *b_name = ra_format("%.*slora_B.weight", (int)(strlen(a->name) - strlen("lora_A.weight")), a->name);
    int found = ra_modelfile_find(file, b_name);
    free(b_name);
    if (found < 0) return ra_fail(RA_ERR_FORMAT, "%s: tensor %s has no lora_B beside it", lora->dir, a->name);
    const ra_tensor_info *b = ra_modelfile_info(file, found);
    if (a->ndim != 2 || b->ndim != 2 || a->shape[0] != b->shape[1] || a->shape[0] < 1) {
        return ra_fail(RA_ERR_FORMAT, "%s: tensor %s: lora_A must be (r, in) and lora_B (out, r)", lora->dir, a->name);
    }
    p->rank = a->shape[0];
    p->columns = a->shape[1];
    p->rows = b->shape[0];
    p->scale = alpha / (rank_root ? sqrt((double)p->rank) : (double)p->rank);
    ra_err err;
    p->a = read_all(file, a, &err);
    if (err == RA_OK) p->b = read_all(file, b, &err);
    return err;
}

static ra_err read_pairs(ra_lora_merge *lora, const ra_modelfile *file, double alpha, bool rank_root)
{
    for (int i = 0; i < ra_modelfile_count(file); i++) {
        const ra_tensor_info *t = ra_modelfile_info(file, i);
        char *a = base_of(t->name, ".lora_A.weight"), *b = base_of(t->name, ".lora_B.weight");
        bool is_b = b != NULL;
        free(b);
        if (a) {
            RA_TRY(read_pair(lora, file, t, a, alpha, rank_root)); /* takes `a` */
        } else if (!is_b) {
            return ra_fail(RA_ERR_UNSUPPORTED,
                           "%s: tensor %s: mergeable are base_model.model.<module>.lora_A.weight and .lora_B.weight", lora->dir,
                           t->name);
        }
    }
    if (2 * lora->count != ra_modelfile_count(file))
        return ra_fail(RA_ERR_FORMAT, "%s: a lora_B has no lora_A beside it", lora->dir);
    return RA_OK;
}

ra_err ra_lora_open(const char *dir, ra_lora_merge **out)
{
    char *path = ra_path_join(dir, "adapter_config.json"), *weights = ra_path_join(dir, "adapter_model.safetensors");
    json_error_t where;
    json_t *config = json_load_file(path, JSON_REJECT_DUPLICATES, &where);
    ra_lora_merge *lora = ra_calloc(1, sizeof *lora);
    lora->dir = ra_strdup(dir);
    ra_modelfile *file = NULL;
    ra_err err = config ? check_config(path, config) : ra_fail(RA_ERR_FORMAT, "%s:%d: %s", path, where.line, where.text);
    if (err == RA_OK) err = ra_modelfile_open(weights, &file);
    if (err == RA_OK) {
        err = read_pairs(lora, file, json_number_value(json_object_get(config, "lora_alpha")),
                         json_is_true(json_object_get(config, "use_rslora")));
    }
    ra_modelfile_close(file);
    json_decref(config);
    free(path);
    free(weights);
    if (err == RA_OK) {
        *out = lora;
    } else {
        ra_lora_close(lora);
    }
    return err;
}

int ra_lora_find(const ra_lora_merge *lora, const char *base_name)
{
    for (int i = 0; i < lora->count; i++) {
        if (strcmp(lora->pair[i].base, base_name) == 0) return i;
    }
    return -1;
}

ra_err ra_lora_check(const ra_lora_merge *lora, const ra_convert_source *source)
{
    for (int i = 0; i < lora->count; i++) {
        const lora_pair *p = &lora->pair[i];
        const ra_hf_tensor *base = NULL;
        for (int k = 0; k < source->count && !base; k++) {
            if (strcmp(source->tensor[k].name, p->base) == 0) base = &source->tensor[k];
        }
        if (!base) return ra_fail(RA_ERR_DATA, "%s: the model has no tensor %s for this adapter", lora->dir, p->base);
        if (base->ndim != 2 || base->shape[0] != p->rows || base->shape[1] != p->columns) {
            return ra_fail(RA_ERR_DATA, "%s: tensor %s: B A is (%lld, %lld), the model's is (%lld, %lld)", lora->dir, p->base,
                           (long long)p->rows, (long long)p->columns, (long long)base->shape[0], (long long)base->shape[1]);
        }
    }
    return RA_OK;
}

void ra_lora_add_rows(const ra_lora_merge *lora, int pair, int64_t first, int64_t count, double *w)
{
    const lora_pair *p = &lora->pair[pair];
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < count; row++) {
        double *out = w + row * p->columns;
        for (int64_t k = 0; k < p->rank; k++) {
            double factor = p->scale * p->b[(first + row) * p->rank + k];
            const double *a = p->a + k * p->columns;
            for (int64_t c = 0; c < p->columns; c++) out[c] += factor * a[c];
        }
    }
}
