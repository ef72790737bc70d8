/* The parts of `realign convert`: where tensors come from (a model or random numbers), a LoRA adapter on top of them. */
#ifndef REALIGN_STAGE_CONVERT_H
#define REALIGN_STAGE_CONVERT_H
#include <realign/dtype.h>
#include <realign/error.h>
#include <realign/hfdir.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct ra_lora_merge ra_lora_merge;

typedef struct {
    ra_hf_tensor *tensor; /* in the order of writing */
    double *constant;     /* of each tensor: random source, every value of it; NaN: drawn */
    int count;
    ra_modelfile *model;    /* NULL: random values */
    ra_lora_merge *adapter; /* or NULL */
    uint64_t seed;
    double deviation; /* of random weights */
} ra_convert_source;

/* Tensors of a model. `keep`: stored types stay (quantised ones become F32); otherwise all become `dtype`. */
ra_err ra_convert_from_model(const char *path, bool keep, ra_dtype dtype, ra_convert_source *out);
/* Tensors of the shapes a config.json asks for: normal(0, initializer_range), norms 1 (Gemma's 0). Each value depends on seed, tensor and
 * element alone. `path` is for messages. */
ra_err ra_convert_from_config(const char *path, const json_t *config, ra_dtype dtype, uint64_t seed, ra_convert_source *out);
/* Lays a PEFT LoRA adapter over the source: W + scale B A. Every tensor of the adapter must find its place. */
ra_err ra_convert_add_adapter(ra_convert_source *source, const char *dir);
void ra_convert_source_free(ra_convert_source *source);
/* An ra_hf_read: elements of tensor `index` in its dtype; `source` is an ra_convert_source. */
ra_err ra_convert_read(const void *source, int index, int64_t first, int64_t count, void *out);

ra_err ra_lora_open(const char *dir, ra_lora_merge **out);
void ra_lora_close(ra_lora_merge *lora);
/* The number of the pair that changes a base tensor, -1: none. */
int ra_lora_find(const ra_lora_merge *lora, const char *base_name);
/* Fails naming the first pair without a base tensor of its shape. */
ra_err ra_lora_check(const ra_lora_merge *lora, const ra_convert_source *source);
/* rows [first, first + count) of W (count, columns) += scale B A, accumulated in double. */
void ra_lora_add_rows(const ra_lora_merge *lora, int pair, int64_t first, int64_t count, double *w);

#endif
