/* A GGUF's "llama" vocabulary as SentencePiece's tokenizer.model: a protocol buffer of pieces, trainer and normaliser. */
#include "hf_tokenizer.h"

#include <realign/file.h>
#include <realign/hfdir.h>
#include <realign/mem.h>
#include <stdlib.h>
#include <string.h>

static void put_varint(ra_buf *b, uint64_t value)
{
    for (; value >= 0x80; value >>= 7) ra_buf_add(b, &(uint8_t){(uint8_t)(value | 0x80)}, 1);
    ra_buf_add(b, &(uint8_t){(uint8_t)value}, 1);
}

static void put_number(ra_buf *b, int field, uint64_t value)
{
    put_varint(b, (uint64_t)field << 3);
    put_varint(b, value);
}

static void put_bytes(ra_buf *b, int field, const void *bytes, size_t n)
{
    put_varint(b, (uint64_t)field << 3 | 2);
    put_varint(b, n);
    ra_buf_add(b, bytes, n);
}

static int64_t number_or(const ra_gguf *g, const char *key, int64_t otherwise)
{
    int64_t value;
    return ra_gguf_i64(g, key, &value) ? value : otherwise;
}

/* llama.cpp's converter writes the spaces of user-defined pieces as spaces; SentencePiece writes a mark. */
static void put_text(ra_buf *message, ra_str text, bool escape)
{
    ra_buf marked = {0};
    for (size_t i = 0; i < text.length; i++) {
        if (escape && text.data[i] == ' ') {
            ra_buf_adds(&marked, "\xE2\x96\x81");
        } else {
            ra_buf_add(&marked, text.data + i, 1);
        }
    }
    put_bytes(message, 1, marked.data ? marked.data : "", marked.length);
    ra_buf_free(&marked);
}

static void put_pieces(ra_buf *out, const ra_hf_vocabulary *v, const double *score, int64_t unknown, bool *bytes)
{
    ra_buf message = {0};
    for (int64_t id = 0; id < v->tokens; id++) {
        int64_t type = id == unknown ? RA_GGUF_UNKNOWN : v->type[id];
        float value = (float)score[id];
        ra_buf_clear(&message);
        put_text(&message, v->token[id], type == RA_GGUF_USER_DEFINED);
        put_varint(&message, 2 << 3 | 5);
        ra_buf_add(&message, &value, 4);
        if (type != RA_GGUF_NORMAL) put_number(&message, 3, (uint64_t)type);
        put_bytes(out, 1, message.data, message.length);
        *bytes |= type == RA_GGUF_BYTE;
    }
    ra_buf_free(&message);
}

static void put_id(ra_buf *message, const ra_hf_vocabulary *v, int id_field, int piece_field, int64_t id)
{
    if (id < 0 || id >= v->tokens) return;
    put_number(message, id_field, (uint64_t)id);
    put_bytes(message, piece_field, v->token[id].data, v->token[id].length);
}

static ra_err write_model(const ra_hf_vocabulary *v, const double *score, const char *out_dir)
{
    ra_buf out = {0}, message = {0};
    bool bytes = false;
    int64_t unknown = number_or(v->g, "tokenizer.ggml.unknown_token_id", 0);
    for (int64_t id = 0; id < v->tokens; id++) {
        if (v->type[id] == RA_GGUF_UNKNOWN) unknown = id;
    }
    put_pieces(&out, v, score, unknown, &bytes);
    put_number(&message, 3, 2); /* BPE */
    put_number(&message, 4, (uint64_t)v->tokens);
    put_number(&message, 35, bytes);
    put_id(&message, v, 40, 45, unknown);
    put_id(&message, v, 41, 46, number_or(v->g, "tokenizer.ggml.bos_token_id", -1));
    put_id(&message, v, 42, 47, number_or(v->g, "tokenizer.ggml.eos_token_id", -1));
    put_bytes(&out, 2, message.data, message.length);
    ra_buf_clear(&message);
    put_bytes(&message, 1, "identity", 8);
    put_number(&message, 3, number_or(v->g, "tokenizer.ggml.add_space_prefix", 1) != 0);
    put_number(&message, 4, 0); /* remove_extra_whitespaces */
    put_number(&message, 5, 1); /* escape_whitespaces */
    put_bytes(&out, 3, message.data, message.length);
    char *path = ra_path_join(out_dir, "tokenizer.model");
    ra_err err = ra_file_write(path, out.data, out.length);
    free(path);
    ra_buf_free(&message);
    ra_buf_free(&out);
    return err;
}

static ra_err write_config(const ra_hf_vocabulary *v, const ra_modelfile *model, const char *out_dir)
{
    ra_str arch = {"", 0};
    ra_gguf_text(v->g, "general.architecture", &arch);
    bool gemma = arch.length >= 5 && !memcmp(arch.data, "gemma", 5);
    json_t *config = json_pack("{s:b, s:b, s:s}", "add_bos_token", number_or(v->g, "tokenizer.ggml.add_bos_token", 1) != 0,
                               "add_eos_token", number_or(v->g, "tokenizer.ggml.add_eos_token", 0) != 0, "tokenizer_class",
                               gemma ? "GemmaTokenizer" : "LlamaTokenizer");
    return ra_hf_write_tokenizer_config(v, model, false, config, out_dir);
}

ra_err ra_hf_write_sentencepiece(const ra_modelfile *model, const char *out_dir)
{
    ra_hf_vocabulary v = {.path = ra_modelfile_path(model), .g = ra_modelfile_gguf(model)};
    double *score = NULL;
    int64_t types = 0, scores = 0;
    bool there = ra_gguf_text_array(v.g, "tokenizer.ggml.tokens", &v.token, &v.tokens) &&
                 ra_gguf_i64_array(v.g, "tokenizer.ggml.token_type", &v.type, &types) &&
                 ra_gguf_f64_array(v.g, "tokenizer.ggml.scores", &score, &scores);
    ra_err err = RA_OK;
    if (!there || types != v.tokens || scores != v.tokens) {
        err =
            ra_fail(RA_ERR_FORMAT,
                    "%s: tokenizer.ggml.tokens, tokenizer.ggml.scores or tokenizer.ggml.token_type is missing, or their lengths "
                    "differ",
                    v.path);
    }
    if (err == RA_OK) err = write_model(&v, score, out_dir);
    if (err == RA_OK) err = write_config(&v, model, out_dir);
    free(v.token);
    free(v.type);
    free(score);
    return err;
}
