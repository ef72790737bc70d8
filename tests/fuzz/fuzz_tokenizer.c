/* Seeded mutations of small tokenizer.json files, SentencePiece models, tiktoken files and GGUF tokenizers, and random bytes as text:
 * opening works or fails with a message, encoding works or names a byte, and what was encoded decodes to itself. Meant for SAN=1.
 * FUZZ_SECONDS (2) and FUZZ_SEED (1) change the effort. */
#define _GNU_SOURCE /* memmem */
#include "../../src/text/tok.h"
#include <jansson.h>
#include <realign/file.h>
#include <realign/log.h>
#include <realign/rng.h>
#include <support/support.h>
#include <support/tinyspm.h>
#include <support/tinytok.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char ADDED[] =
    "[{\"id\": 300, \"content\": \"<|im_start|>\", \"special\": true}, {\"id\": 301, \"content\": \"<|im_end|>\", \"special\": "
    "true}, {\"id\": 302, \"content\": \"<x>\", \"lstrip\": true, \"rstrip\": true, \"special\": false}]";
static const char SPLIT[] = "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\", \"individual_digits\": true}, "
                            "{\"type\": \"Split\", \"pattern\": "
                            "{\"Regex\": \"\\\\p{L}+|\\\\s+(?!\\\\S)|[^\\\\s]\"}, \"behavior\": \"Isolated\", \"invert\": "
                            "false}, {\"type\": \"ByteLevel\", "
                            "\"add_prefix_space\": false, \"use_regex\": true}]}";
static const char POST[] =
    "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<x>\"}}, {\"Sequence\": {\"id\": \"A\"}}], "
    "\"special_tokens\": {\"<x>\": {\"ids\": [302]}}}";
/* The same merges over characters, as SentencePiece models come. */
static const char PIECES[] =
    "{\"added_tokens\": [{\"id\": 300, \"content\": \"<x>\", \"normalized\": true, \"lstrip\": true}], \"normalizer\": "
    "{\"type\": "
    "\"Sequence\", \"normalizers\": [{\"type\": \"Strip\", \"strip_left\": true, \"strip_right\": false}, {\"type\": \"NFKC\"}, "
    "{\"type\": \"Lowercase\"}, {\"type\": \"Prepend\", \"prepend\": \"\u2581\"}, {\"type\": \"Replace\", \"pattern\": "
    "{\"Regex\": \"x*\"}, \"content\": \"b\"}, {\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": "
    "\"\u2581\"}]}, \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": "
    "{\"String\": "
    "\"l\"}, \"behavior\": \"MergedWithPrevious\", \"invert\": false}, {\"type\": \"Metaspace\", \"replacement\": \"\u2581\", "
    "\"prepend_scheme\": \"first\", \"split\": true}]}, \"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": "
    "\"Replace\", \"pattern\": {\"String\": \"\u2581\"}, \"content\": \" \"}, {\"type\": \"ByteFallback\"}, {\"type\": "
    "\"Fuse\"}, "
    "{\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}]}, \"model\": {\"type\": \"BPE\", \"unk_token\": "
    "\"<unk>\", \"fuse_unk\": true, \"byte_fallback\": true, \"vocab\": {\"<unk>\": 0, \"h\": 1, \"e\": 2, \"l\": 3, \"o\": 4, "
    "\"\u2581\": 5, \"he\": 6, \"ll\": 7, \"\u2581he\": 8, \"<0x41>\": 9, \"<0xF0>\": 10, \"a\": 11, \"b\": 12, \"ab\": 13, "
    "\"\u00e9\": 14}, \"merges\": [\"h e\", \"l l\", \"\u2581 he\", \"a b\"]}}";

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static size_t below(ra_rng *rng, size_t n)
{
    return n ? (size_t)ra_rng_below(rng, n) : 0;
}

static void splice(ra_buf *b, size_t at, size_t cut, const void *bytes, size_t n)
{
    ra_buf out = {0};
    if (at > b->length) at = b->length;
    if (cut > b->length - at) cut = b->length - at;
    ra_buf_add(&out, b->data, at);
    ra_buf_add(&out, bytes, n);
    ra_buf_add(&out, b->data + at + cut, b->length - at - cut);
    ra_buf_free(b);
    *b = out;
}

/* Bytes flipped, stretches cut or doubled, and words of the format put where a value was. */
static void mutate(ra_rng *rng, ra_buf *b)
{
    static const char *const WORDS[] = {
        "null",          "true",         "-1",      "16777216",    "99999999999", "\"\"", "[]", "{}", "0.5", "\"BPE\"",
        "\"ByteLevel\"", "\"Sequence\"", "\"NFC\"", "\"\\u0000\"", "\"(\"",       "{%",   "}}", "'",  "\\",  "<|im_end|>"};
    for (int n = 1 + (int)below(rng, 4); n > 0 && b->length; n--) {
        size_t at = below(rng, below(rng, 2) ? b->length : b->length < 1500 ? b->length : 1500);
        char byte = (char)ra_rng_u32(rng);
        switch (below(rng, 5)) {
        case 0: b->data[at] = byte; break;
        case 1: splice(b, at, below(rng, 40), "", 0); break;
        case 2: {
            char *copy = ra_strndup(b->data + at, b->length - at < 60 ? b->length - at : 60);
            splice(b, below(rng, b->length), 0, copy, strlen(copy));
            free(copy);
            break;
        }
        case 3: { /* the value after a colon */
            const char *colon = memchr(b->data + at, ':', b->length - at);
            const char *word = WORDS[below(rng, sizeof WORDS / sizeof *WORDS)];
            if (colon) splice(b, (size_t)(colon - b->data) + 1, strcspn(colon + 1, ",}]\n") % 80, word, strlen(word));
            break;
        }
        default: {
            const char *word = WORDS[below(rng, sizeof WORDS / sizeof *WORDS)];
            splice(b, at, below(rng, 3), word, strlen(word));
        }
        }
    }
}

/* A value somewhere in the tree taken out or put in place of another: the file stays JSON. */
static void mutate_tree(ra_rng *rng, json_t *node)
{
    static const char *const VALUES[] = {"null",
                                         "true",
                                         "false",
                                         "-1",
                                         "0",
                                         "300",
                                         "16777216",
                                         "99999999999",
                                         "0.5",
                                         "\"\"",
                                         "\"a b\"",
                                         "\"NFC\"",
                                         "\"Sequence\"",
                                         "\"ByteLevel\"",
                                         "\"Removed\"",
                                         "\"(\"",
                                         "\"\\\\d*\"",
                                         "[]",
                                         "{}",
                                         "[\"a\", \"b\"]",
                                         "{\"String\": \"l\"}",
                                         "{\"type\": \"NFC\"}"};
    while (json_is_object(node) || json_is_array(node)) {
        size_t n = json_is_object(node) ? json_object_size(node) : json_array_size(node), at = below(rng, n);
        if (!n) return;
        void *member = json_is_object(node) ? json_object_iter(node) : NULL;
        for (size_t i = 0; i < at && member; i++) member = json_object_iter_next(node, member);
        json_t *child = member ? json_object_iter_value(member) : json_array_get(node, at);
        if ((json_is_object(child) || json_is_array(child)) && below(rng, 8)) {
            node = child;
            continue;
        }
        json_t *value = json_loads(VALUES[below(rng, sizeof VALUES / sizeof *VALUES)], JSON_DECODE_ANY, NULL);
        bool take_out = below(rng, 4) == 0;
        if (member && take_out) json_object_del(node, json_object_iter_key(member));
        if (member && !take_out) json_object_iter_set(node, member, value);
        if (!member && take_out) json_array_remove(node, at);
        if (!member && !take_out) json_array_set(node, at, value);
        json_decref(value);
        return;
    }
}

/* Text with every kind of byte; valid UTF-8 or not. */
static void random_text(ra_rng *rng, ra_buf *text)
{
    static const char *const BITS[] = {"hello",
                                       " world",
                                       "<|im_start|>",
                                       "<|im_end|>",
                                       " <x> ",
                                       "<|im",
                                       "12",
                                       "\n\n",
                                       "  ",
                                       "ab",
                                       "aabba",
                                       "\xC3\xA9",
                                       "e\xCC\x81",
                                       "\xE1\x84\x80\xE1\x85\xA1",
                                       "\xF0\x9F\x98\x80",
                                       "\xE2\x80\xA8",
                                       "'s"};
    ra_buf_clear(text);
    ra_buf_adds(text, "");
    for (int n = (int)below(rng, 20); n > 0; n--) {
        uint8_t bytes[4];
        size_t kind = below(rng, 12);
        if (kind == 0) {
            uint8_t raw = (uint8_t)ra_rng_u32(rng);
            ra_buf_add(text, &raw, 1);
        } else if (kind < 4) {
            uint32_t c = (uint32_t)below(rng, 0x110000);
            if (c < 0xD800 || c > 0xDFFF) ra_buf_add(text, bytes, (size_t)ra_utf8_encode(c, bytes));
        } else {
            ra_buf_adds(text, BITS[below(rng, sizeof BITS / sizeof *BITS)]);
        }
    }
    if (below(rng, 40) == 0) {
        for (int n = (int)below(rng, 3000); n > 0; n--) ra_buf_adds(text, n % 3 ? "a" : "b");
    }
}

static const char *check_offsets(const ra_ids *ids, size_t length)
{
    int64_t begin = 0;
    for (int64_t i = 0; i < ids->count; i++) {
        if (ids->begin[i] < begin || ids->end[i] < ids->begin[i] || ids->end[i] > (int64_t)length) return "offsets out of order";
        begin = ids->begin[i];
    }
    return NULL;
}

/* NULL where all is well. `complete`: every byte has a token and nothing is normalised, so that texts come back. */
static const char *use(const ra_tokenizer *t, ra_rng *rng, bool complete)
{
    ra_buf text = {0}, back = {0};
    ra_ids ids = {0};
    const char *why = NULL;
    for (int i = 0; i < 8 && !why; i++) {
        random_text(rng, &text);
        ra_ids_clear(&ids);
        ra_buf_clear(&back);
        bool above;
        bool valid = ra_utf8_valid((const uint8_t *)text.data, text.length, &above) == text.length;
        int flags =
            RA_ENCODE_OFFSETS | (below(rng, 2) ? RA_ENCODE_PLAIN : 0) | (complete || below(rng, 2) ? 0 : RA_ENCODE_ADD_SPECIAL);
        ra_err err = ra_tokenizer_encode(t, text.data, text.length, flags, &ids);
        if (!valid) {
            if (err != RA_ERR_DATA || ids.count || !strstr(ra_error_message(), "byte"))
                why = "bytes that are no UTF-8 were taken";
            continue;
        }
        if (err != RA_OK) {
            if (complete || !*ra_error_message()) why = "a valid text was refused";
            continue;
        }
        why = check_offsets(&ids, text.length);
        for (int64_t k = 0; k < ids.count; k++) {
            if (ids.id[k] < 0 || ids.id[k] >= ra_tokenizer_vocabulary_size(t)) why = "an id outside of the vocabulary";
        }
        if (ra_tokenizer_decode(t, ids.id, ids.count, false, &back) != RA_OK) why = "ids that do not decode";
        /* <x> takes the white space around it along */
        bool same = back.length == text.length && !memcmp(back.data ? back.data : "", text.data, text.length);
        if (complete && !same && !memmem(text.data, text.length, "<x>", 3)) why = "the text does not come back";
    }
    ra_buf_free(&text);
    ra_buf_free(&back);
    ra_ids_free(&ids);
    return why;
}

typedef struct {
    const char *dir;
    ra_buf seed; /* tokenizer.json */
    ra_rng rng;
    const ra_tokenizer *good;
} fuzzer;

/* Writes the mutant and opens it: works, or an error that names the file. */
static const char *open_and_use(fuzzer *f, const char *path, const ra_buf *bytes, const char *name, int64_t *taken)
{
    FILE *file = fopen(path, "wb");
    if (!file) return "the mutant could not be written";
    bool written = fwrite(bytes->data ? bytes->data : "", 1, bytes->length, file) == bytes->length;
    if (fclose(file) != 0 || !written) return "the mutant could not be written";
    ra_tokenizer *t = NULL;
    if (ra_tokenizer_open(path, &t) != RA_OK)
        return t || !strstr(ra_error_message(), name) ? "an error that does not name the file" : NULL;
    ++*taken;
    const char *why = use(t, &f->rng, false);
    ra_tokenizer_close(t);
    return why;
}

static const char *fuzz_json(fuzzer *f, int64_t *taken)
{
    ra_buf bytes = {0};
    if (below(&f->rng, 2)) {
        ra_buf_add(&bytes, f->seed.data, f->seed.length);
    } else {
        ra_buf_adds(&bytes, PIECES);
    }
    if (below(&f->rng, 3) == 0) {
        mutate(&f->rng, &bytes);
    } else {
        json_t *tree = json_loadb(bytes.data, bytes.length, 0, NULL);
        for (int n = 1 + (int)below(&f->rng, 2); n > 0; n--) mutate_tree(&f->rng, tree);
        char *text = json_dumps(tree, 0);
        ra_buf_clear(&bytes);
        ra_buf_adds(&bytes, text);
        free(text);
        json_decref(tree);
    }
    char *path = ra_path_join(f->dir, "mutant.json");
    const char *why = open_and_use(f, path, &bytes, "mutant.json", taken);
    ra_buf_free(&bytes);
    free(path);
    return why;
}

static const char *fuzz_gguf(fuzzer *f, int64_t *taken)
{
    static const char *const PRE[] = {"smollm", "llama-bpe", "qwen2", "default"};
    ra_buf bytes = {0};
    if (below(&f->rng, 2)) {
        tinytok_gguf(&bytes, "gpt2", PRE[below(&f->rng, 4)], true);
    } else {
        tinyspm_gguf(&bytes, &(tinyspm){.dummy_prefix = below(&f->rng, 2)}, true);
    }
    mutate(&f->rng, &bytes);
    char *path = ra_path_join(f->dir, "mutant.gguf");
    const char *why = open_and_use(f, path, &bytes, "mutant.gguf", taken);
    ra_buf_free(&bytes);
    free(path);
    return why;
}

static const char *fuzz_sentencepiece(fuzzer *f, int64_t *taken)
{
    ra_buf bytes = {0}, map = {0};
    if (below(&f->rng, 2)) { /* a charsmap of noise: bounds are all that holds */
        uint32_t units = 256 * (1 + (uint32_t)below(&f->rng, 2)), size = 4 * units;
        ra_buf_add(&map, &size, 4);
        for (uint32_t i = 0; i < units; i++) {
            uint32_t unit = below(&f->rng, 3) ? ra_rng_u32(&f->rng) : (uint32_t)below(&f->rng, units) << 10 | (i & 0x1FF);
            ra_buf_add(&map, &unit, 4);
        }
        ra_buf_add(&map, "a\0 \0fi\0", 8);
    }
    tinyspm_model(&bytes, &(tinyspm){.dummy_prefix = below(&f->rng, 2),
                                     .squeeze = below(&f->rng, 2),
                                     .no_bytes = below(&f->rng, 2),
                                     .map = map.data,
                                     .map_length = (uint32_t)map.length});
    if (below(&f->rng, 4)) mutate(&f->rng, &bytes);
    if (below(&f->rng, 8) == 0) bytes.length = below(&f->rng, bytes.length);
    char *path = ra_path_join(f->dir, "mutant.model");
    const char *why = bytes.length ? open_and_use(f, path, &bytes, "mutant.model", taken) : NULL;
    ra_buf_free(&bytes);
    ra_buf_free(&map);
    free(path);
    return why;
}

static const char *fuzz_tiktoken(fuzzer *f, int64_t *taken)
{
    ra_buf bytes = {0};
    tinytok_tiktoken(&bytes);
    if (below(&f->rng, 8)) mutate(&f->rng, &bytes);
    char *path = ra_path_join(f->dir, "mutant.tiktoken"); /* config.json beside it says of which family */
    const char *why = bytes.length ? open_and_use(f, path, &bytes, "mutant.tiktoken", taken) : NULL;
    ra_buf_free(&bytes);
    free(path);
    return why;
}

static const char *fuzz_text(fuzzer *f, int64_t *taken)
{
    ++*taken;
    return use(f->good, &f->rng, true);
}

int main(void)
{
    static const struct {
        const char *name;
        const char *(*once)(fuzzer *f, int64_t *taken);
    } KINDS[] = {{"tokenizer.json", fuzz_json},
                 {"GGUF", fuzz_gguf},
                 {"SentencePiece", fuzz_sentencepiece},
                 {"tiktoken", fuzz_tiktoken},
                 {"texts", fuzz_text}};
    enum { N_KINDS = sizeof KINDS / sizeof *KINDS };
    const char *given = getenv("FUZZ_SECONDS"), *seed_given = getenv("FUZZ_SEED");
    double share = (given ? strtod(given, NULL) : 2.0) / N_KINDS;
    uint64_t seed = seed_given ? strtoull(seed_given, NULL, 10) : 1;
    ra_log_setup(0, RA_LOG_QUIET);
    char *dir = test_dir_make(),
         *json = tinytok_json(
             &(tinytok){.added = ADDED, .pre_tokenizer = SPLIT, .post_processor = POST, .normalizer = "{\"type\": \"NFC\"}"});
    tinytok_write(dir, &(tinytok){.added = ADDED});
    char *config = ra_path_join(dir, "config.json");
    if (ra_file_write(config, "{\"model_type\": \"llama\"}", 23) != RA_OK) ra_die("%s", ra_error_message());
    free(config);
    ra_tokenizer *good;
    if (ra_tokenizer_open(dir, &good) != RA_OK) ra_die("%s", ra_error_message());
    int failed = 0;
    printf("1..%d\n", N_KINDS);
    for (int k = 0; k < N_KINDS; k++) {
        fuzzer f = {.dir = dir, .rng = ra_rng_make(seed, RA_STREAM_TEST + (uint64_t)k), .good = good};
        ra_buf_adds(&f.seed, json);
        int64_t rounds = 0, taken = 0;
        const char *why = NULL;
        for (double end = seconds_now() + share; !why && seconds_now() < end; rounds++) why = KINDS[k].once(&f, &taken);
        printf("# %s: seed %llu, %lld rounds, %lld accepted\n", KINDS[k].name, (unsigned long long)seed, (long long)rounds,
               (long long)taken);
        if (why) printf("# round %lld: %s (%s)\n", (long long)rounds - 1, why, ra_error_message());
        printf("%sok %d - %s\n", why ? "not " : "", k + 1, KINDS[k].name);
        failed += why != NULL;
        ra_buf_free(&f.seed);
    }
    ra_tokenizer_close(good);
    free(json);
    test_dir_remove(dir);
    return failed != 0;
}
