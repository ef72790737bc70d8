#include "tinyspm.h"
#include "modelmake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MARK "\xE2\x96\x81"

/* Their scores go down from 0 by one; two pieces share one. "zq" is unused; "w" stands only in longer pieces. */
static const char *const PIECES[] = {MARK,         "h",  "e",   "l",  "o",  "a",      "b",       "\xC3\xA9", "z",
                                     "q",          "he", "ll",  "lo", "ab", MARK "h", MARK "he", "llo",      "hello",
                                     MARK "hello", "zq", "zqa", "wa", "ba", "aba",    "A",       "fi"};
enum { N_PIECES = sizeof PIECES / sizeof *PIECES, NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE };

typedef struct {
    char text[32];
    float score;
    int type;
} piece;

static int32_t make(const tinyspm *s, piece *out)
{
    int32_t n = 0;
    out[n++] = (piece){"<unk>", 0, UNKNOWN};
    out[n++] = (piece){"<s>", 0, CONTROL};
    out[n++] = (piece){"</s>", 0, CONTROL};
    out[n++] = (piece){"<t>", 0, USER_DEFINED};
    out[n++] = (piece){MARK MARK, 0, USER_DEFINED};
    for (int b = 0; b < 256 && !s->no_bytes; b++) {
        out[n] = (piece){"", 0, BYTE};
        snprintf(out[n++].text, sizeof out->text, "<0x%02X>", (unsigned)b);
    }
    for (int i = 0; i < N_PIECES; i++) {
        bool shared = !strcmp(PIECES[i], "ba");
        out[n] = (piece){"", -(float)i, !strcmp(PIECES[i], "zq") ? UNUSED : NORMAL};
        if (shared) out[n].score = -13; /* as "ab" */
        snprintf(out[n++].text, sizeof out->text, "%s", PIECES[i]);
    }
    for (int i = 0; i < s->unknown_pieces; i++) {
        out[n] = (piece){"", 0, UNKNOWN};
        snprintf(out[n++].text, sizeof out->text, "<unk%d>", i);
    }
    return n;
}
enum { MOST = 5 + 256 + N_PIECES + 8 };

int32_t tinyspm_id(const tinyspm *spec, const char *text)
{
    piece all[MOST];
    int32_t n = make(spec, all);
    for (int32_t i = 0; i < n; i++) {
        if (!strcmp(all[i].text, text)) return i;
    }
    return -1;
}

static void varint(ra_buf *b, uint64_t value)
{
    for (; value >= 0x80; value >>= 7) ra_buf_add(b, &(uint8_t){(uint8_t)(value | 0x80)}, 1);
    ra_buf_add(b, &(uint8_t){(uint8_t)value}, 1);
}

static void number(ra_buf *b, int field, uint64_t value)
{
    varint(b, (uint64_t)field << 3);
    varint(b, value);
}

static void bytes(ra_buf *b, int field, const void *data, size_t n)
{
    varint(b, (uint64_t)field << 3 | 2);
    varint(b, n);
    ra_buf_add(b, data, n);
}

void tinyspm_model(ra_buf *out, const tinyspm *s)
{
    piece all[MOST];
    int32_t n = make(s, all);
    ra_buf message = {0};
    for (int32_t i = 0; i < n; i++) {
        ra_buf_clear(&message);
        bytes(&message, 1, all[i].text, strlen(all[i].text));
        varint(&message, 2 << 3 | 5);
        ra_buf_add(&message, &all[i].score, 4);
        if (all[i].type != NORMAL) number(&message, 3, (uint64_t)all[i].type);
        bytes(out, 1, message.data, message.length);
    }
    ra_buf_clear(&message);
    number(&message, 3, (uint64_t)(s->model_type ? s->model_type : 2));
    number(&message, 24, s->suffix);
    number(&message, 35, !s->no_bytes);
    bytes(out, 2, message.data, message.length);
    ra_buf_clear(&message);
    bytes(&message, 1, "test", 4);
    bytes(&message, 2, s->map ? s->map : "", s->map ? s->map_length : 0);
    number(&message, 3, s->dummy_prefix);
    number(&message, 4, s->squeeze);
    bytes(out, 3, message.data, message.length);
    ra_buf_free(&message);
}

static void add_u32(ra_buf *b, uint32_t value)
{
    ra_buf_add(b, &value, 4);
}

static void add_u64(ra_buf *b, uint64_t value)
{
    ra_buf_add(b, &value, 8);
}

enum { GGUF_I32 = 5, GGUF_F32 = 6, GGUF_STRING = 8, GGUF_ARRAY = 9 };

void tinyspm_gguf(ra_buf *out, const tinyspm *s, bool scores)
{
    static const float zeros[6 * 8];
    piece all[MOST];
    int32_t n = make(s, all);
    gguf_maker m = {0};
    gguf_tiny_metadata(&m, "llama");
    gguf_text(&m, "tokenizer.ggml.model", "llama");
    gguf_u32(&m, "tokenizer.ggml.bos_token_id", 1);
    gguf_u32(&m, "tokenizer.ggml.eos_token_id", 2);
    gguf_raw(&m, "tokenizer.ggml.add_space_prefix", 7, &(uint8_t){s->dummy_prefix}, 1);
    ra_buf tokens = {0}, types = {0}, marks = {0};
    add_u32(&tokens, GGUF_STRING), add_u64(&tokens, (uint64_t)n);
    add_u32(&types, GGUF_I32), add_u64(&types, (uint64_t)n);
    add_u32(&marks, GGUF_F32), add_u64(&marks, (uint64_t)n);
    for (int32_t i = 0; i < n; i++) {
        const char *text = !strcmp(all[i].text, MARK MARK) ? "  " : all[i].text; /* as llama.cpp's converter writes it */
        add_u64(&tokens, strlen(text));
        ra_buf_adds(&tokens, text);
        add_u32(&types, (uint32_t)all[i].type);
        ra_buf_add(&marks, &all[i].score, 4);
    }
    gguf_raw(&m, "tokenizer.ggml.tokens", GGUF_ARRAY, tokens.data, tokens.length);
    gguf_raw(&m, "tokenizer.ggml.token_type", GGUF_ARRAY, types.data, types.length);
    if (scores) gguf_raw(&m, "tokenizer.ggml.scores", GGUF_ARRAY, marks.data, marks.length);
    gguf_tensor(&m, "token_embd.weight", 0, 2, (uint64_t[]){8, 6}, zeros, sizeof zeros);
    gguf_end(&m, 3, out);
    ra_buf_free(&tokens);
    ra_buf_free(&types);
    ra_buf_free(&marks);
}
