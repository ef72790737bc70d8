/* SentencePiece's tokenizer.model, a protocol buffer (ModelProto of sentencepiece_model.proto). */
#include "protobuf.h"
#include "spm.h"

#include <realign/file.h>
#include <stdlib.h>
#include <string.h>

enum { UNIGRAM = 1, BPE = 2, WORD = 3, CHAR = 4 };

typedef struct {
    ra_spm spm;
    int32_t capacity;
    int model_type;
    bool suffix; /* treat_whitespace_as_suffix */
    const uint8_t *bos, *eos;
    size_t bos_length, eos_length;
} reader;

static bool read_piece(reader *r, ra_proto_field message)
{
    ra_proto p = {message.bytes, message.bytes + message.length, false};
    ra_piece piece = {.text = "", .type = RA_PIECE_NORMAL};
    for (ra_proto_field f; ra_proto_next(&p, &f);) {
        if (f.number == 1 && f.type == RA_PROTO_BYTES) piece.text = (const char *)f.bytes, piece.length = f.length;
        if (f.number == 2 && f.type == RA_PROTO_FIXED32) piece.score = ra_proto_float(&f);
        if (f.number == 3 && f.type == RA_PROTO_VARINT) piece.type = f.value <= 6 ? (int)f.value : 0;
    }
    if (r->spm.n == r->capacity) {
        r->capacity = r->capacity ? 2 * r->capacity : 1024;
        r->spm.piece = ra_realloc(r->spm.piece, (size_t)r->capacity, sizeof *r->spm.piece);
    }
    r->spm.piece[r->spm.n++] = piece;
    return !p.bad;
}

static bool read_trainer(reader *r, ra_proto_field message)
{
    ra_proto p = {message.bytes, message.bytes + message.length, false};
    for (ra_proto_field f; ra_proto_next(&p, &f);) {
        if (f.number == 3 && f.type == RA_PROTO_VARINT) r->model_type = f.value <= 4 ? (int)f.value : 0;
        if (f.number == 24 && f.type == RA_PROTO_VARINT) r->suffix = f.value != 0;
        if (f.number == 35 && f.type == RA_PROTO_VARINT) r->spm.byte_fallback = f.value != 0;
        if (f.number == 46 && f.type == RA_PROTO_BYTES) r->bos = f.bytes, r->bos_length = f.length;
        if (f.number == 47 && f.type == RA_PROTO_BYTES) r->eos = f.bytes, r->eos_length = f.length;
    }
    return !p.bad;
}

static bool read_normaliser(reader *r, ra_proto_field message)
{
    ra_proto p = {message.bytes, message.bytes + message.length, false};
    for (ra_proto_field f; ra_proto_next(&p, &f);) {
        if (f.number == 2 && f.type == RA_PROTO_BYTES) r->spm.map = f.bytes, r->spm.map_length = f.length;
        if (f.number == 3 && f.type == RA_PROTO_VARINT) r->spm.dummy_prefix = f.value != 0;
        if (f.number == 4 && f.type == RA_PROTO_VARINT) r->spm.squeeze = f.value != 0;
        if (f.number == 5 && f.type == RA_PROTO_VARINT) r->spm.escape = f.value != 0;
    }
    return !p.bad;
}

static ra_err read_model(reader *r, const char *path, const ra_map *map)
{
    ra_proto p = {map->data, map->data + map->size, false};
    bool good = true;
    for (ra_proto_field f; good && ra_proto_next(&p, &f);) {
        if (f.type != RA_PROTO_BYTES) continue;
        if (f.number == 1 && r->spm.n == RA_TOK_MAX_ID) good = false;
        if (f.number == 1 && good) good = read_piece(r, f);
        if (f.number == 2) good = read_trainer(r, f);
        if (f.number == 3) good = read_normaliser(r, f);
    }
    if (!good || p.bad || !r->spm.n) {
        return ra_fail(RA_ERR_FORMAT, "%s: not a SentencePiece model, or damaged behind piece %d (byte %zu)", path, r->spm.n,
                       (size_t)(p.at - map->data));
    }
    static const char *const TYPES[] = {"unknown", "Unigram", "BPE", "Word", "Char"};
    if (r->model_type != BPE) {
        return ra_fail(RA_ERR_UNSUPPORTED, "%s: a SentencePiece model of the type %s; BPE is what can be read", path,
                       TYPES[r->model_type]);
    }
    if (r->suffix) return ra_fail(RA_ERR_UNSUPPORTED, "%s: trainer_spec.treat_whitespace_as_suffix is set", path);
    return RA_OK;
}

static int32_t find_piece(const reader *r, const uint8_t *text, size_t n, int type)
{
    for (int32_t id = 0; id < r->spm.n; id++) {
        const ra_piece *p = &r->spm.piece[id];
        if (p->type == type && p->length == n && !memcmp(p->text, text, n)) return id;
    }
    return -1;
}

/* Without a tokenizer_config.json, control pieces and the unknown one are the special tokens. */
static void add_specials(ra_tokenizer *t, const reader *r)
{
    for (int32_t id = 0; id < r->spm.n; id++) {
        const ra_piece *p = &r->spm.piece[id];
        if (p->type != RA_PIECE_CONTROL && p->type != RA_PIECE_UNKNOWN) continue;
        ra_tok_add(t, (ra_added){.id = id, .text = (char *)(uintptr_t)p->text, .length = p->length, .special = true});
    }
}

/* added_tokens_decoder: what is not special and a user-defined piece is the vocabulary's own matter. */
static bool own_matter(const void *context, const ra_added *a)
{
    const reader *r = context;
    return a->id < r->spm.n && !a->special && r->spm.piece[a->id].type == RA_PIECE_USER_DEFINED;
}

static ra_err fill(ra_tokenizer *t, reader *r, const char *path, const char *dir, const ra_map *map)
{
    json_t *config;
    RA_TRY(read_model(r, path, map));
    t->bos = find_piece(r, r->bos, r->bos_length, RA_PIECE_CONTROL);
    t->eos = find_piece(r, r->eos, r->eos_length, RA_PIECE_CONTROL);
    RA_TRY(ra_json_object_file(dir, "tokenizer_config.json", &config));
    r->spm.prefix_once = !ra_json_flag(config, "legacy", true);
    r->spm.dummy_prefix = r->spm.dummy_prefix && ra_json_flag(config, "add_prefix_space", true);
    json_decref(config);
    bool listed;
    RA_TRY(ra_tok_load_added_decoder(t, dir, own_matter, r, &listed));
    if (!listed) add_specials(t, r);
    RA_TRY(ra_spm_fill(t, path, &r->spm));
    RA_TRY(ra_tok_load_config(t, dir));
    return ra_tok_load_frame(t, dir, true);
}

ra_err ra_tok_load_sentencepiece(ra_tokenizer *t, const char *path)
{
    ra_map map;
    RA_TRY(ra_map_open(path, &map));
    reader r = {.spm = {.unknown = -1, .dummy_prefix = true, .squeeze = true, .escape = true},
                .model_type = UNIGRAM,
                .bos = (const uint8_t *)"<s>",
                .bos_length = 3,
                .eos = (const uint8_t *)"</s>",
                .eos_length = 4};
    char *dir = ra_tok_dir_of(path);
    ra_err err = fill(t, &r, path, dir, &map);
    free(dir);
    free(r.spm.piece);
    ra_map_close(&map);
    return err;
}
