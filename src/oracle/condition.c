#define _GNU_SOURCE /* memmem */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "condition.h"

#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Steps and memory a pattern may use on one text; beyond them the verdict is "cannot tell", never a hang. */
enum { MATCH_LIMIT = 1000000, HEAP_LIMIT_KIB = 16384, DEEPEST = 24, MOST_MAPS = 10000 };

typedef enum { ALL, ANY, NOT, REGEX, CONTAINS, ABSENT, STARTS_WITH, ENDS_WITH, COUNT } kind;

struct ra_condition {
    kind kind;
    ra_side side;
    bool fold;
    ra_condition **child; /* ALL, ANY, NOT */
    int n;                /* children, patterns or texts */
    pcre2_code **pattern; /* REGEX: any of them matches */
    ra_buf *text;         /* CONTAINS ... ENDS_WITH: any of them, in the form that is searched */
    ra_count_kind counted;
    int64_t least, most;
};

static const char *const keys[] = {
    "all",    "any",       "not",        "regex", "contains",   "absent",     "starts_with",    "ends_with",
    "words",  "sentences", "characters", "lines", "paragraphs", "list_items", "question_marks", "exclamation_marks",
    "prompt", "response",  "ignore_case"};
static const char accepted_keys[] =
    "all, any, not, regex, contains, absent, starts_with, ends_with, words, sentences, characters, lines, "
    "paragraphs, list_items, question_marks, exclamation_marks, prompt, response, ignore_case";

typedef struct {
    ra_yaml *yaml;
    ra_problems *problems;
    int depth, maps;
} reader;

static ra_condition *make(kind k, ra_side side, bool fold)
{
    ra_condition *c = ra_calloc(1, sizeof *c);
    c->kind = k;
    c->side = side;
    c->fold = fold;
    return c;
}

static void add_child(ra_condition *parent, ra_condition *child)
{
    if (!child) return;
    parent->child = ra_realloc(parent->child, (size_t)parent->n + 1, sizeof *parent->child);
    parent->child[parent->n++] = child;
}

void ra_condition_free(ra_condition *c)
{
    if (!c) return;
    for (int i = 0; i < c->n; i++) {
        if (c->child) ra_condition_free(c->child[i]);
        if (c->pattern) pcre2_code_free(c->pattern[i]);
        if (c->text) ra_buf_free(&c->text[i]);
    }
    free(c->child);
    free(c->pattern);
    free(c->text);
    ra_free(c);
}

/* ---- reading ---- */
static ra_condition *read_map(reader *r, yaml_node_t *node, const char *key, ra_side side, bool fold);

static ra_condition *read_group(reader *r, kind k, yaml_node_t *node, const char *key, ra_side side, bool fold)
{
    if (node->type != YAML_SEQUENCE_NODE || node->data.sequence.items.start == node->data.sequence.items.top) {
        ra_problem(r->problems, r->yaml->path, ra_yaml_line(node), key, "%s; expected a list of conditions, each after a dash",
                   node->type == YAML_SEQUENCE_NODE ? "an empty list" : ra_yaml_kind(node));
        return NULL;
    }
    ra_condition *c = make(k, side, fold);
    int i = 0;
    for (yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top; item++, i++) {
        char *name = ra_format("%s[%d]", key, i);
        add_child(c, read_map(r, ra_yaml_node(r->yaml, *item), name, side, fold));
        free(name);
    }
    return c;
}

static void add_pattern(reader *r, ra_condition *c, yaml_node_t *node, const char *key, const char *text)
{
    int code = 0;
    PCRE2_SIZE at = 0;
    uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | (c->fold ? PCRE2_CASELESS : 0);
    pcre2_code *pattern = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, options, &code, &at, NULL);
    if (!pattern) {
        PCRE2_UCHAR what[160] = "";
        pcre2_get_error_message(code, what, sizeof what);
        ra_problem(r->problems, r->yaml->path, ra_yaml_line(node), key,
                   "'%.80s' is not a regular expression (PCRE2): %s at character %zu", text, (const char *)what, at + 1);
        return;
    }
    pcre2_jit_compile(pattern, PCRE2_JIT_COMPLETE); /* where it cannot, the interpreter does the work */
    c->pattern = ra_realloc(c->pattern, (size_t)c->n + 1, sizeof *c->pattern);
    c->pattern[c->n++] = pattern;
}

static void add_text(reader *r, ra_condition *c, yaml_node_t *node, const char *key)
{
    const char *text = ra_yaml_text(node);
    if (!text || !*text || ra_yaml_is_null(node)) {
        ra_problem(r->problems, r->yaml->path, ra_yaml_line(node), key, "%s; expected a text, or a list of texts",
                   !text ? ra_yaml_kind(node) : "an empty text");
    } else if (c->kind == REGEX) {
        add_pattern(r, c, node, key, text);
    } else {
        ra_buf form = {0};
        ra_text_form(text, strlen(text), c->fold, &form);
        c->text = ra_realloc(c->text, (size_t)c->n + 1, sizeof *c->text);
        c->text[c->n++] = form;
    }
}

static ra_condition *read_texts(reader *r, kind k, yaml_node_t *node, const char *key, ra_side side, bool fold)
{
    ra_condition *c = make(k, side, fold);
    if (node->type == YAML_SEQUENCE_NODE && node->data.sequence.items.start < node->data.sequence.items.top) {
        for (yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top; item++) {
            add_text(r, c, ra_yaml_node(r->yaml, *item), key);
        }
    } else {
        add_text(r, c, node, key);
    }
    return c;
}

static bool read_bound(reader *r, yaml_node_t *node, const char *key, int64_t *out)
{
    const char *text = ra_yaml_text(node);
    char *end = NULL;
    long long value = text && *text >= '0' && *text <= '9' ? strtoll(text, &end, 10) : -1;
    if (!end || *end || value < 0 || value > 1000000000) {
        ra_problem(r->problems, r->yaml->path, ra_yaml_line(node), key, "%s%.40s%s; expected a whole number from 0 to 1000000000",
                   text ? "'" : "", text ? text : ra_yaml_kind(node), text ? "'" : "");
        return false;
    }
    *out = value;
    return true;
}

static ra_condition *read_count(reader *r, ra_count_kind counted, yaml_node_t *node, const char *key, ra_side side)
{
    ra_condition *c = make(COUNT, side, false);
    c->counted = counted;
    c->most = INT64_MAX;
    if (node->type == YAML_SCALAR_NODE && !ra_yaml_is_null(node)) {
        if (read_bound(r, node, key, &c->least)) c->most = c->least; /* exactly so many */
        return c;
    }
    if (node->type != YAML_MAPPING_NODE || node->data.mapping.pairs.start == node->data.mapping.pairs.top) {
        ra_problem(r->problems, r->yaml->path, ra_yaml_line(node), key,
                   "expected {min: number}, {max: number}, both, or one number");
        return c;
    }
    for (yaml_node_pair_t *p = node->data.mapping.pairs.start; p < node->data.mapping.pairs.top; p++) {
        yaml_node_t *name = ra_yaml_node(r->yaml, p->key), *value = ra_yaml_node(r->yaml, p->value);
        const char *word = ra_yaml_text(name);
        if (word && (strcmp(word, "min") == 0 || strcmp(word, "max") == 0)) {
            char *bound_key = ra_format("%s.%s", key, word);
            read_bound(r, value, bound_key, word[1] == 'i' ? &c->least : &c->most);
            free(bound_key);
        } else {
            ra_problem(r->problems, r->yaml->path, ra_yaml_line(name), key, "'%.40s' is not known here; expected min or max",
                       word ? word : ra_yaml_kind(name));
        }
    }
    if (c->least > c->most) {
        ra_problem(r->problems, r->yaml->path, ra_yaml_line(node), key, "min %lld is above max %lld", (long long)c->least,
                   (long long)c->most);
    }
    return c;
}

static ra_condition *read_key(reader *r, const char *word, yaml_node_t *name, yaml_node_t *value, const char *key, ra_side side,
                              bool fold)
{
    static const struct {
        const char *word;
        kind kind;
    } groups[] = {{"all", ALL}, {"any", ANY}},
      texts[] = {
          {"regex", REGEX}, {"contains", CONTAINS}, {"absent", ABSENT}, {"starts_with", STARTS_WITH}, {"ends_with", ENDS_WITH}};
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        if (strcmp(word, groups[i].word) == 0) return read_group(r, groups[i].kind, value, key, side, fold);
    }
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (strcmp(word, texts[i].word) == 0) return read_texts(r, texts[i].kind, value, key, side, fold);
    }
    for (int i = 0; i < RA_COUNT_KINDS; i++) {
        if (strcmp(word, ra_count_names[i]) == 0) return read_count(r, (ra_count_kind)i, value, key, side);
    }
    if (strcmp(word, "prompt") == 0) return read_map(r, value, key, RA_SIDE_PROMPT, fold);
    if (strcmp(word, "response") == 0) return read_map(r, value, key, RA_SIDE_RESPONSE, fold);
    if (strcmp(word, "not") == 0) {
        ra_condition *c = make(NOT, side, fold);
        add_child(c, read_map(r, value, key, side, fold));
        return c;
    }
    const char *nearest = ra_nearest_name(word, keys, (int)(sizeof keys / sizeof *keys));
    ra_problem(r->problems, r->yaml->path, ra_yaml_line(name), key, "unknown condition; %s%s%sknown: %s",
               nearest ? "did you mean " : "", nearest ? nearest : "", nearest ? "? " : "", accepted_keys);
    return NULL;
}

/* true and false as YAML writes them; anything else is a mistake. */
static bool read_flag(reader *r, yaml_node_t *node, const char *key, bool before)
{
    const char *text = ra_yaml_text(node);
    if (text && ra_word_in("true|yes", text)) return true;
    if (text && ra_word_in("false|no", text)) return false;
    ra_problem(r->problems, r->yaml->path, ra_yaml_line(node), key, "expected true or false");
    return before;
}

/* A map of conditions: all of them must hold. ignore_case applies to the others of its map. */
static ra_condition *read_map(reader *r, yaml_node_t *node, const char *key, ra_side side, bool fold)
{
    if (node->type != YAML_MAPPING_NODE) {
        ra_problem(r->problems, r->yaml->path, ra_yaml_line(node), key,
                   "%s; expected a condition such as {contains: text}; known: %s",
                   ra_yaml_is_null(node) ? "nothing" : ra_yaml_kind(node), accepted_keys);
        return NULL;
    }
    if (r->depth == DEEPEST) {
        ra_problem(r->problems, r->yaml->path, ra_yaml_line(node), key, "conditions nest more than %d deep", DEEPEST);
        return NULL;
    }
    if (++r->maps == MOST_MAPS) {
        ra_problem(r->problems, r->yaml->path, ra_yaml_line(node), key, "more than %d conditions in a rule", MOST_MAPS);
    }
    if (r->maps >= MOST_MAPS) return NULL;
    r->depth++;
    yaml_node_pair_t *begin = node->data.mapping.pairs.start, *end = node->data.mapping.pairs.top;
    for (yaml_node_pair_t *p = begin; p < end; p++) {
        const char *word = ra_yaml_text(ra_yaml_node(r->yaml, p->key));
        if (word && strcmp(word, "ignore_case") == 0) fold = read_flag(r, ra_yaml_node(r->yaml, p->value), "ignore_case", fold);
    }
    ra_condition *c = make(ALL, side, fold);
    for (yaml_node_pair_t *p = begin; p < end && r->problems->count < 1000; p++) {
        yaml_node_t *name = ra_yaml_node(r->yaml, p->key);
        const char *word = ra_yaml_text(name);
        if (word && strcmp(word, "ignore_case") == 0) continue;
        char *inner = ra_format("%s.%.60s", key, word ? word : "?");
        add_child(c, read_key(r, word ? word : "?", name, ra_yaml_node(r->yaml, p->value), inner, side, fold));
        free(inner);
    }
    if (c->n == 0 && r->problems->count == 0) {
        ra_problem(r->problems, r->yaml->path, ra_yaml_line(node), key, "no condition; known: %s", accepted_keys);
    }
    r->depth--;
    return c;
}

ra_condition *ra_condition_read(ra_yaml *yaml, yaml_node_t *node, const char *key, ra_side side, bool fold, ra_problems *problems)
{
    reader r = {.yaml = yaml, .problems = problems};
    return read_map(&r, node, key, side, fold);
}

/* ---- evaluation ---- */
void ra_evaluation_begin(ra_evaluation *e)
{
    memset(e, 0, sizeof *e);
    e->match_data = pcre2_match_data_create(1, NULL);
    pcre2_match_context *limits = pcre2_match_context_create(NULL);
    if (!e->match_data || !limits) ra_die("PCRE2: out of memory");
    pcre2_set_match_limit(limits, MATCH_LIMIT);
    pcre2_set_heap_limit(limits, HEAP_LIMIT_KIB);
    e->match_limits = limits;
}

void ra_evaluation_end(ra_evaluation *e)
{
    ra_subject_free(&e->side[0]);
    ra_subject_free(&e->side[1]);
    pcre2_match_data_free(e->match_data);
    pcre2_match_context_free(e->match_limits);
}

static ra_truth matches(const pcre2_code *pattern, const ra_buf *text, ra_evaluation *e)
{
    PCRE2_SPTR subject = (PCRE2_SPTR)text->data;
    int code = pcre2_match(pattern, subject, text->length, 0, PCRE2_NO_UTF_CHECK, e->match_data, e->match_limits);
    if (code == PCRE2_ERROR_JIT_STACKLIMIT) {
        code = pcre2_match(pattern, subject, text->length, 0, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, e->match_data, e->match_limits);
    }
    if (code >= 0) return RA_YES;
    if (code == PCRE2_ERROR_NOMATCH) return RA_NO;
    PCRE2_UCHAR what[120] = "";
    pcre2_get_error_message(code, what, sizeof what);
    snprintf(e->problem, sizeof e->problem, "a regular expression gave up: %s", (const char *)what);
    return RA_UNKNOWN;
}

static ra_truth any_pattern(const ra_condition *c, ra_evaluation *e)
{
    ra_truth result = RA_NO;
    for (int i = 0; i < c->n; i++) {
        ra_truth one = matches(c->pattern[i], &e->side[c->side].text, e);
        if (one == RA_YES) return RA_YES;
        if (one == RA_UNKNOWN) result = RA_UNKNOWN;
    }
    return result;
}

static bool any_text(const ra_condition *c, ra_evaluation *e)
{
    const ra_buf *form = ra_subject_form(&e->side[c->side], c->fold);
    for (int i = 0; i < c->n; i++) {
        const ra_buf *t = &c->text[i];
        if (t->length > form->length) continue;
        bool found;
        switch (c->kind) {
        case STARTS_WITH: found = memcmp(form->data, t->data, t->length) == 0; break;
        case ENDS_WITH: found = memcmp(form->data + form->length - t->length, t->data, t->length) == 0; break;
        default: found = memmem(form->data, form->length, t->data, t->length) != NULL; break;
        }
        if (found) return true;
    }
    return false;
}

/* Kleene's logic: a part that cannot be decided matters only where the others leave it open. */
static ra_truth combine(const ra_condition *c, ra_evaluation *e)
{
    ra_truth decisive = c->kind == ANY ? RA_YES : RA_NO, result = c->kind == ANY ? RA_NO : RA_YES;
    for (int i = 0; i < c->n; i++) {
        ra_truth one = ra_condition_holds(c->child[i], e);
        if (one == decisive) return decisive;
        if (one == RA_UNKNOWN) result = RA_UNKNOWN;
    }
    return result;
}

ra_truth ra_condition_holds(const ra_condition *c, ra_evaluation *e)
{
    switch (c->kind) {
    case ALL:
    case ANY: return combine(c, e);
    case NOT: {
        ra_truth inner = ra_condition_holds(c->child[0], e);
        return inner == RA_UNKNOWN ? RA_UNKNOWN : inner == RA_YES ? RA_NO : RA_YES;
    }
    case REGEX: return any_pattern(c, e);
    case ABSENT: return any_text(c, e) ? RA_NO : RA_YES;
    case CONTAINS:
    case STARTS_WITH:
    case ENDS_WITH: return any_text(c, e) ? RA_YES : RA_NO;
    case COUNT: {
        int64_t count = ra_subject_count(&e->side[c->side], c->counted);
        return count >= c->least && count <= c->most ? RA_YES : RA_NO;
    }
    }
    return RA_UNKNOWN;
}
