/* The tensors of one or more mapped files, whatever the container: what the two readers fill and ra_modelfile hands out. */
#ifndef REALIGN_TENSOR_STORED_H
#define REALIGN_TENSOR_STORED_H
#include "encoding.h"
#include <realign/error.h>
#include <realign/file.h>
#include <realign/modelfile.h>
#include <stdbool.h>

typedef struct {
    ra_tensor_info info;      /* info.name is owned by the list */
    const char *name_in_file; /* as the file spells it, for messages; owned by the list */
    const ra_encoding *encoding;
    const uint8_t *data; /* into the map; no alignment promised */
    uint64_t bytes;
    int rope_heads; /* > 0: within each of so many heads, rows 2i and 2i+1 are rows i and i + half of Hugging Face's order */
    float offset;   /* added to every value: -1 where a file stores 1 + w */
} ra_stored;

typedef struct {
    ra_stored *item;
    int count, capacity;
} ra_stored_list;

/* A zeroed new item; `name` is copied into info.name and name_in_file. */
ra_stored *ra_stored_add(ra_stored_list *list, const char *name, size_t length);
/* Moves an item with its names; `from` is left without names. */
void ra_stored_move(ra_stored_list *to, ra_stored *from);
void ra_stored_free(ra_stored_list *list);
/* Fills ndim, shape, elements and bytes from a row-major shape; false where they overflow, rows do not fill whole blocks or a size is negative. */
bool ra_stored_shape(ra_stored *t, const ra_encoding *encoding, int ndim, const int64_t *shape);
/* Names must differ and bytes must not overlap; with `packed`, they must also fill [0, size) without holes. `base` is where offsets count from.
 * Errors name `path` and the tensors. */
ra_err ra_stored_check(const ra_stored_list *list, const char *path, const uint8_t *base, uint64_t size, bool packed);
/* (4, 3, 2) as text. */
void ra_shape_text(const ra_tensor_info *info, char text[96]);

/* As ra_modelfile_open, from a file's bytes in memory, which stay the caller's. In the heap, a sanitizer sees what passes their end. */
ra_err ra_modelfile_open_bytes(const char *path, const ra_map *bytes, ra_modelfile **out);
/* The tensors of a mapped safetensors file, into an empty list; what a failure leaves there is freed like the rest. */
ra_err ra_safetensors_parse(const char *path, const ra_map *map, ra_stored_list *out);
/* Parses a mapped GGUF file: metadata, and its tensors under their own names, into an empty list. */
ra_err ra_gguf_parse(const char *path, const ra_map *map, ra_gguf **gguf, ra_stored_list *out);
void ra_gguf_free(ra_gguf *g);
const char *ra_gguf_path(const ra_gguf *g);
/* Hugging Face names and layout for the known families. Rope factors leave the list: `rope_factors` (n) is NULL where there are none, else free(). */
ra_err ra_gguf_translate(const ra_gguf *g, ra_stored_list *tensors, float **rope_factors, int64_t *n_rope_factors);
/* config.json from the metadata and the translated tensors. */
ra_err ra_gguf_config(const ra_gguf *g, const ra_stored_list *tensors, const float *rope_factors, int64_t n_rope_factors,
                      char **json);

#endif
