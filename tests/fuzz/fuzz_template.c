/* Seeded changes of known Jinja texts: another spelling (white space in tags, comments, quotes, escapes) is the same template, another letter is none, and
 * anything at all neither crashes nor reads beyond its end. Meant for SAN=1. FUZZ_SECONDS (2) and FUZZ_SEED (1) change the effort.
 * That a recognised text renders as the original is compared with Jinja itself by tests/tools/template_vs_jinja.py. */
#include "../../src/text/template_impl.h"
#include <realign/rng.h>
#include <support/support.h>

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ALTERNATES                                                                                                         \
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate " \
    "user/assistant/user/assistant/...') }}{% endif %}"
#define GENERATE(text) "{% if add_generation_prompt %}{{ '" text "' }}{% endif %}"

static const struct {
    const char *text, *row;
} SEEDS[] = {
    {"{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% "
     "endfor "
     "%}" GENERATE("<|im_start|>assistant\\n"),
     "chatml"},
    {"{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for "
     "message "
     "in messages %}" ALTERNATES
     "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ "
     "'<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}" GENERATE(
         "<start_of_turn>model\\n"),
     "gemma2"},
    {"{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
     "message['role'] + "
     "'<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token "
     "+ content "
     "%}{% endif %}{{ content }}{% endfor %}" GENERATE("<|start_header_id|>assistant<|end_header_id|>\\n\\n"),
     "llama3"},
    {"{{ bos_token }}{% for message in messages %}" ALTERNATES
     "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' "
     "%}{{ "
     "message['content'] + eos_token}}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif "
     "%}{% endfor "
     "%}",
     "mistral"},
};
enum { N_SEEDS = sizeof SEEDS / sizeof *SEEDS };

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static size_t below(ra_rng *rng, size_t n)
{
    return (size_t)ra_rng_below(rng, n);
}

/* A copy on the heap of just its size, so that a read beyond the end is seen. */
static const ra_template_row *recognise(const ra_buf *text)
{
    char *copy = malloc(text->length + 1), *system;
    if (!copy) abort();
    memcpy(copy, text->length ? text->data : "", text->length);
    copy[text->length] = '\0';
    uint64_t fingerprint;
    const ra_template_row *row = ra_template_recognise(copy, &fingerprint, &system);
    ra_template_nearest(copy);
    free(system);
    free(copy);
    return row;
}

static void add_blanks(ra_rng *rng, ra_buf *out)
{
    static const char *const BLANKS[] = {"", "", " ", "\n", "\t ", "\r\n  "};
    ra_buf_adds(out, BLANKS[below(rng, sizeof BLANKS / sizeof *BLANKS)]);
}

/* The literal at p, in other words; returns what follows it. */
static const char *respell_literal(ra_rng *rng, const char *p, ra_buf *out)
{
    const char *quote = below(rng, 2) ? "'" : "\"";
    ra_buf_adds(out, quote);
    for (p++; *p != '\''; p++) {
        size_t how = below(rng, 12);
        if (*p == '\\') {
            ra_buf_add(out, p++, 1);
            ra_buf_add(out, p, 1);
        } else if (how < 3) {
            ra_buf_addf(out, how == 0 ? "\\x%02x" : how == 1 ? "\\u%04x" : "\\U%08x", (unsigned)*p);
        } else {
            ra_buf_add(out, p, 1);
        }
    }
    ra_buf_adds(out, quote);
    return p + 1;
}

/* The same text in another spelling. The seeds have nothing between their tags. */
static void respell(ra_rng *rng, const char *p, ra_buf *out)
{
    while (*p) {
        bool block = p[1] == '%';
        if (block && below(rng, 4) == 0) ra_buf_adds(out, "{#- }} {% ' -#}");
        ra_buf_add(out, p, 2);
        ra_buf_adds(out, below(rng, 3) ? "" : "-");
        for (p += 2; !((*p == '%' || *p == '}') && p[1] == '}');) {
            if (*p == '\'') {
                p = respell_literal(rng, p, out);
            } else if (isalnum((unsigned char)*p) || *p == '_') {
                while (isalnum((unsigned char)*p) || *p == '_') ra_buf_add(out, p++, 1);
                if (*p == '[' && p[1] == '\'' && below(rng, 2)) {
                    ra_buf_adds(out, ".");
                    p += 2;
                    while (*p != '\'') ra_buf_add(out, p++, 1);
                    p += 2;
                }
            } else if (*p == '=' || *p == '!') { /* of two characters, mostly */
                size_t n = p[1] == '=' ? 2 : 1;
                ra_buf_add(out, p, n);
                p += n;
            } else {
                ra_buf_add(out, p++, 1);
            }
            add_blanks(rng, out);
        }
        ra_buf_adds(out, below(rng, 3) ? "" : " -");
        ra_buf_add(out, p, 2);
        if (block && below(rng, 3) == 0) ra_buf_adds(out, "\n");
        p += 2;
    }
}

static const char *fuzz_spelling(ra_rng *rng, ra_buf *text)
{
    size_t i = below(rng, N_SEEDS);
    respell(rng, SEEDS[i].text, text);
    const ra_template_row *row = recognise(text);
    return row && !strcmp(row->name, SEEDS[i].row) ? NULL : "another spelling is not known";
}

/* One letter or digit is another, but for the letter of an escape. */
static const char *fuzz_letter(ra_rng *rng, ra_buf *text)
{
    ra_buf_adds(text, SEEDS[below(rng, N_SEEDS)].text);
    size_t at;
    do at = below(rng, text->length);
    while (!isalnum((unsigned char)text->data[at]) || text->data[at - 1] == '\\');
    char old = text->data[at];
    do text->data[at] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"[below(rng, 63)];
    while (text->data[at] == old);
    return recognise(text) ? "another letter is the same template" : NULL;
}

static const char *fuzz_bytes(ra_rng *rng, ra_buf *text)
{
    static const char *const WORDS[] = {"{%",  "%}",    "{{",    "}}", "{#", "#}", "-%}",  "{%-", "'",     "\"", "\\",
                                        "\\x", "\\u12", "\\777", "[",  "]",  "(",  "\xC3", "\r",  "['a']", "['"};
    ra_buf_adds(text, SEEDS[below(rng, N_SEEDS)].text);
    for (int n = 1 + (int)below(rng, 5); n > 0; n--) {
        size_t at = below(rng, text->length + 1), cut = below(rng, 3) ? below(rng, 8) : below(rng, 200);
        if (cut > text->length - at) cut = text->length - at;
        const char *word = WORDS[below(rng, sizeof WORDS / sizeof *WORDS)];
        char byte = (char)(1 + below(rng, 255));
        ra_buf out = {0};
        ra_buf_add(&out, text->data, at);
        if (below(rng, 2)) ra_buf_adds(&out, word);
        if (below(rng, 3) == 0) ra_buf_add(&out, &byte, 1);
        ra_buf_add(&out, text->data + at + cut, text->length - at - cut);
        ra_buf_free(text);
        *text = out;
        if (!text->length) ra_buf_adds(text, " ");
    }
    const ra_template_row *row = recognise(text);
    return row && !ra_template_row_find(row->name) ? "a row without a name" : NULL;
}

int main(void)
{
    static const struct {
        const char *name;
        const char *(*once)(ra_rng *rng, ra_buf *text);
    } KINDS[] = {{"other spellings", fuzz_spelling}, {"other letters", fuzz_letter}, {"other bytes", fuzz_bytes}};
    const char *given = getenv("FUZZ_SECONDS"), *seed_given = getenv("FUZZ_SEED");
    double share = (given ? strtod(given, NULL) : 2.0) / 3.0;
    uint64_t seed = seed_given ? strtoull(seed_given, NULL, 10) : 1;
    int failed = 0;
    puts("1..3");
    for (int k = 0; k < 3; k++) {
        ra_rng rng = ra_rng_make(seed, RA_STREAM_TEST + (uint64_t)k);
        ra_buf text = {0};
        int64_t rounds = 0;
        const char *why = NULL;
        for (double end = seconds_now() + share; !why && seconds_now() < end; rounds++) {
            ra_buf_clear(&text);
            why = KINDS[k].once(&rng, &text);
        }
        printf("# %s: seed %llu, %lld rounds\n", KINDS[k].name, (unsigned long long)seed, (long long)rounds);
        if (why) printf("# round %lld: %s: %.2000s\n", (long long)rounds - 1, why, text.data);
        printf("%sok %d - %s\n", why ? "not " : "", k + 1, KINDS[k].name);
        failed += why != NULL;
        ra_buf_free(&text);
    }
    return failed != 0;
}
