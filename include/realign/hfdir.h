/* Writing Hugging Face model directories: tensors in shards, configuration, tokenizer files. Tensors stream through in pieces. Not collective throughout. */
#ifndef REALIGN_HFDIR_H
#define REALIGN_HFDIR_H
#include <realign/modelfile.h>
#include <jansson.h>

typedef struct {
    char *name;
    ra_dtype dtype; /* to be written */
    int ndim;
    int64_t shape[4], elements;
} ra_hf_tensor;

/* Elements [first, first + count) of tensor `index` in its dtype; whole rows where the tensor has more than one dimension. */
typedef ra_err (*ra_hf_read)(const void *context, int index, int64_t first, int64_t count, void *out);

typedef struct {
    const ra_hf_tensor *tensor; /* in the order of writing */
    int count;
    ra_hf_read read;
    const void *context;
} ra_hf_source;

/* `stem`.safetensors, or where that would exceed shard_bytes, stem-00001-of-0000n.safetensors and stem.safetensors.index.json. */
ra_err ra_hf_write_tensors(const ra_hf_source *s, const char *dir, const char *stem, int64_t shard_bytes);
/* Writes JSON with an indent of 2 and a final newline. */
ra_err ra_hf_write_json(const char *dir, const char *name, const json_t *value);
/* config.json with the type of most tensors under the key that `config` uses: dtype, or in older transformers torch_dtype. */
ra_err ra_hf_write_config(const ra_hf_source *s, json_t *config, const char *dir);
/* generation_config.json: that of directory `from` (NULL, a file: none), else the special tokens of `config`. */
ra_err ra_hf_write_generation_config(const char *from, const json_t *config, const char *dir);
/* "bfloat16": the type of most elements, as transformers names it. */
const char *ra_hf_main_dtype(const ra_hf_source *s);

/* tokenizer_config.json, and tokenizer.json of a byte-level BPE vocabulary embedded in a GGUF, or tokenizer.model of a SentencePiece one;
 * other kinds are refused with a reason. */
ra_err ra_hf_gguf_tokenizer(const ra_modelfile *model, const char *out_dir);
/* Copies tokenizer*, chat_template*, vocab.json, merges.txt, *.tiktoken, special_tokens_map.json and the like; *copied is their number. */
ra_err ra_hf_copy_tokenizer(const char *from_dir, const char *out_dir, int *copied);

#endif
