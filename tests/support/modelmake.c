#include "modelmake.h"

#include <realign/file.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *write_bytes_to(const char *dir, const char *name, const void *bytes, size_t n)
{
    char *path = ra_path_join(dir, name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(bytes, 1, n, file) != n || fclose(file) != 0) {
        perror(path);
        abort();
    }
    return path;
}

void make_safetensors(ra_buf *out, const char *header, size_t data_bytes)
{
    uint64_t length = strlen(header);
    ra_buf_add(out, &length, 8);
    ra_buf_adds(out, header);
    for (size_t i = 0; i < data_bytes; i++) ra_buf_add(out, &(uint8_t){(uint8_t)i}, 1);
}

static void add_text(ra_buf *out, const char *text)
{
    uint64_t length = strlen(text);
    ra_buf_add(out, &length, 8);
    ra_buf_adds(out, text);
}

void gguf_raw(gguf_maker *m, const char *key, uint32_t type, const void *bytes, size_t n)
{
    add_text(&m->pairs, key);
    ra_buf_add(&m->pairs, &type, 4);
    ra_buf_add(&m->pairs, bytes, n);
    m->pair_count++;
}

void gguf_text(gguf_maker *m, const char *key, const char *value)
{
    gguf_raw(m, key, 8, NULL, 0);
    add_text(&m->pairs, value);
}

void gguf_u32(gguf_maker *m, const char *key, uint32_t value)
{
    gguf_raw(m, key, 4, &value, 4);
}

void gguf_f32(gguf_maker *m, const char *key, float value)
{
    gguf_raw(m, key, 6, &value, 4);
}

static void pad(ra_buf *out, uint64_t alignment)
{
    while (out->length % alignment) ra_buf_add(out, "", 1);
}

void gguf_tensor_at(gguf_maker *m, const char *name, uint32_t type, int ndim, const uint64_t *shape, uint64_t offset)
{
    uint32_t n = (uint32_t)ndim;
    add_text(&m->tensors, name);
    ra_buf_add(&m->tensors, &n, 4);
    ra_buf_add(&m->tensors, shape, 8 * (size_t)ndim);
    ra_buf_add(&m->tensors, &type, 4);
    ra_buf_add(&m->tensors, &offset, 8);
    m->tensor_count++;
}

void gguf_tensor(gguf_maker *m, const char *name, uint32_t type, int ndim, const uint64_t *shape, const void *data, size_t bytes)
{
    pad(&m->data, m->alignment ? m->alignment : 32);
    gguf_tensor_at(m, name, type, ndim, shape, m->data.length);
    ra_buf_add(&m->data, data, bytes);
}

void gguf_end(gguf_maker *m, uint32_t version, ra_buf *out)
{
    ra_buf_adds(out, "GGUF");
    ra_buf_add(out, &version, 4);
    ra_buf_add(out, &m->tensor_count, 8);
    ra_buf_add(out, &m->pair_count, 8);
    ra_buf_add(out, m->pairs.data, m->pairs.length);
    ra_buf_add(out, m->tensors.data, m->tensors.length);
    pad(out, m->alignment ? m->alignment : 32);
    ra_buf_add(out, m->data.data, m->data.length);
    ra_buf_free(&m->pairs);
    ra_buf_free(&m->tensors);
    ra_buf_free(&m->data);
}

void gguf_tiny_metadata(gguf_maker *m, const char *arch)
{
    static const struct {
        const char *key;
        uint32_t value;
    } sizes[] = {{"block_count", 1},          {"context_length", 64},      {"embedding_length", 8},
                 {"feed_forward_length", 16}, {"attention.head_count", 2}, {"attention.head_count_kv", 1},
                 {"vocab_size", 6},           {"attention.key_length", 4}};
    char key[96];
    gguf_text(m, "general.architecture", arch);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        snprintf(key, sizeof key, "%s.%s", arch, sizes[i].key);
        gguf_u32(m, key, sizes[i].value);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", arch);
    gguf_f32(m, key, 1e-5f);
    snprintf(key, sizeof key, "%s.rope.freq_base", arch);
    gguf_f32(m, key, 500000.0f);
}

char *test_demo_gguf(void)
{
    const char *given = getenv("REALIGN_DEMO_GGUF"), *home = getenv("HOME");
    char *path = given ? ra_strdup(given) : ra_format("%s/.cache/realign/SmolLM2-135M-Instruct.Q4_1.gguf", home ? home : "");
    if (ra_file_exists(path)) return path;
    printf("# skipped: no demo model at %s (make run fetches it; REALIGN_DEMO_GGUF names another place)\n", path);
    free(path);
    return NULL;
}
