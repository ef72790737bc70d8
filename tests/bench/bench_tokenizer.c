/* Tokenizing speed on one thread, MB/s of UTF-8 text: HH-RLHF dialogues of the shared folder, or a file given.
 *   bench_tokenizer [MODEL [FILE]]     FILE: .jsonl(.gz) of preference rows, or any text
 * Prints one line a tokenizer: encode cold (an empty word cache), encode warm, with offsets, decode; and one word of a
 * million bytes. */
#include <support/support.h>

#include <jansson.h>
#include <realign/file.h>
#include <realign/tokenizer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zlib.h>

typedef struct {
    char **text;
    size_t *length;
    size_t n, capacity, bytes;
} corpus;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void add_text(corpus *c, const char *text)
{
    if (c->n == c->capacity) {
        c->capacity = c->capacity ? 2 * c->capacity : 1024;
        c->text = ra_realloc(c->text, c->capacity, sizeof *c->text);
        c->length = ra_realloc(c->length, c->capacity, sizeof *c->length);
    }
    c->text[c->n] = ra_strdup(text);
    c->length[c->n] = strlen(text);
    c->bytes += c->length[c->n++];
}

/* Lines of JSON give their string members; other lines are texts themselves. */
static bool load_corpus(const char *path, corpus *c)
{
    gzFile file = gzopen(path, "rb");
    if (!file) return false;
    enum { LINE = 1 << 22 };
    char *line = ra_realloc(NULL, LINE, 1);
    while (gzgets(file, line, LINE)) {
        json_t *row = json_loads(line, 0, NULL), *value;
        const char *key;
        if (!row) add_text(c, line);
        json_object_foreach(row, key, value)
        {
            if (json_is_string(value)) add_text(c, json_string_value(value));
        }
        json_decref(row);
    }
    free(line);
    gzclose(file);
    return c->n > 0;
}

/* Seconds of the fastest of `rounds` passes over the corpus. */
static double encode_all(const ra_tokenizer *t, const corpus *c, int flags, int rounds, ra_ids *ids)
{
    double best = 1e30;
    for (int r = 0; r < rounds; r++) {
        double start = now();
        ra_ids_clear(ids);
        for (size_t i = 0; i < c->n; i++) {
            if (ra_tokenizer_encode(t, c->text[i], c->length[i], flags, ids) != RA_OK) {
                fprintf(stderr, "text %zu: %s\n", i, ra_error_message());
                exit(1);
            }
        }
        double seconds = now() - start;
        if (seconds < best) best = seconds;
    }
    return best;
}

static void bench(const char *model, const corpus *c)
{
    ra_tokenizer *t;
    double start = now();
    if (ra_tokenizer_open(model, &t) != RA_OK) {
        fprintf(stderr, "%s\n", ra_error_message());
        return;
    }
    double open = now() - start, mb = (double)c->bytes * 1e-6;
    ra_ids ids = {0};
    double cold = encode_all(t, c, 0, 1, &ids), warm = encode_all(t, c, 0, 5, &ids), tokens = (double)ids.count;
    ra_buf text = {0};
    start = now();
    ra_tokenizer_decode(t, ids.id, ids.count, false, &text);
    double decode = now() - start;
    double offsets = encode_all(t, c, RA_ENCODE_OFFSETS, 5, &ids);
    enum { WORD = 1000000 };
    char *word = ra_realloc(NULL, WORD, 1);
    for (int i = 0; i < WORD; i++) word[i] = (char)('a' + (i % 1000 * 7919 + i / 13) % 26);
    ra_ids_clear(&ids);
    start = now();
    ra_tokenizer_encode(t, word, WORD, 0, &ids);
    double long_word = now() - start;
    printf("%s: %zu texts, %.2f MB, %.0f tokens; open %.2f s; encode first pass %.1f MB/s, later %.1f MB/s, with offsets %.1f "
           "MB/s; decode "
           "%.1f MB/s; one word of 1 MB %.3f s\n",
           model, c->n, mb, tokens, open, mb / cold, mb / warm, mb / offsets, mb / decode, long_word);
    free(word);
    ra_buf_free(&text);
    ra_ids_free(&ids);
    ra_tokenizer_close(t);
}

int main(int argc, char **argv)
{
    const char *shared = test_shared();
    char *path = argc > 2 ? ra_strdup(argv[2])
                          : ra_format("%s/data/preference/hh-rlhf/harmless-base.part.jsonl.gz", shared ? shared : "../shared");
    corpus c = {0};
    if (!load_corpus(path, &c)) {
        printf("bench_tokenizer: no text in %s; give MODEL and FILE\n", path);
        free(path);
        return argc > 2;
    }
    static const char *const MODELS[] = {"models/smollm2", "tokenizers/qwen2.5", "tokenizers/llama3.1", "tokenizers/gemma2.hf",
                                         "tokenizers/gemma2/tokenizer.rebuilt.model"};
    for (int i = 0; i < 5 && argc < 2; i++) {
        char *model = ra_format("%s/data/%s", shared ? shared : "../shared", MODELS[i]);
        bench(model, &c);
        free(model);
    }
    if (argc > 1) bench(argv[1], &c);
    for (size_t i = 0; i < c.n; i++) free(c.text[i]);
    free(c.text);
    free(c.length);
    free(path);
    return 0;
}
