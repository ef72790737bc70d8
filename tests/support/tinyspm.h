/* A small SentencePiece vocabulary of the BPE type for tests: <unk> 0, <s> 1, </s> 2, user-defined "<t>" 3 and two marks 4, the 256
 * byte pieces from 5, characters and merged pieces behind; as tokenizer.model or as a GGUF file. */
#ifndef TESTS_SUPPORT_TINYSPM_H
#define TESTS_SUPPORT_TINYSPM_H
#include <realign/mem.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    bool dummy_prefix, squeeze; /* add_dummy_prefix, remove_extra_whitespaces */
    bool no_bytes;              /* no byte pieces, no byte fallback (the ids behind move down) */
    int model_type;             /* 0: BPE (2) */
    bool suffix;                /* treat_whitespace_as_suffix */
    const void *map;            /* precompiled_charsmap */
    uint32_t map_length;
    int unknown_pieces; /* more of them */
} tinyspm;

int32_t tinyspm_id(const tinyspm *spec, const char *piece); /* -1: none */
/* Appends the protocol buffer. */
void tinyspm_model(ra_buf *out, const tinyspm *spec);
/* Appends a GGUF file without blocks (tokenizer.ggml.model llama). `scores` false leaves them out. */
void tinyspm_gguf(ra_buf *out, const tinyspm *spec, bool scores);

#endif
