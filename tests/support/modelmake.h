/* Small model files for tests, made byte by byte, so that broken ones can be made too. */
#ifndef REALIGN_TESTS_MODELMAKE_H
#define REALIGN_TESTS_MODELMAKE_H
#include <realign/mem.h>
#include <stdint.h>

/* Writes bytes to dir/name and returns the path; free with free. */
char *write_bytes_to(const char *dir, const char *name, const void *bytes, size_t n);
/* The bytes of a safetensors file: length, header text, `data_bytes` bytes 0, 1, 2 ... */
void make_safetensors(ra_buf *out, const char *header, size_t data_bytes);

/* GGUF, in file order: begin, pairs, tensors, end with data. */
typedef struct {
    ra_buf pairs, tensors, data;
    uint64_t pair_count, tensor_count, alignment;
} gguf_maker;
void gguf_text(gguf_maker *m, const char *key, const char *value);
void gguf_u32(gguf_maker *m, const char *key, uint32_t value);
void gguf_f32(gguf_maker *m, const char *key, float value);
/* Raw value bytes of any type. */
void gguf_raw(gguf_maker *m, const char *key, uint32_t type, const void *bytes, size_t n);
/* `shape` innermost first, as ggml counts; `bytes` of data at the next aligned offset. */
void gguf_tensor(gguf_maker *m, const char *name, uint32_t type, int ndim, const uint64_t *shape, const void *data, size_t bytes);
/* The same with an offset of its own and no data added. */
void gguf_tensor_at(gguf_maker *m, const char *name, uint32_t type, int ndim, const uint64_t *shape, uint64_t offset);
/* The whole file; frees the maker's memory. */
void gguf_end(gguf_maker *m, uint32_t version, ra_buf *out);
/* Pairs of a one-layer model: 2 heads of 4, 1 key/value head, hidden 8, inner 16, 6 tokens. */
void gguf_tiny_metadata(gguf_maker *m, const char *arch);

/* The demo model: $REALIGN_DEMO_GGUF, or where `make run` caches it; NULL, and a line that says so, where it is absent. Free with free. */
char *test_demo_gguf(void);

#endif
