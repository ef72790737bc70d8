/* Seeded mutations of small valid model files: opening, reading and the configuration either work or fail with a message that names the file.
 * Meant for SAN=1, where reading out of bounds ends the program. FUZZ_SECONDS (3) and FUZZ_SEED (1) change the effort. */
#include "../../src/tensor/stored.h"
#include <realign/file.h>
#include <realign/log.h>
#include <realign/modelfile.h>
#include <realign/rng.h>
#include <realign/timer.h>
#include <support/modelmake.h>
#include <support/quant_vectors.h>
#include <support/support.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void seed_safetensors(ra_buf *out)
{
    make_safetensors(out,
                     "{\"__metadata__\":{\"format\":\"pt\"},\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
                     "\"b\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[24,32]},\"c\":{\"dtype\":\"F64\",\"shape\":[],"
                     "\"data_offsets\":[32,40]}}",
                     40);
}

static void seed_index(ra_buf *out)
{
    ra_buf_adds(out, "{\"metadata\":{\"total_size\":40},\"weight_map\":{\"a\":\"s.safetensors\",\"b\":\"s.safetensors\",\"c\":"
                     "\"s.safetensors\"}}");
}

static void seed_gguf(ra_buf *out, const char *arch)
{
    static const float ones[64];
    gguf_maker m = {0};
    gguf_tiny_metadata(&m, arch);
    gguf_text(&m, "tokenizer.ggml.model", "gpt2");
    gguf_raw(&m, "tokenizer.ggml.tokens", 9, "\10\0\0\0\2\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0a\1\0\0\0\0\0\0\0b", 30);
    gguf_raw(&m, "tokenizer.ggml.token_type", 9, "\5\0\0\0\2\0\0\0\0\0\0\0\1\0\0\0\3\0\0\0", 20);
    gguf_tensor(&m, "token_embd.weight", 0, 2, (uint64_t[]){8, 6}, ones, 192);
    gguf_tensor(&m, "blk.0.attn_q.weight", 0, 2, (uint64_t[]){8, 8}, ones, 256);
    gguf_tensor(&m, "blk.0.attn_norm.weight", 0, 1, (uint64_t[]){8}, ones, 32);
    if (strcmp(arch, "llama") == 0) gguf_tensor(&m, "rope_freqs.weight", 0, 1, (uint64_t[]){2}, (float[]){1.0f, 8.0f}, 8);
    for (int v = 0; v < 10; v++) {
        static const char *const names[] = {"attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};
        char *name = v < 6 ? ra_format("blk.0.%s.weight", names[v]) : ra_format("blk.%d.ffn_up.weight", v);
        gguf_tensor(&m, name, quant_vectors[v].ggml_type, 2, (uint64_t[]){(uint64_t)quant_vectors[v].elements / 2, 2},
                    quant_vectors[v].block, (size_t)quant_vectors[v].bytes);
        free(name);
    }
    gguf_end(&m, 3, out);
}

static void mutate(ra_rng *rng, ra_buf *bytes)
{
    static const uint64_t edges[] = {0,          1,          7,          255,       1 << 16,    0x7fffffff, 0x80000000,
                                     0xffffffff, 1ull << 32, 1ull << 61, INT64_MAX, 1ull << 63, UINT64_MAX};
    int64_t rounds = 1 + (int64_t)ra_rng_below(rng, 4);
    for (int64_t i = 0; i < rounds; i++) {
        size_t reach = ra_rng_below(rng, 2) && bytes->length > 64 ? 64 : bytes->length; /* headers matter most */
        size_t at = (size_t)ra_rng_below(rng, reach), left = bytes->length - at;
        switch (ra_rng_below(rng, 7)) {
        case 0: bytes->data[at] = (char)ra_rng_u32(rng); break;
        case 1: bytes->data[at] ^= (char)(1u << ra_rng_below(rng, 8)); break;
        case 2: memcpy(bytes->data + at, &edges[ra_rng_below(rng, sizeof edges / sizeof edges[0])], left < 8 ? left : 8); break;
        case 3: memcpy(bytes->data + at, &edges[ra_rng_below(rng, sizeof edges / sizeof edges[0])], left < 4 ? left : 4); break;
        case 4: bytes->length = at + 1; break;
        case 5: bytes->data[at] = "{}[]\",:0123456789.-"[ra_rng_below(rng, 19)]; break;
        default: { /* a piece repeated elsewhere */
            size_t from = (size_t)ra_rng_below(rng, bytes->length), n = (size_t)ra_rng_below(rng, 40);
            if (n > left) n = left;
            if (n > bytes->length - from) n = bytes->length - from;
            memmove(bytes->data + at, bytes->data + from, n);
        }
        }
    }
}

static bool named(const char *what, const char *dir, uint64_t number)
{
    if (strstr(ra_error_message(), dir)) return true;
    printf("# %s %llu: a message that names no file: %s\n", what, (unsigned long long)number, ra_error_message());
    return false;
}

/* Opens and reads everything, from `bytes` where given; returns whether each failure named a file below `dir`. */
static bool use(const char *path, const ra_map *bytes, const char *dir, uint64_t number, uint64_t *opened)
{
    ra_modelfile *file;
    ra_err err = bytes ? ra_modelfile_open_bytes(path, bytes, &file) : ra_modelfile_open(path, &file);
    if (err != RA_OK) return named("open", dir, number);
    (*opened)++;
    bool good = true;
    char *json;
    if (ra_modelfile_config_json(file, &json) == RA_OK) {
        free(json);
    } else {
        good = named("configuration", dir, number);
    }
    for (int i = 0; i < ra_modelfile_count(file) && good; i++) {
        const ra_tensor_info *t = ra_modelfile_info(file, i);
        double *values = ra_alloc((size_t)t->elements, sizeof *values);
        if (ra_modelfile_read(file, t->name, 0, t->elements, RA_DTYPE_F64, values) != RA_OK) good = named("read", dir, number);
        ra_free(values);
    }
    const ra_gguf *g = ra_modelfile_gguf(file);
    ra_str *texts;
    int64_t *integers, n;
    if (g && ra_gguf_text_array(g, "tokenizer.ggml.tokens", &texts, &n)) {
        size_t sum = 0;
        for (int64_t i = 0; i < n; i++) {
            for (size_t k = 0; k < texts[i].length; k++) sum += (uint8_t)texts[i].data[k];
        }
        if (sum == 1) puts("# touched");
        free(texts);
    }
    if (g && ra_gguf_i64_array(g, "tokenizer.ggml.token_type", &integers, &n)) free(integers);
    ra_modelfile_close(file);
    return good;
}

/* `open_path`: a directory that holds `name`; NULL: the bytes alone are opened. */
static bool fuzz(const char *what, const ra_buf *seed_bytes, const char *dir, const char *name, const char *open_path,
                 double seconds)
{
    const char *given = getenv("FUZZ_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 10) : 1, opened = 0, i = 0;
    ra_buf bytes = {0};
    bool good = true;
    char *file_path = ra_path_join(dir, name);
    for (double end = ra_now() + seconds; good && ra_now() < end && i < 100000; i++) {
        ra_rng rng = ra_rng_make(seed, RA_STREAM_TEST);
        rng.counter = i << 20;
        ra_buf_clear(&bytes);
        ra_buf_add(&bytes, seed_bytes->data, seed_bytes->length);
        if (i) mutate(&rng, &bytes); /* the first is the valid file */
        if (open_path) {
            free(write_bytes_to(dir, name, bytes.data, bytes.length));
            good = use(open_path, NULL, dir, i, &opened);
        } else { /* in a heap block of exactly its size */
            uint8_t *exact = malloc(bytes.length);
            memcpy(exact, bytes.data, bytes.length);
            good = use(file_path, &(ra_map){exact, bytes.length}, dir, i, &opened);
            free(exact);
        }
        if (i == 0 && opened != 1) {
            printf("# the valid file was refused: %s\n", ra_error_message());
            good = false;
        }
    }
    printf("# %s: seed %llu, %llu files, %llu of them opened\n", what, (unsigned long long)seed, (unsigned long long)i,
           (unsigned long long)opened);
    ra_buf_free(&bytes);
    free(file_path);
    return good;
}

int main(void)
{
    static const char *const kinds[] = {"safetensors", "shard", "index", "gguf llama", "gguf gemma2"};
    const char *given = getenv("FUZZ_SECONDS");
    double seconds = (given ? strtod(given, NULL) : 3.0) / 5.0;
    char *dir = test_dir_make();
    int failed = 0;
    ra_log_setup(0, RA_LOG_QUIET);
    puts("1..5");
    free(write_bytes_to(dir, "config.json", "{}", 2));
    for (int k = 0; k < 5; k++) {
        ra_buf seed = {0}, other = {0};
        bool sharded = k == 1 || k == 2;
        if (k < 2) seed_safetensors(&seed);
        if (k == 2) seed_index(&seed);
        if (k == 3) seed_gguf(&seed, "llama");
        if (k == 4) seed_gguf(&seed, "gemma2");
        if (sharded) { /* the valid half of the pair */
            if (k == 1) seed_index(&other);
            if (k == 2) seed_safetensors(&other);
            free(write_bytes_to(dir, k == 1 ? "model.safetensors.index.json" : "s.safetensors", other.data, other.length));
        }
        const char *name = k == 1 ? "s.safetensors" : k == 2 ? "model.safetensors.index.json" : "model.bin";
        bool good = fuzz(kinds[k], &seed, dir, name, sharded ? dir : NULL, seconds);
        printf("%sok %d - %s\n", good ? "" : "not ", k + 1, kinds[k]);
        failed += !good;
        ra_buf_free(&seed);
        ra_buf_free(&other);
    }
    test_dir_remove(dir);
    return failed != 0;
}
