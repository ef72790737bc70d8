/* How the elements of a tensor are encoded in a file: plain numbers, or ggml's blocks of quantised ones. */
#ifndef REALIGN_TENSOR_ENCODING_H
#define REALIGN_TENSOR_ENCODING_H
#include <realign/dtype.h>
#include <stddef.h>
#include <stdint.h>

enum { RA_BLOCK_MAX = 256 }; /* elements of the largest block */

typedef struct {
    const char *name;
    int block;       /* elements a block; 1 for plain numbers */
    int bytes;       /* bytes a block */
    int plain;       /* the ra_dtype of plain floating-point numbers, -1 otherwise */
    int ggml;        /* type number in GGUF files, -1 where it has none */
    int safetensors; /* the name is a dtype of safetensors files */
    /* One block to float32, bit for bit what ggml computes. NULL for plain numbers, and for integers, which nothing here reads. */
    void (*decode)(const uint8_t *block, float *out);
} ra_encoding;

/* NULL where the format knows no such type or this program does not. */
const ra_encoding *ra_encoding_of_safetensors(const char *dtype);
const ra_encoding *ra_encoding_of_ggml(uint32_t type);
/* Elements [first, first + count) of an encoded tensor that begins at `data`, converted to `to`. Single-threaded. */
void ra_encoding_decode(const ra_encoding *encoding, const uint8_t *data, int64_t first, int64_t count, ra_dtype to, void *out);

#endif
