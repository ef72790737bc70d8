#include "tinytok.h"
#include "modelmake.h"

#include <jansson.h>
#include <realign/error.h>
#include <realign/file.h>
#include <realign/mem.h>
#include <stdlib.h>
#include <string.h>

static const char *const MERGES[][2] = {
    {"h", "e"},        {"l", "l"},  {"he", "ll"},   {"hell", "o"}, {" ", "hello"}, {" ", "w"}, {"o", "r"},
    {" w", "or"},      {"l", "d"},  {" wor", "ld"}, {"\n", "\n"},  {"1", "2"},     {"a", "b"}, {"b", "a"},
    {"ab", "ab"},      {"a", "a"},  {"ba", "ba"},   {"aa", "b"},   {"abab", "ba"}, {"b", "b"}, {"\xC3", "\xA9"},
    {" ", "\xC3\xA9"}, {".", "\n"}, {"\n", "h"},    {"'", "s"},
};

int tinytok_merges(void)
{
    return (int)(sizeof MERGES / sizeof *MERGES);
}

void tinytok_merge(int k, const char **left, const char **right)
{
    *left = MERGES[k][0], *right = MERGES[k][1];
}

/* bytes_to_unicode() of GPT-2. */
static unsigned code_of(int byte)
{
    unsigned next = 256;
    for (int b = 0; b < 256; b++) {
        bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
        unsigned code = printable ? (unsigned)b : next++;
        if (b == byte) return code;
    }
    return 0;
}

char *tinytok_alphabet(const void *bytes, size_t n)
{
    ra_buf out = {0};
    ra_buf_adds(&out, "");
    for (size_t i = 0; i < n; i++) {
        unsigned c = code_of(((const unsigned char *)bytes)[i]);
        char two[2] = {(char)(0xC0 | c >> 6), (char)(0x80 | (c & 63))}, one = (char)c;
        if (c < 0x80) {
            ra_buf_add(&out, &one, 1);
        } else {
            ra_buf_add(&out, two, 2);
        }
    }
    return out.data;
}

static const char *or_else(const char *text, const char *otherwise)
{
    return text ? text : otherwise;
}

char *tinytok_json(const tinytok *s)
{
    json_t *vocab = json_object(), *merges = json_array();
    for (int b = 0; b < 256; b++) {
        unsigned char byte = (unsigned char)b;
        char *token = tinytok_alphabet(&byte, 1);
        if (!s->missing_byte || b != s->missing_byte) json_object_set_new(vocab, token, json_integer(b));
        free(token);
    }
    for (int k = 0; k < tinytok_merges(); k++) {
        char *left = tinytok_alphabet(MERGES[k][0], strlen(MERGES[k][0])),
             *right = tinytok_alphabet(MERGES[k][1], strlen(MERGES[k][1]));
        char *both = ra_format("%s%s", left, right), *spaced = ra_format("%s %s", left, right);
        json_object_set_new(vocab, both, json_integer(256 + k));
        json_array_append_new(merges, s->merge_pairs ? json_pack("[ss]", left, right) : json_string(spaced));
        free(left), free(right), free(both), free(spaced);
    }
    char *vocab_text = json_dumps(vocab, 0), *merges_text = json_dumps(merges, 0);
    char *text = ra_format(
        "{\"version\": \"1.0\", \"added_tokens\": %s, \"normalizer\": %s, \"pre_tokenizer\": %s, \"post_processor\": %s, "
        "\"decoder\": %s, \"model\": {\"type\": \"%s\", %s \"vocab\": %s, \"merges\": %s}}",
        or_else(s->added, "[]"), or_else(s->normalizer, "null"),
        or_else(s->pre_tokenizer, "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": true}"),
        or_else(s->post_processor, "null"), or_else(s->decoder, "{\"type\": \"ByteLevel\"}"), or_else(s->type, "BPE"),
        or_else(s->model_extra, ""), vocab_text, merges_text);
    free(vocab_text), free(merges_text);
    json_decref(vocab), json_decref(merges);
    return text;
}

static void write_file(const char *dir, const char *name, const char *text)
{
    char *path = ra_path_join(dir, name);
    if (ra_file_write(path, text, strlen(text)) != RA_OK) ra_die("%s", ra_error_message());
    free(path);
}

void tinytok_write(const char *dir, const tinytok *s)
{
    char *text = tinytok_json(s);
    write_file(dir, "tokenizer.json", text);
    free(text);
    json_t *config = json_object();
    if (s->chat_template) json_object_set_new(config, "chat_template", json_string(s->chat_template));
    if (s->bos) json_object_set_new(config, "bos_token", json_string(s->bos));
    if (s->eos) json_object_set_new(config, "eos_token", json_pack("{ss}", "content", s->eos));
    text = json_dumps(config, 0);
    write_file(dir, "tokenizer_config.json", text);
    free(text);
    json_decref(config);
}

static void add_u32(ra_buf *b, uint32_t value)
{
    ra_buf_add(b, &value, 4);
}

static void add_u64(ra_buf *b, uint64_t value)
{
    ra_buf_add(b, &value, 8);
}

static void add_text(ra_buf *b, char *text)
{
    add_u64(b, strlen(text));
    ra_buf_adds(b, text);
    free(text);
}

enum { GGUF_I32 = 5, GGUF_STRING = 8, GGUF_ARRAY = 9 };

void tinytok_gguf(ra_buf *out, const char *model, const char *pre, bool merges)
{
    static const float zeros[6 * 8];
    gguf_maker m = {0};
    gguf_tiny_metadata(&m, "llama");
    gguf_text(&m, "tokenizer.ggml.model", model);
    if (pre) gguf_text(&m, "tokenizer.ggml.pre", pre);
    gguf_u32(&m, "tokenizer.ggml.bos_token_id", 281);
    uint64_t n_merges = (uint64_t)tinytok_merges(), n = 256 + n_merges + 2;
    ra_buf tokens = {0}, types = {0}, pairs = {0};
    add_u32(&tokens, GGUF_STRING), add_u64(&tokens, n);
    add_u32(&types, GGUF_I32), add_u64(&types, n);
    add_u32(&pairs, GGUF_STRING), add_u64(&pairs, n_merges);
    for (uint64_t i = 0; i < n; i++) add_u32(&types, i == n - 2 ? 3 : i == n - 1 ? 4 : 1);
    for (int b = 0; b < 256; b++) {
        unsigned char byte = (unsigned char)b;
        add_text(&tokens, tinytok_alphabet(&byte, 1));
    }
    for (int k = 0; k < tinytok_merges(); k++) {
        char *left = tinytok_alphabet(MERGES[k][0], strlen(MERGES[k][0])),
             *right = tinytok_alphabet(MERGES[k][1], strlen(MERGES[k][1]));
        add_text(&tokens, ra_format("%s%s", left, right));
        add_text(&pairs, ra_format("%s %s", left, right));
        free(left), free(right);
    }
    add_text(&tokens, ra_strdup("<s>"));
    add_text(&tokens, ra_strdup("<user>"));
    gguf_raw(&m, "tokenizer.ggml.tokens", GGUF_ARRAY, tokens.data, tokens.length);
    gguf_raw(&m, "tokenizer.ggml.token_type", GGUF_ARRAY, types.data, types.length);
    if (merges) gguf_raw(&m, "tokenizer.ggml.merges", GGUF_ARRAY, pairs.data, pairs.length);
    gguf_tensor(&m, "token_embd.weight", 0, 2, (uint64_t[]){8, 6}, zeros, sizeof zeros);
    gguf_end(&m, 3, out);
    ra_buf_free(&tokens);
    ra_buf_free(&types);
    ra_buf_free(&pairs);
}

static void add64(ra_buf *out, const char *token, size_t n, int rank)
{
    static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *s = (const unsigned char *)token;
    for (size_t i = 0; i < n; i += 3) {
        uint32_t bits = (uint32_t)s[i] << 16 | (i + 1 < n ? (uint32_t)s[i + 1] << 8 : 0) | (i + 2 < n ? s[i + 2] : 0);
        for (size_t k = 0; k < 4; k++) ra_buf_add(out, i + k > n ? "=" : &DIGITS[bits >> (18 - 6 * k) & 63], 1);
    }
    ra_buf_addf(out, " %d\n", rank);
}

void tinytok_tiktoken(ra_buf *out)
{
    for (int b = 0; b < 256; b++) add64(out, (char[]){(char)b}, 1, b);
    for (int k = 0; k < tinytok_merges(); k++) {
        char *both = ra_format("%s%s", MERGES[k][0], MERGES[k][1]);
        add64(out, both, strlen(both), 256 + k);
        free(both);
    }
}
