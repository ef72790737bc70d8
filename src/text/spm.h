/* A SentencePiece vocabulary of the BPE type, whatever file it came from (tokenizer.model or GGUF). */
#ifndef REALIGN_TEXT_SPM_H
#define REALIGN_TEXT_SPM_H
#include "tok.h"

/* Types as in SentencePiece's and in llama.cpp's files. */
typedef enum {
    RA_PIECE_NORMAL = 1,
    RA_PIECE_UNKNOWN,
    RA_PIECE_CONTROL,
    RA_PIECE_USER_DEFINED,
    RA_PIECE_UNUSED,
    RA_PIECE_BYTE
} ra_piece_type;

typedef struct {
    const char *text;
    size_t length;
    float score;
    int type;
} ra_piece;

typedef struct {
    ra_piece *piece; /* (n), by id */
    int32_t n;
    int32_t unknown;                    /* counts where no piece is of the unknown type; -1: none */
    bool dummy_prefix, squeeze, escape; /* the normaliser's */
    bool prefix_once;
    bool byte_fallback;
    const uint8_t *map; /* precompiled_charsmap */
    size_t map_length;
} ra_spm;

/* Fills vocabulary, merges, normaliser, decoder and the user-defined pieces. Added tokens that lie beside the vocabulary were
 * added before: user-defined pieces among them that are special stay so. RA_ERR_FORMAT names `path` and the piece. */
ra_err ra_spm_fill(ra_tokenizer *t, const char *path, const ra_spm *spm);

#endif
