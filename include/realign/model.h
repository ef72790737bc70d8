/* The transformer: families as rows of a table, parameters as one flat vector with a table of logical tensors, forward and backward over packs.
 * No MPI and no instruction set here: everything runs on a backend. Sizes are in elements, shapes row-major, R and A as in backend.h. */
#ifndef REALIGN_MODEL_H
#define REALIGN_MODEL_H
#include <realign/backend.h>
#include <realign/error.h>
#include <realign/modelfile.h>
#include <stdbool.h>
#include <stdint.h>

/* ---- architecture ---- */
typedef struct ra_family ra_family; /* a row of the table in arch.c */

typedef struct {
    const char *family; /* "llama", "qwen2", "gemma2": config.json's model_type */
    int32_t hidden, layers, heads, kv_heads, head_dim, ffn, vocabulary, max_position;
    double eps, rope_theta;
    struct {
        bool llama3; /* scaled as Llama-3.1: by wave length, at every sequence length */
        double factor, low_frequency, high_frequency, original_positions;
    } rope;
    bool tied, qkv_bias, post_norms, plus_one, scaled_embedding;
    ra_glu glu;
    double query_scale, attention_softcap, final_softcap;
    int32_t window;          /* 0: none */
    uint8_t *layer_windowed; /* (layers) 1 where the window applies */
} ra_arch;

/* Reads config.json's text. Errors name `path`, the key and what is accepted. Free with ra_arch_free. */
ra_err ra_arch_parse(const char *json, const char *path, ra_arch *out);
/* Of a model's files. */
ra_err ra_arch_of(const ra_modelfile *file, ra_arch *out);
/* Of a path as ra_modelfile_open takes it; of a directory config.json alone is read, and its weights need not be there. */
ra_err ra_arch_read(const char *path, ra_arch *out);
void ra_arch_free(ra_arch *arch);
/* "llama: 30 layers, hidden 576, 9/3 heads of 64, ffn 1536, vocabulary 49152" */
void ra_arch_describe(const ra_arch *arch, char *text, int n);
int64_t ra_arch_parameters(const ra_arch *arch);

/* ---- parameters ---- */
typedef struct {
    char name[96]; /* logical name, Hugging Face's */
    int32_t ndim;  /* 1: a vector, kept in R; 2: a matrix, entering products in A */
    int64_t shape[2];
    int64_t
        offset; /* of its first element in the flat vector; matrices that are multiplied together (q, k, v; gate, up) follow without a gap */
    int64_t count;
    int64_t vector_offset; /* ndim 1: place in the compact copy of all vectors */
    int32_t number;        /* in the table of a model that holds all layers */
    int64_t canonical;     /* its offset in the vector of a model that holds all layers: what checkpoints are written by */
    bool copy;             /* a tied head on another rank than the embedding: the same tensor twice */
} ra_param;

typedef struct {
    int32_t count;
    ra_param *param;
    int64_t size; /* of the flat vector, padding included (padding stays zero) */
    int64_t vector_size;
    int32_t canonical_count; /* tensors of all layers */
    int64_t canonical_size;  /* of the vector of all layers */
    int64_t own_size;        /* up to the copy of a tied head, which comes last; elsewhere size */
} ra_layout;

int ra_layout_find(const ra_layout *layout, const char *name); /* -1: none */

/* ---- low-rank adapters (LoRA): W + (alpha / rank) B A on chosen projections ---- */
enum { RA_Q, RA_K, RA_V, RA_O, RA_GATE, RA_UP, RA_DOWN, RA_PROJECTIONS };
extern const char *const ra_projection_name[RA_PROJECTIONS]; /* "q_proj" ... */

typedef struct {
    int32_t rank;
    double alpha;
    uint32_t targets; /* bit i: projection i */
} ra_lora_config;

/* One of a layer's four products, with what hangs on it. Offsets are into the flat vectors. */
typedef struct {
    int32_t in, out;
    int64_t weight; /* base layout: (out, in) */
    void *packed;   /* the backend's own order of it, or NULL: ra_model_pack */
    int64_t bias;   /* base layout, or -1 */
    int64_t bias_vector;
    int32_t adapters; /* of the matrices stacked here, those that carry one */
    int64_t a;        /* adapter layout: (adapters * rank, in), stacked */
    struct {
        int64_t b;         /* adapter layout: (rows, rank) */
        int32_t row, rows; /* its rows of the output */
    } adapter[3];
} ra_linear;

typedef struct {
    int32_t index;                                                    /* in the whole network, from 0 */
    int64_t input_norm, post_attention_norm, ffn_norm, post_ffn_norm; /* base layout; -1 where the family has none */
    int64_t input_norm_v, post_attention_norm_v, ffn_norm_v, post_ffn_norm_v;
    ra_linear qkv, o, gate_up, down;
} ra_layer;

typedef enum { RA_FROZEN, RA_TRAIN_FULL, RA_TRAIN_ADAPTER } ra_training;

/* The part of the network that a model holds: runs of layers ("chunks") in ascending order. The embedding is with the first layer, the final norm and the head are with the last. */
enum { RA_CHUNKS_MOST = 16 };
typedef struct {
    int32_t chunks;
    struct {
        int32_t first, count;
    } chunk[RA_CHUNKS_MOST];
} ra_part;

typedef struct {
    ra_backend *b;
    ra_arch arch; /* of the whole network */
    ra_training training;
    ra_part part;
    bool first, last; /* the embedding is here; the final norm and the head are here */
    ra_layout base, adapter;
    ra_lora_config lora;
    int32_t layers; /* held here */
    ra_layer *layer;
    int64_t embedding, head, final_norm,
        final_norm_v;            /* base layout, -1 where it is elsewhere; head = embedding where tied and both are here */
    void *w_r;                   /* (base.size) R masters; NULL where frozen and A is narrower than R */
    void *w_a;                   /* (base.size) A, what products read; the same memory as w_r where A is R */
    void *vectors;               /* (base.vector_size) R */
    void *adapter_r, *adapter_a; /* (adapter.size), NULL without an adapter */
    void *cosine, *sine;         /* (max_rows_position, head_dim / 2) R */
    int32_t rope_positions;
    double embedding_scale;
} ra_model;

/* Reads a model, or the `part` of it (NULL: all): no other tensor is touched. `lora` (may be NULL) adds an adapter of zeros: see ra_model_init_adapter, ra_model_load_adapter.
 * `positions`: the longest sequence to come; 0: as long as config.json allows. */
ra_err ra_model_open(ra_backend *b, const ra_modelfile *file, ra_training training, const ra_lora_config *lora, int32_t positions,
                     const ra_part *part, ra_model **out);
/* Shapes and offsets alone, without memory for parameters: b, arch, training, lora, part and rope_positions (0: as long as config.json allows) of *m are set; what a plan counts. Free
 * with ra_model_close. */
void ra_model_lay_out(ra_model *m);
/* Bytes of backend memory that ra_model_open takes for a model laid out so. */
typedef struct {
    size_t masters, weights;         /* w_r, w_a; weights 0 where the masters are what products read */
    size_t vectors;                  /* norm gains and biases */
    size_t adapter_masters, adapter; /* likewise */
    size_t rope;                     /* cosine and sine, half of it each */
} ra_model_sizes;
ra_model_sizes ra_model_sizes_of(const ra_model *m);
void ra_model_close(ra_model *m);
/* Copies of the layers' matrices in the backend's order for products with few rows, as decoding has them, as many layers as fit into `limit` bytes; the model must be frozen,
 * for they do not follow changes of the masters. Nothing where the backend has no such order, or where it was done before. Products with packed weights are used from
 * then on. */
void ra_model_pack(ra_model *m, int64_t limit);
/* A from uniform(-1/sqrt(in), 1/sqrt(in)) (Kaiming, a = sqrt 5, as PEFT), B = 0; the same on every rank. */
void ra_model_init_adapter(ra_model *m, uint64_t seed);
/* A PEFT adapter directory. Its rank, alpha and targets must be known before: ra_lora_read_config. */
ra_err ra_lora_read_config(const char *dir, ra_lora_config *out);
ra_err ra_model_load_adapter(ra_model *m, const char *dir);
/* After the masters changed: makes the copies that products and norms read. */
void ra_model_refresh(ra_model *m);

/* The trainable vector: the adapter's where training is RA_TRAIN_ADAPTER, else the base's. */
const ra_layout *ra_model_trainable(const ra_model *m);
void *ra_model_masters(ra_model *m);

/* ---- activations ---- */
typedef enum {
    RA_RECOMPUTE_NONE,   /* everything that the backward pass reads is kept */
    RA_RECOMPUTE_INPUTS, /* kept: the residual stream, q k v, attention's result; norms, gate and up are made again */
    RA_RECOMPUTE_FULL    /* kept: the residual stream entering each layer */
} ra_recompute;

typedef struct {
    bool keep;     /* a backward pass follows; otherwise one layer's activations are reused for all */
    int32_t slots; /* micro-batches in flight, a chunk's activations each; 0: 1 */
    ra_recompute recompute;
    bool
        split; /* input and weight gradients are made at different times: the gradients between products are kept too. Not with recomputation */
} ra_keeping;

typedef struct ra_activations ra_activations;
/* For packs of at most `rows` rows. */
ra_activations *ra_activations_new(const ra_model *m, int32_t rows, const ra_keeping *keeping);
void ra_activations_free(ra_activations *acts);
/* Of a slot: the residual stream entering the chunk's first layer, and after its last (before the final norm, where that is the network's): (rows, hidden) R. */
void *ra_activations_entry(ra_activations *acts, int32_t slot);
void *ra_activations_last(ra_activations *acts, int32_t slot);
/* What ra_activations_new takes for a model laid out so. */
size_t ra_activations_bytes(const ra_model *m, int32_t rows, const ra_keeping *keeping);

/* Forward through a chunk. Its entry is read, or made from the pack's tokens where the network begins here. */
void ra_model_forward(ra_model *m, int32_t chunk, const ra_pack *pack, ra_activations *acts, int32_t slot);
/* The same, chunk 0 and slot 0, calling `hook` in each layer (of the model's own count) with q, k, v after rope, (rows, (heads + 2 kv_heads) head_dim) A, before attention reads them:
 * how a KV cache is filled. */
typedef void (*ra_layer_hook)(void *context, int32_t layer, const void *qkv);
void ra_model_forward_hooked(ra_model *m, const ra_pack *pack, ra_activations *acts, ra_layer_hook hook, void *context);

/* How a backward pass ends at each parameter (METHOD section 4): accumulate its gradient, or contract it with a tangent, row by row. */
typedef struct {
    void *gradient;        /* trainable layout, R, added to; NULL when contracting */
    const void *tangent_r; /* trainable layout, R */
    const void *tangent_a; /* the same in A */
    double *dot;           /* (rows) backend memory, added to: what each row of the pack contributes to <tangent, grad L> */
} ra_backward;

/* Backward through a chunk after its forward in the same slot. dx: (rows, hidden) R, the gradient with respect to ra_activations_last; overwritten with that with respect to
 * ra_activations_entry (undefined where nothing below needs it). Where keeping.split the gradients of the products' matrices are left to ra_model_backward_weight. */
void ra_model_backward(ra_model *m, int32_t chunk, const ra_pack *pack, ra_activations *acts, int32_t slot, void *dx,
                       const ra_backward *mode);
void ra_model_backward_weight(ra_model *m, int32_t chunk, const ra_pack *pack, ra_activations *acts, int32_t slot,
                              const ra_backward *mode);

/* ---- decoding: one new token for each of n sequences, against a KV cache ---- */
typedef struct {
    int32_t slots, positions;
    int64_t slot_stride,
        value_offset; /* elements; a layer's slot holds positions x kv_heads x head_dim keys, then as many values */
    void **layer;     /* (the model's layers) A */
    int32_t *token, *position, *slot, *length; /* (slots) of the rows of a step, backend memory; length: own token included */
    int32_t *host_length;
} ra_kv_cache;
ra_kv_cache *ra_kv_cache_new(const ra_model *m, int32_t slots, int32_t positions);
void ra_kv_cache_free(ra_kv_cache *cache, const ra_model *m);
/* Keys and values of a pack's rows: row i to position[i] of slot[i], both in backend memory; a negative slot is passed over. Used from a layer hook. */
void ra_kv_cache_store(const ra_model *m, ra_kv_cache *cache, int32_t layer, int32_t rows, const void *qkv, const int32_t *slot,
                       const int32_t *position);
/* Forward over a pack whose tree t goes on from positions [0, length[t]) of slot[t] of the cache (both in backend memory); pack->position goes on from there. */
void ra_model_forward_prefixed(ra_model *m, const ra_pack *pack, const ra_kv_cache *cache, const int32_t *slot,
                               const int32_t *length, ra_activations *acts);
/* token[i] at position[i] of slot[i], host arrays; the residual stream is left in ra_activations_last(acts), row i. Where the network begins on another rank, row i of
 * ra_activations_entry is read in place of the token. */
void ra_model_decode(ra_model *m, ra_kv_cache *cache, int32_t n, const int32_t *token, const int32_t *position,
                     const int32_t *slot, ra_activations *acts);

#endif
