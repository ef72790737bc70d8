/* vocab.json (token: id, in GPT-2's alphabet) and merges.txt (a pair a line), the older form of byte-level BPE. */
#include "families.h"

#include <realign/file.h>
#include <stdlib.h>
#include <string.h>

static ra_err read_vocabulary(ra_tokenizer *t, const char *path, const json_t *vocab)
{
    const char *token;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)vocab, token, value)
    {
        json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id > RA_TOK_MAX_ID || ra_bpe_has(&t->bpe, (int32_t)id) || !*token) {
            return ra_fail(RA_ERR_FORMAT, "%s: the id of \"%s\" must be a whole number from 0 to %d that no other token has",
                           path, token, RA_TOK_MAX_ID);
        }
        ra_tok_add_byte_level(t, (int32_t)id, token, strlen(token));
    }
    t->size = t->bpe.tokens;
    return t->size ? RA_OK : ra_fail(RA_ERR_FORMAT, "%s: no token in it", path);
}

static ra_err read_merges(ra_tokenizer *t, const char *path)
{
    ra_buf text = {0};
    RA_TRY(ra_file_read(path, &text));
    bool unused;
    ra_err err = RA_OK;
    const char *s = text.data ? text.data : "", *end = s + text.length;
    if (ra_utf8_valid((const uint8_t *)s, text.length, &unused) != text.length) {
        err = ra_fail(RA_ERR_FORMAT, "%s: not UTF-8", path);
    }
    uint32_t rank = 0;
    for (int64_t line = 1; err == RA_OK && s < end; line++) {
        const char *stop = memchr(s, '\n', (size_t)(end - s));
        const char *next = stop ? stop + 1 : end;
        if (!stop) stop = end;
        if (stop > s && stop[-1] == '\r') stop--;
        const char *space = stop > s ? memchr(s, ' ', (size_t)(stop - s)) : NULL;
        bool comment = line == 1 && stop - s >= 8 && !memcmp(s, "#version", 8);
        if (stop > s && !comment) {
            if (!space ||
                !ra_tok_add_byte_level_merge(t, rank++, s, (size_t)(space - s), space + 1, (size_t)(stop - space - 1))) {
                err = ra_fail(RA_ERR_FORMAT, "%s: line %lld must be two tokens of vocab.json whose union is one, too", path,
                              (long long)line);
            }
        }
        s = next;
    }
    ra_buf_free(&text);
    return err;
}

ra_err ra_tok_load_vocab_merges(ra_tokenizer *t, const char *path)
{
    char *dir = ra_tok_dir_of(path), *merges = ra_path_join(dir, "merges.txt");
    json_t *vocab = NULL;
    const ra_family *family;
    ra_err err = ra_json_object_file(dir, "vocab.json", &vocab);
    if (err == RA_OK) err = ra_family_find(path, dir, (int32_t)json_object_size(vocab), &family);
    if (err == RA_OK) err = ra_family_fill_steps(t, path, family);
    if (err == RA_OK) err = read_vocabulary(t, path, vocab);
    if (err == RA_OK) {
        ra_bpe_index(&t->bpe);
        err = read_merges(t, merges);
    }
    if (err == RA_OK) err = ra_family_fill_specials(t, dir, family);
    json_decref(vocab);
    free(dir);
    free(merges);
    return err;
}
