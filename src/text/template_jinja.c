/* The normal form of a Jinja text: its tokens as Jinja's own lexer finds them (version 3.1, as transformers sets it up: trim_blocks,
 * lstrip_blocks, no keep_trailing_newline). Two texts with one normal form render alike. Nothing is computed here: a text that
 * Jinja would refuse, or that uses what is not looked at (raw blocks, braces), has no normal form. */
#include "template_impl.h"
#include "unicode.h"

#include <stdlib.h>
#include <string.h>

enum { DEEPEST = 32 };

typedef struct {
    const char *p, *end;
    ra_buf *out;
    bool line_starting; /* what was just consumed ended a line */
    char open[DEEPEST]; /* the brackets that wait for their end */
    int depth;
    bool after_operand; /* a [ here would be a subscript */
} lexer;

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static size_t left(const lexer *x)
{
    return (size_t)(x->end - x->p);
}

static bool at(const lexer *x, const char *text)
{
    size_t n = strlen(text);
    return left(x) >= n && !memcmp(x->p, text, n);
}

static void add_token(lexer *x, const char *text, size_t n)
{
    ra_buf_adds(x->out, " ");
    ra_buf_add(x->out, text, n);
}

/* ---- string literals ---- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

static bool add_code(ra_buf *out, uint32_t code)
{
    uint8_t bytes[4];
    if (code == 0 || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return false;
    ra_buf_add(out, bytes, (size_t)ra_utf8_encode(code, bytes));
    return true;
}

/* An escape of Python's "unicode-escape" from behind its backslash; the value is appended, NULL where it has none. */
static const char *escape(const char *p, const char *end, ra_buf *out)
{
    static const char NAMES[] = "\\'\"abfnrtv", VALUES[] = "\\'\"\a\b\f\n\r\t\v";
    const char *name = *p ? strchr(NAMES, *p) : NULL;
    if (name) {
        ra_buf_add(out, &VALUES[name - NAMES], 1);
        return p + 1;
    }
    int digits = *p == 'x' ? 2 : *p == 'u' ? 4 : *p == 'U' ? 8 : 0;
    uint32_t code = 0;
    if (digits) {
        if (end - p <= digits) return NULL;
        for (p++; digits > 0; digits--, p++) {
            if (hex_digit(*p) < 0 || code > 0x10FFFF) return NULL;
            code = code << 4 | (uint32_t)hex_digit(*p);
        }
        return add_code(out, code) ? p : NULL;
    }
    if (*p >= '0' && *p <= '7') {
        for (int i = 0; i < 3 && p < end && *p >= '0' && *p <= '7'; i++) code = code << 3 | (uint32_t)(*p++ - '0');
        return add_code(out, code) ? p : NULL;
    }
    if (*p == '\n') return p + 1;              /* a line that goes on */
    if (*p == 'N' || (*p & 0x80)) return NULL; /* a character by its name; and Python doubles the backslash there */
    ra_buf_adds(out, "\\");                    /* no escape: both characters stand for themselves */
    return p;
}

static void add_literal(ra_buf *out, const char *value, size_t n)
{
    ra_buf_adds(out, "'");
    for (size_t i = 0; i < n; i++) {
        if (value[i] == '\'' || value[i] == '\\') ra_buf_adds(out, "\\");
        ra_buf_add(out, &value[i], 1);
    }
    ra_buf_adds(out, "'");
}

/* The literal at x->p, its value into `value`. */
static bool read_literal(lexer *x, ra_buf *value)
{
    char quote = *x->p++;
    ra_buf_clear(value);
    ra_buf_adds(value, "");
    while (x->p < x->end && *x->p != quote) {
        if (*x->p == '\\') {
            if (left(x) < 2) return false;
            x->p = escape(x->p + 1, x->end, value);
            if (!x->p) return false;
        } else {
            ra_buf_add(value, x->p++, 1);
        }
    }
    if (x->p == x->end) return false;
    x->p++;
    return true;
}

/* ---- inside of tags ---- */

static bool is_keyword(const char *word, size_t n)
{
    static const char *const KEYWORDS[] = {"and", "else", "for", "if", "in", "is", "not", "or", "elif", "set", "recursive"};
    for (size_t i = 0; i < sizeof KEYWORDS / sizeof *KEYWORDS; i++) {
        if (strlen(KEYWORDS[i]) == n && !memcmp(KEYWORDS[i], word, n)) return true;
    }
    return false;
}

/* ['name'] after a value is .name: for messages, mappings with text keys, both mean the same. */
static bool read_subscript(lexer *x, ra_buf *scratch)
{
    lexer ahead = *x;
    ahead.p++;
    while (ahead.p < ahead.end && is_blank(*ahead.p)) ahead.p++;
    if (ahead.p == ahead.end || (*ahead.p != '\'' && *ahead.p != '"') || !read_literal(&ahead, scratch)) return false;
    while (ahead.p < ahead.end && is_blank(*ahead.p)) ahead.p++;
    if (ahead.p == ahead.end || *ahead.p != ']' || !scratch->length) return false;
    for (size_t i = 0; i < scratch->length; i++) {
        if (!is_word(scratch->data[i])) return false;
    }
    if (*scratch->data >= '0' && *scratch->data <= '9') return false;
    add_token(x, ".", 1);
    add_token(x, scratch->data, scratch->length);
    x->p = ahead.p + 1;
    return true;
}

static bool read_operator(lexer *x)
{
    static const char *const PAIRS[] = {"==", "!=", ">=", "<=", "//", "**"};
    for (size_t i = 0; i < sizeof PAIRS / sizeof *PAIRS; i++) {
        if (at(x, PAIRS[i])) {
            add_token(x, PAIRS[i], 2);
            x->p += 2;
            x->after_operand = false;
            return true;
        }
    }
    char c = *x->p;
    if (!c || !strchr("+-/*%~[]()><=.:|,;", c)) return false;
    if (c == '(' || c == '[') {
        if (x->depth == DEEPEST) return false;
        x->open[x->depth++] = c == '(' ? ')' : ']';
    } else if (c == ')' || c == ']') {
        if (x->depth == 0 || x->open[--x->depth] != c) return false;
    }
    add_token(x, x->p++, 1);
    x->after_operand = c == ')' || c == ']';
    return true;
}

static bool read_token(lexer *x, ra_buf *scratch)
{
    const char *word = x->p;
    if (is_blank(*x->p)) {
        x->p++;
        return true;
    }
    if (is_word(*x->p)) {
        while (x->p < x->end && is_word(*x->p)) x->p++;
        add_token(x, word, (size_t)(x->p - word));
        x->after_operand = !is_keyword(word, (size_t)(x->p - word));
        return true;
    }
    if (*x->p == '\'' || *x->p == '"') {
        if (!read_literal(x, scratch)) return false;
        ra_buf_adds(x->out, " ");
        add_literal(x->out, scratch->data, scratch->length);
        x->after_operand = false;
        return true;
    }
    if (*x->p == '[' && x->after_operand && read_subscript(x, scratch)) return true;
    return read_operator(x);
}

/* What an end of a tag takes along: with a minus all white space, at the end of a block or comment one newline. */
static void after_tag(lexer *x, bool minus, bool newline)
{
    size_t begin = 0, end;
    if (minus) {
        ra_utf8_strip(x->p, left(x), &begin, &end);
    } else if (newline && x->p < x->end && *x->p == '\n') {
        begin = 1;
    }
    x->p += begin;
    x->line_starting = begin > 0 && x->p[-1] == '\n';
}

static bool read_comment(lexer *x)
{
    while (x->p < x->end) {
        bool sign = (*x->p == '+' || *x->p == '-') && left(x) >= 3 && x->p[1] == '#' && x->p[2] == '}';
        if (sign || at(x, "#}")) {
            bool minus = *x->p == '-', plus = *x->p == '+';
            x->p += sign ? 3 : 2;
            after_tag(x, minus, !plus);
            return true;
        }
        x->p++;
    }
    return false;
}

/* From behind the opening of {% or {{ to behind its end. */
static bool read_tag(lexer *x, bool block)
{
    const char *close = block ? "%}" : "}}";
    ra_buf scratch = {0};
    bool good = false;
    x->after_operand = false;
    size_t begin = x->out->length;
    while (x->p < x->end) {
        bool minus = *x->p == '-', sign = minus || (block && *x->p == '+');
        if (x->depth == 0 && ((sign && left(x) >= 3 && !memcmp(x->p + 1, close, 2)) || at(x, close))) {
            x->p += sign ? 3 : 2;
            after_tag(x, minus, block && !sign);
            good = true;
            break;
        }
        if (!read_token(x, &scratch)) break;
    }
    ra_buf_free(&scratch);
    static const char RAW[] = " raw";
    if (good && block && x->out->length == begin + strlen(RAW) && !memcmp(x->out->data + begin, RAW, strlen(RAW))) return false;
    return good;
}

/* ---- between tags ---- */

static const char *find_tag(const lexer *x)
{
    const char *p = x->p;
    while (x->end - p >= 2 && !(*p == '{' && (p[1] == '{' || p[1] == '%' || p[1] == '#'))) p++;
    return x->end - p >= 2 ? p : NULL;
}

/* The text up to the tag at `tag`, less what the tag takes away: with a minus the white space before it, at a block or comment
 * what indents it. */
static void add_text_before(lexer *x, const char *tag, char sign, bool indented)
{
    size_t n = (size_t)(tag - x->p), begin, end;
    if (sign == '-') {
        ra_utf8_strip(x->p, n, &begin, &end);
        n = begin == end ? 0 : end;
    } else if (sign != '+' && indented) {
        size_t line = n;
        while (line > 0 && x->p[line - 1] != '\n') line--;
        ra_utf8_strip(x->p + line, n - line, &begin, &end);
        if ((line > 0 || x->line_starting) && begin == end) n = line;
    }
    ra_buf_add(x->out, x->p, n);
}

static bool read_all(lexer *x)
{
    for (const char *tag; (tag = find_tag(x));) {
        char kind = tag[1], sign = tag + 2 < x->end && (tag[2] == '-' || tag[2] == '+') ? tag[2] : '\0';
        add_text_before(x, tag, sign, kind != '{');
        x->p = tag + 2 + (sign != '\0');
        if (kind == '#') {
            if (!read_comment(x)) return false;
            continue;
        }
        ra_buf_adds(x->out, kind == '%' ? "{%" : "{{");
        if (!read_tag(x, kind == '%')) return false;
        ra_buf_adds(x->out, kind == '%' ? " %}" : " }}");
    }
    ra_buf_add(x->out, x->p, left(x));
    return true;
}

bool ra_jinja_normal_form(const char *text, ra_buf *out)
{
    ra_buf source = {0};
    bool above;
    size_t n = strlen(text);
    ra_buf_clear(out);
    ra_buf_adds(out, "");
    if (ra_utf8_valid((const uint8_t *)text, n, &above) != n) return false;
    ra_buf_adds(&source, "");
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\r' && text[i + 1] == '\n') continue;
        ra_buf_add(&source, text[i] == '\r' ? "\n" : &text[i], 1);
    }
    size_t length = source.length;
    if (length && source.data[length - 1] == '\n') length--;
    lexer x = {.p = source.data, .end = source.data + length, .out = out, .line_starting = true};
    bool good = read_all(&x);
    ra_buf_free(&source);
    return good;
}
