/* Tensors of a model on disk, whatever holds them: a Hugging Face directory (one safetensors file, or shards by an index) or a GGUF file.
 * Names are always Hugging Face's logical names ("model.layers.0.self_attn.q_proj.weight"); the GGUF reader translates names
 * and undoes its row permutation of q and k (Llama family). Files are memory-mapped; only what is read is touched.
 * Every malformed file is an error that names the file and, where there is one, the tensor. Not collective throughout. */
#ifndef REALIGN_MODELFILE_H
#define REALIGN_MODELFILE_H
#include <realign/dtype.h>
#include <realign/error.h>
#include <realign/hash.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct ra_modelfile ra_modelfile;
typedef struct ra_gguf ra_gguf;

typedef struct {
    const char *name;   /* logical name; owned by the file */
    const char *stored; /* stored type: "F32", "BF16", "Q4_1" ... */
    int ndim;
    int64_t shape[4]; /* row-major, outermost first */
    int64_t elements;
} ra_tensor_info;

/* `path`: a directory with config.json and safetensors, a .safetensors file, or a .gguf file. */
ra_err ra_modelfile_open(const char *path, ra_modelfile **out);
void ra_modelfile_close(ra_modelfile *file);
/* After loading: the mapped pages count as this process's memory until they are given back. */
void ra_modelfile_release_pages(const ra_modelfile *file);
const char *ra_modelfile_path(const ra_modelfile *file);
int64_t ra_modelfile_bytes(const ra_modelfile *file); /* of its files, together */
/* Of its files' contents and its configuration, wherever they lie: identity for caches. Reads everything once. */
ra_err ra_modelfile_hash(const ra_modelfile *file, ra_hash *out);
int ra_modelfile_count(const ra_modelfile *file);
const ra_tensor_info *ra_modelfile_info(const ra_modelfile *file, int index);
/* -1 where there is none. */
int ra_modelfile_find(const ra_modelfile *file, const char *name);
/* Dequantises or converts elements [first, first + count) of the row-major tensor into `out` of type `to`. Multi-threaded. */
ra_err ra_modelfile_read(const ra_modelfile *file, const char *name, int64_t first, int64_t count, ra_dtype to, void *out);
/* config.json as jansson text, made from the metadata where the file is a GGUF. Free with free(). */
ra_err ra_modelfile_config_json(const ra_modelfile *file, char **json);
/* The GGUF behind it, or NULL. Owned by the file. */
const ra_gguf *ra_modelfile_gguf(const ra_modelfile *file);

/* GGUF metadata, for the tokenizer. Return false where the key is missing or has another type. Strings are not NUL-terminated. */
typedef struct {
    const char *data;
    size_t length;
} ra_str;
bool ra_gguf_text(const ra_gguf *g, const char *key, ra_str *out);
bool ra_gguf_i64(const ra_gguf *g, const char *key, int64_t *out); /* any integer type, or bool */
bool ra_gguf_f64(const ra_gguf *g, const char *key, double *out);
bool ra_gguf_count(const ra_gguf *g, const char *key, int64_t *n); /* length of an array */
/* All strings of an array of strings; caller frees *out with free(). */
bool ra_gguf_text_array(const ra_gguf *g, const char *key, ra_str **out, int64_t *n);
bool ra_gguf_i64_array(const ra_gguf *g, const char *key, int64_t **out, int64_t *n);
bool ra_gguf_f64_array(const ra_gguf *g, const char *key, double **out, int64_t *n);

/* Writes a safetensors file tensor by tensor, so that a model larger than memory can be written. Order of ra_stwriter_add = order in the file.
 * `path` appears only at the end: everything goes to path.part, is flushed, re-opened and checked, then renamed. */
typedef struct ra_stwriter ra_stwriter;
ra_err ra_stwriter_open(const char *path, ra_stwriter **out);
/* Declares a tensor; all are declared before the first data. */
ra_err ra_stwriter_declare(ra_stwriter *w, const char *name, ra_dtype dtype, int ndim, const int64_t *shape);
/* Data of the declared tensors in declaration order, converted from `from`. */
ra_err ra_stwriter_put(ra_stwriter *w, const char *name, ra_dtype from, const void *data);
/* The same piece by piece, for tensors larger than memory should hold: the next `count` elements of tensor `name`. */
ra_err ra_stwriter_put_part(ra_stwriter *w, const char *name, ra_dtype from, const void *data, int64_t count);
ra_err ra_stwriter_finish(ra_stwriter *w); /* frees w in every case */
void ra_stwriter_abort(ra_stwriter *w);

#endif
