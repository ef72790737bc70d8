#include "families.h"

#include <realign/file.h>
#include <stdlib.h>
#include <string.h>

struct ra_family {
    const char *name;
    const char *classes[6]; /* tokenizer_class */
    const char *types[6];   /* model_type */
    int32_t tokens;         /* of the vocabulary by which it is known; 0: none */
    const char *pattern;
    bool nfc;
    bool bos; /* in front of every text, unless tokenizer_config.json says otherwise */
    /* Special tokens behind the vocabulary where no list is given; NULL: none. %d runs on from 0. */
    const char *const *specials;
    int n_specials, total;
    const char *filler;
    int filler_first;
    const char *bos_token, *eos_token;
};

/* As Llama 3.1 and 3.2 name them (those of 3.0 have other reserved ones). */
static const char *const LLAMA3[] = {"<|begin_of_text|>",
                                     "<|end_of_text|>",
                                     "<|reserved_special_token_0|>",
                                     "<|reserved_special_token_1|>",
                                     "<|finetune_right_pad_id|>",
                                     "<|reserved_special_token_2|>",
                                     "<|start_header_id|>",
                                     "<|end_header_id|>",
                                     "<|eom_id|>",
                                     "<|eot_id|>",
                                     "<|python_tag|>"};
static const char *const QWEN[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
static const char *const GPT2[] = {"<|endoftext|>"};

static const ra_family FAMILIES[] = {
    {"Llama 3",
     {"PreTrainedTokenizerFast", "TokenizersBackend"},
     {"llama", "mllama"},
     128000,
     RA_PATTERN_LLAMA3,
     false,
     true,
     LLAMA3,
     11,
     256,
     "<|reserved_special_token_%d|>",
     3,
     "<|begin_of_text|>",
     "<|end_of_text|>"},
    {"Qwen",
     {"QWenTokenizer", "Qwen2Tokenizer", "Qwen2TokenizerFast"},
     {"qwen", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe"},
     151643,
     RA_PATTERN_QWEN2,
     true,
     false,
     QWEN,
     3,
     208,
     "<|extra_%d|>",
     0,
     NULL,
     "<|endoftext|>"},
    {"GPT-2",
     {"GPT2Tokenizer", "GPT2TokenizerFast"},
     {"gpt2"},
     50257,
     RA_PATTERN_GPT2,
     false,
     false,
     GPT2,
     1,
     1,
     NULL,
     0,
     "<|endoftext|>",
     "<|endoftext|>"},
};
enum { N_FAMILIES = sizeof FAMILIES / sizeof *FAMILIES };

static bool in_list(const char *const list[6], const char *name)
{
    for (int i = 0; i < 6 && list[i] && name; i++) {
        if (!strcmp(list[i], name)) return true;
    }
    return false;
}

ra_err ra_family_find(const char *path, const char *dir, int32_t tokens, const ra_family **out)
{
    json_t *config = NULL, *model = NULL;
    ra_err err = ra_json_object_file(dir, "tokenizer_config.json", &config);
    if (err == RA_OK) err = ra_json_object_file(dir, "config.json", &model);
    const char *class = ra_json_text(config, "tokenizer_class"), *type = ra_json_text(model, "model_type");
    *out = NULL;
    for (int by = 0; by < 3 && !*out; by++) { /* the model's own word, the class's, the count's */
        for (int i = 0; i < N_FAMILIES; i++) {
            const ra_family *f = &FAMILIES[i];
            if (by == 0 ? in_list(f->types, type) : by == 1 ? in_list(f->classes, class) : f->tokens == tokens) *out = f;
        }
    }
    if (err == RA_OK && !*out) {
        err = ra_fail(RA_ERR_UNSUPPORTED,
                      "%s: a vocabulary of %d tokens without word of what splits its texts (model_type of config.json: %s, "
                      "tokenizer_class of tokenizer_config.json: %s); known: Llama 3 (llama; 128000 tokens), Qwen (qwen2; "
                      "Qwen2Tokenizer; 151643 tokens), GPT-2 (gpt2; GPT2Tokenizer; 50257 tokens)",
                      path, tokens, type ? type : "missing", class ? class : "missing");
    }
    json_decref(config);
    json_decref(model);
    return err;
}

ra_err ra_family_fill_steps(ra_tokenizer *t, const char *path, const ra_family *family)
{
    ra_normal_step *form;
    ra_decode_step *decode;
    t->byte_level = true;
    if (family->nfc) {
        RA_TRY(ra_normal_add(&t->normal, path, RA_NORMAL_FORM, &form));
        form->form = RA_NFC;
    }
    RA_TRY(ra_pretok_add_split(&t->pretok, path, family->pattern, false));
    return ra_decoder_add(&t->decoder, path, RA_DECODE_BYTE_LEVEL, &decode);
}

static void add_special(ra_tokenizer *t, int32_t id, const char *text)
{
    ra_tok_add(t, (ra_added){.id = id, .text = (char *)(uintptr_t)text, .length = strlen(text), .special = true});
}

ra_err ra_family_fill_specials(ra_tokenizer *t, const char *dir, const ra_family *family)
{
    bool listed;
    RA_TRY(ra_tok_load_added_decoder(t, dir, NULL, NULL, &listed));
    int32_t first = t->bpe.tokens;
    for (int i = 0; i < family->total && !listed; i++) {
        char *filler = i < family->n_specials ? NULL : ra_format(family->filler, i - family->n_specials + family->filler_first);
        add_special(t, first + i, filler ? filler : family->specials[i]);
        free(filler);
    }
    if (family->bos_token) t->bos = ra_tokenizer_id(t, family->bos_token);
    if (family->eos_token) t->eos = ra_tokenizer_id(t, family->eos_token);
    RA_TRY(ra_tok_load_config(t, dir));
    return ra_tok_load_frame(t, dir, family->bos);
}
