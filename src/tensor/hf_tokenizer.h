/* What the writers of tokenizer files share. */
#ifndef REALIGN_TENSOR_HF_TOKENIZER_H
#define REALIGN_TENSOR_HF_TOKENIZER_H
#include <jansson.h>
#include <realign/modelfile.h>

enum { /* tokenizer.ggml.token_type */
       RA_GGUF_NORMAL = 1,
       RA_GGUF_UNKNOWN,
       RA_GGUF_CONTROL,
       RA_GGUF_USER_DEFINED,
       RA_GGUF_UNUSED,
       RA_GGUF_BYTE
};

typedef struct {
    const char *path; /* of the GGUF */
    const ra_gguf *g;
    ra_str *token;
    int64_t *type, tokens;
} ra_hf_vocabulary;

/* Adds to `config` (which is used up) what the metadata knows, and writes tokenizer_config.json. Listed as added tokens are the control
 * tokens, and the user-defined ones, or else the unknown one. */
ra_err ra_hf_write_tokenizer_config(const ra_hf_vocabulary *v, const ra_modelfile *model, bool user_defined, json_t *config,
                                    const char *out_dir);
/* tokenizer.model and tokenizer_config.json of a GGUF whose tokenizer.ggml.model is "llama". */
ra_err ra_hf_write_sentencepiece(const ra_modelfile *model, const char *out_dir);

#endif
