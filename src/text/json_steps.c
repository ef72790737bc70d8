/* The steps in a tokenizer.json: normalizer, pre-tokenizer, decoder. What is not known is refused by name. */
#include "tok.h"

#include <stdlib.h>
#include <string.h>

static const char *name_of(const json_t *step)
{
    const char *type = ra_json_text(step, "type");
    return type ? type : "without a type";
}

static bool is(const json_t *step, const char *type)
{
    return !strcmp(name_of(step), type);
}

/* {"String": text} or {"Regex": text}. */
static ra_err load_pattern(const char *path, const json_t *step, ra_matcher *m)
{
    const json_t *pattern = json_object_get(step, "pattern");
    const char *regex = ra_json_text(pattern, "Regex");
    const json_t *literal = json_is_string(pattern) ? pattern : json_object_get(pattern, "String");
    if (regex) return ra_matcher_regex(m, path, regex);
    if (!json_string_length(literal)) {
        return ra_fail(RA_ERR_FORMAT, "%s: %s needs a pattern: {\"String\": ...} or {\"Regex\": ...}", path, name_of(step));
    }
    ra_matcher_literal(m, json_string_value(literal), json_string_length(literal));
    return RA_OK;
}

/* A text that must be there, empty or not. */
static ra_err load_text(const char *path, const json_t *step, const char *key, char **text, size_t *length)
{
    const json_t *value = json_object_get(step, key);
    if (!json_is_string(value)) return ra_fail(RA_ERR_FORMAT, "%s: %s needs a text \"%s\"", path, name_of(step), key);
    *length = json_string_length(value);
    *text = ra_strndup(json_string_value(value), *length);
    return RA_OK;
}

ra_err ra_tok_json_normalizer(ra_tokenizer *t, const char *path, const json_t *json)
{
    static const char *const FORMS[] = {"NFC", "NFD", "NFKC", "NFKD"};
    if (!json || json_is_null(json)) return RA_OK;
    if (is(json, "Sequence")) {
        size_t i;
        json_t *item;
        json_array_foreach(json_object_get(json, "normalizers"), i, item) RA_TRY(ra_tok_json_normalizer(t, path, item));
        return RA_OK;
    }
    ra_normal_step *step;
    for (int k = 0; k < 4; k++) {
        if (!is(json, FORMS[k])) continue;
        RA_TRY(ra_normal_add(&t->normal, path, RA_NORMAL_FORM, &step));
        step->form = (ra_unicode_form)k;
        return RA_OK;
    }
    if (is(json, "Lowercase")) return ra_normal_add(&t->normal, path, RA_NORMAL_LOWERCASE, &step);
    if (is(json, "Replace")) {
        RA_TRY(ra_normal_add(&t->normal, path, RA_NORMAL_REPLACE, &step));
        RA_TRY(load_pattern(path, json, &step->match));
        return load_text(path, json, "content", &step->text, &step->length);
    }
    if (is(json, "Prepend")) {
        RA_TRY(ra_normal_add(&t->normal, path, RA_NORMAL_PREPEND, &step));
        return load_text(path, json, "prepend", &step->text, &step->length);
    }
    if (is(json, "Strip")) {
        RA_TRY(ra_normal_add(&t->normal, path, RA_NORMAL_STRIP, &step));
        step->left = ra_json_flag(json, "strip_left", true);
        step->right = ra_json_flag(json, "strip_right", true);
        return RA_OK;
    }
    return ra_fail(RA_ERR_UNSUPPORTED,
                   "%s: normalizer %s; known: NFC, NFD, NFKC, NFKD, Lowercase, Replace, Prepend, Strip, Sequence", path,
                   name_of(json));
}

static ra_err load_behaviour(const char *path, const json_t *json, ra_step *step)
{
    static const char *const NAMES[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    const json_t *given = json_object_get(json, "behavior");
    const char *name = json_string_value(given);
    for (int k = 0; k < 5; k++) {
        if (name && !strcmp(name, NAMES[k])) {
            step->behaviour = (ra_behaviour)k;
            return RA_OK;
        }
    }
    return ra_fail(RA_ERR_UNSUPPORTED,
                   "%s: %s with behavior %s; known: Isolated, Removed, MergedWithPrevious, MergedWithNext, Contiguous", path,
                   name_of(json), name ? name : "missing");
}

static ra_err load_split(ra_tokenizer *t, const char *path, const json_t *json)
{
    ra_step *step;
    RA_TRY(ra_pretok_add(&t->pretok, path, RA_STEP_SPLIT, &step));
    RA_TRY(load_behaviour(path, json, step));
    step->invert = ra_json_flag(json, "invert", false);
    const char *regex = ra_json_text(json_object_get(json, "pattern"), "Regex");
    if (regex && step->behaviour == RA_SPLIT_ISOLATED && ra_scan_for(regex)) { /* every byte is in a match: invert says nothing */
        step->scan = ra_scan_for(regex), step->invert = false;
        ra_matcher_literal(&step->match, regex, strlen(regex));
        return RA_OK;
    }
    return load_pattern(path, json, &step->match);
}

static ra_err add_class_split(ra_tokenizer *t, const char *path, ra_match_kind kind, ra_behaviour behaviour)
{
    ra_step *step;
    RA_TRY(ra_pretok_add(&t->pretok, path, RA_STEP_SPLIT, &step));
    step->match.kind = kind, step->behaviour = behaviour;
    return RA_OK;
}

/* The members of Metaspace, as pre-tokenizer and as decoder; older files say add_prefix_space. */
static ra_err load_metaspace(const char *path, const json_t *json, const char **mark, size_t *length, ra_prepend *prepend)
{
    const json_t *replacement = json_object_get(json, "replacement");
    const char *scheme = ra_json_text(json, "prepend_scheme");
    size_t n = json_string_length(replacement), first;
    bool one = n > 0 && (ra_utf8_decode((const uint8_t *)json_string_value(replacement), &first), first == n);
    if (!one) return ra_fail(RA_ERR_FORMAT, "%s: Metaspace needs a replacement of one character", path);
    *mark = json_string_value(replacement), *length = n;
    *prepend = ra_json_flag(json, "add_prefix_space", true) ? RA_PREPEND_ALWAYS : RA_PREPEND_NEVER;
    if (!scheme) return RA_OK;
    static const char *const NAMES[] = {"always", "first", "never"};
    for (int k = 0; k < 3; k++) {
        if (strcmp(scheme, NAMES[k]) != 0) continue;
        *prepend = (ra_prepend)k;
        return RA_OK;
    }
    return ra_fail(RA_ERR_UNSUPPORTED, "%s: Metaspace with prepend_scheme %s; known: always, first, never", path, scheme);
}

static ra_err load_metaspace_step(ra_tokenizer *t, const char *path, const json_t *json)
{
    const char *mark;
    size_t n;
    ra_step *step;
    RA_TRY(ra_pretok_add(&t->pretok, path, RA_STEP_METASPACE, &step));
    RA_TRY(load_metaspace(path, json, &mark, &n, &step->prepend));
    memcpy(step->mark, mark, n);
    step->mark_length = (int)n;
    if (!ra_json_flag(json, "split", true)) return RA_OK;
    RA_TRY(ra_pretok_add(&t->pretok, path, RA_STEP_SPLIT, &step));
    step->behaviour = RA_SPLIT_WITH_NEXT;
    ra_matcher_literal(&step->match, mark, n);
    return RA_OK;
}

static ra_err load_byte_level(ra_tokenizer *t, const char *path, const json_t *json)
{
    ra_step *step;
    t->byte_level = true;
    if (ra_json_flag(json, "add_prefix_space", true)) RA_TRY(ra_pretok_add(&t->pretok, path, RA_STEP_PREFIX_SPACE, &step));
    return ra_json_flag(json, "use_regex", true) ? ra_pretok_add_split(&t->pretok, path, RA_PATTERN_GPT2, false) : RA_OK;
}

ra_err ra_tok_json_pretokenizer(ra_tokenizer *t, const char *path, const json_t *json)
{
    if (!json || json_is_null(json)) return RA_OK;
    if (is(json, "Sequence")) {
        size_t i;
        json_t *item;
        json_array_foreach(json_object_get(json, "pretokenizers"), i, item) RA_TRY(ra_tok_json_pretokenizer(t, path, item));
        return RA_OK;
    }
    if (t->byte_level) {
        return ra_fail(RA_ERR_UNSUPPORTED, "%s: the pre-tokenizer %s comes after ByteLevel, which must be the last", path,
                       name_of(json));
    }
    if (is(json, "ByteLevel")) return load_byte_level(t, path, json);
    if (is(json, "Split")) return load_split(t, path, json);
    if (is(json, "Metaspace")) return load_metaspace_step(t, path, json);
    if (is(json, "Digits")) {
        bool each = ra_json_flag(json, "individual_digits", false);
        return add_class_split(t, path, RA_MATCH_DIGIT, each ? RA_SPLIT_ISOLATED : RA_SPLIT_CONTIGUOUS);
    }
    if (is(json, "WhitespaceSplit")) return add_class_split(t, path, RA_MATCH_SPACE, RA_SPLIT_REMOVED);
    if (is(json, "Punctuation")) {
        RA_TRY(add_class_split(t, path, RA_MATCH_PUNCTUATION, RA_SPLIT_ISOLATED));
        return json_object_get(json, "behavior") ? load_behaviour(path, json, &t->pretok.step[t->pretok.n - 1]) : RA_OK;
    }
    if (is(json, "BertPreTokenizer")) {
        RA_TRY(add_class_split(t, path, RA_MATCH_SPACE, RA_SPLIT_REMOVED));
        return add_class_split(t, path, RA_MATCH_PUNCTUATION, RA_SPLIT_ISOLATED);
    }
    ra_step *step;
    if (is(json, "CharDelimiterSplit")) {
        const json_t *delimiter = json_object_get(json, "delimiter");
        if (!json_string_length(delimiter)) return ra_fail(RA_ERR_FORMAT, "%s: CharDelimiterSplit needs a delimiter", path);
        RA_TRY(ra_pretok_add(&t->pretok, path, RA_STEP_SPLIT, &step));
        step->behaviour = RA_SPLIT_REMOVED;
        ra_matcher_literal(&step->match, json_string_value(delimiter), json_string_length(delimiter));
        return RA_OK;
    }
    if (is(json, "Whitespace")) { /* \w+|[^\w\s]+ by Rust's \w, which Oniguruma's inside of [...] and two joiners make up */
        RA_TRY(ra_pretok_add_split(&t->pretok, path, "[\\w\\x{200C}\\x{200D}]+|[^\\w\\s\\x{200C}\\x{200D}]+", true));
        step = &t->pretok.step[t->pretok.n - 1];
        step->behaviour = RA_SPLIT_REMOVED, step->invert = true;
        return RA_OK;
    }
    return ra_fail(RA_ERR_UNSUPPORTED,
                   "%s: pre-tokenizer %s; known: Split, ByteLevel, Digits, Metaspace, Whitespace, WhitespaceSplit, Punctuation, "
                   "BertPreTokenizer, CharDelimiterSplit, Sequence",
                   path, name_of(json));
}

static ra_err load_decode_strip(const char *path, const json_t *json, ra_decode_step *step)
{
    const json_t *start = json_object_get(json, "start"), *stop = json_object_get(json, "stop");
    if (!json_is_integer(start) || !json_is_integer(stop) || json_integer_value(start) < 0 || json_integer_value(stop) < 0) {
        return ra_fail(RA_ERR_FORMAT, "%s: the decoder Strip needs \"start\" and \"stop\", whole numbers from 0", path);
    }
    step->start = json_integer_value(start), step->stop = json_integer_value(stop);
    RA_TRY(load_text(path, json, "content", &step->text, &step->length));
    return step->length ? RA_OK : ra_fail(RA_ERR_FORMAT, "%s: the decoder Strip needs a character as content", path);
}

static ra_err load_decode_step(ra_tokenizer *t, const char *path, const json_t *json)
{
    ra_decode_step *step;
    if (is(json, "ByteLevel")) return ra_decoder_add(&t->decoder, path, RA_DECODE_BYTE_LEVEL, &step);
    if (is(json, "ByteFallback")) return ra_decoder_add(&t->decoder, path, RA_DECODE_BYTE_FALLBACK, &step);
    if (is(json, "Fuse")) return ra_decoder_add(&t->decoder, path, RA_DECODE_FUSE, &step);
    if (is(json, "Replace")) {
        RA_TRY(ra_decoder_add(&t->decoder, path, RA_DECODE_REPLACE, &step));
        RA_TRY(load_pattern(path, json, &step->match));
        return load_text(path, json, "content", &step->text, &step->length);
    }
    if (is(json, "Strip")) {
        RA_TRY(ra_decoder_add(&t->decoder, path, RA_DECODE_STRIP, &step));
        return load_decode_strip(path, json, step);
    }
    if (is(json, "Metaspace")) {
        const char *mark;
        size_t n;
        ra_prepend prepend;
        RA_TRY(load_metaspace(path, json, &mark, &n, &prepend));
        RA_TRY(ra_decoder_add(&t->decoder, path, RA_DECODE_METASPACE, &step));
        step->text = ra_strndup(mark, n), step->length = n;
        step->prepended = prepend != RA_PREPEND_NEVER;
        return RA_OK;
    }
    return ra_fail(RA_ERR_UNSUPPORTED,
                   "%s: decoder %s; known: ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace, Sequence", path,
                   name_of(json));
}

static ra_err load_decoders(ra_tokenizer *t, const char *path, const json_t *json)
{
    if (!is(json, "Sequence")) return load_decode_step(t, path, json);
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(json, "decoders"), i, item) RA_TRY(load_decoders(t, path, item));
    return RA_OK;
}

ra_err ra_tok_json_decoder(ra_tokenizer *t, const char *path, const json_t *json)
{
    t->decoder.spaced = !json || json_is_null(json);
    return t->decoder.spaced ? RA_OK : load_decoders(t, path, json);
}
