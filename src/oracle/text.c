#include "text.h"

#include <realign/log.h>
#include <realign/error.h>

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

const char *const ra_count_names[RA_COUNT_KINDS] = {"words",      "sentences",  "characters",     "lines",
                                                    "paragraphs", "list_items", "question_marks", "exclamation_marks"};

/* The code point at text[0..n), and its length in bytes; U+FFFD and 1 where the bytes are not UTF-8. */
static utf8proc_int32_t read_point(const char *text, size_t n, size_t *length)
{
    utf8proc_int32_t c;
    utf8proc_ssize_t got = utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n, &c);
    if (got <= 0) {
        *length = 1;
        return 0xfffd;
    }
    *length = (size_t)got;
    return c;
}

static bool is_space(utf8proc_int32_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || c == 0x85 || c == 0xa0 || c == 0x3000 || (c >= 0x2000 && c <= 0x200a) ||
           c == 0x2028 || c == 0x2029 || c == 0x202f;
}

static bool is_line_end(utf8proc_int32_t c)
{
    return c == '\n' || c == '\r' || c == 0x2028 || c == 0x2029;
}

/* Letters, marks and numbers. */
static bool is_word_point(utf8proc_int32_t c)
{
    if (c < 0x80) return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    utf8proc_category_t k = utf8proc_category(c);
    return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NO;
}

/* Scripts written without spaces whose characters are counted as a word each. */
static bool is_ideograph(utf8proc_int32_t c)
{
    return (c >= 0x3040 && c <= 0x30ff) || (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x4e00 && c <= 0x9fff) ||
           (c >= 0xf900 && c <= 0xfaff) || (c >= 0x20000 && c <= 0x3ffff);
}

void ra_subject_set(ra_subject *s, const char *text)
{
    if (!text) text = "";
    size_t n = strlen(text);
    for (size_t length; n && is_space(read_point(text, n, &length)); text += length, n -= length) {
    }
    ra_buf_clear(&s->text);
    ra_buf_adds(&s->text, "");
    size_t end = 0; /* of the last point that is no white space */
    for (size_t at = 0, length; at < n; at += length) {
        utf8proc_int32_t c = read_point(text + at, n - at, &length);
        if (c == 0xfffd) {
            ra_buf_adds(&s->text, "\xef\xbf\xbd");
        } else {
            ra_buf_add(&s->text, text + at, length);
        }
        if (!is_space(c)) end = s->text.length;
    }
    s->text.length = end;
    s->text.data[end] = '\0';
    s->has_straight = s->has_folded = false;
    for (int i = 0; i < RA_COUNT_KINDS; i++) s->count[i] = -1;
}

void ra_subject_free(ra_subject *s)
{
    ra_buf_free(&s->text);
    ra_buf_free(&s->straight);
    ra_buf_free(&s->folded);
}

/* ---- forms ---- */
static void add_straight(const char *text, size_t n, ra_buf *out)
{
    for (size_t at = 0; at < n;) {
        const char *curly = memchr(text + at, 0xe2, n - at); /* U+2018 to U+201D begin with E2 80 */
        size_t plain = curly ? (size_t)(curly - text) - at : n - at;
        ra_buf_add(out, text + at, plain);
        at += plain;
        if (at >= n) break;
        unsigned char third = at + 2 < n && (unsigned char)text[at + 1] == 0x80 ? (unsigned char)text[at + 2] : 0;
        if (third == 0x98 || third == 0x99) {
            ra_buf_adds(out, "'");
            at += 3;
        } else if (third == 0x9c || third == 0x9d) {
            ra_buf_adds(out, "\"");
            at += 3;
        } else {
            ra_buf_add(out, text + at, 1);
            at++;
        }
    }
}

static void fold(const char *text, size_t n, ra_buf *out)
{
    size_t i = 0;
    while (i < n && (unsigned char)text[i] < 0x80) i++;
    if (i == n) {
        ra_buf_reserve(out, n);
        for (i = 0; i < n; i++) out->data[out->length + i] = (char)(text[i] >= 'A' && text[i] <= 'Z' ? text[i] + 32 : text[i]);
        out->length += n;
        out->data[out->length] = '\0';
        return;
    }
    utf8proc_uint8_t *mapped = NULL;
    utf8proc_ssize_t length = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n, &mapped,
                                           UTF8PROC_CASEFOLD | UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    if (length < 0) ra_die("case folding of %zu bytes: %s", n, utf8proc_errmsg(length)); /* the text is valid: memory only */
    ra_buf_add(out, mapped, (size_t)length);
    free(mapped);
}

void ra_text_form(const char *text, size_t n, bool folding, ra_buf *out)
{
    if (!folding) {
        add_straight(text, n, out);
        return;
    }
    ra_buf straight = {0};
    ra_buf_adds(&straight, "");
    add_straight(text, n, &straight);
    fold(straight.data, straight.length, out);
    ra_buf_free(&straight);
}

const ra_buf *ra_subject_form(ra_subject *s, bool folding)
{
    bool *has = folding ? &s->has_folded : &s->has_straight;
    ra_buf *form = folding ? &s->folded : &s->straight;
    if (*has) return form;
    ra_buf_clear(form);
    ra_buf_adds(form, "");
    ra_text_form(s->text.data, s->text.length, folding, form);
    *has = true;
    return form;
}

/* ---- counts ---- */
/* Length in bytes of a list mark at the start of a line ("- ", "* ", "12. ", "3) " and the bullets), 0 without one. */
static size_t list_mark(const char *text, size_t n)
{
    size_t length;
    if (n == 0) return 0;
    utf8proc_int32_t c = read_point(text, n, &length);
    if (c >= '0' && c <= '9') {
        size_t digits = 0;
        while (digits < n && digits < 4 && text[digits] >= '0' && text[digits] <= '9') digits++;
        if (digits > 3 || digits >= n || (text[digits] != '.' && text[digits] != ')')) return 0;
        length = digits + 1;
    } else if (c != '-' && c != '*' && c != '+' && c != 0x2022 && c != 0x2013 && c != 0x25e6 && c != 0x25aa) {
        return 0;
    }
    return length < n && (text[length] == ' ' || text[length] == '\t') ? length + 1 : 0;
}

static int64_t count_words(const char *text, size_t n)
{
    int64_t words = 0;
    bool inside = false;
    for (size_t at = 0, length; at < n; at += length) {
        utf8proc_int32_t c = read_point(text + at, n - at, &length);
        if (is_ideograph(c)) {
            words++;
            inside = false;
        } else if (is_word_point(c)) {
            words += !inside;
            inside = true;
        } else if (inside && (c == '\'' || c == 0x2019 || c == '-' || c == '.' || c == ',')) {
            /* don't, well-known and 3.5 are one word; a full stop or comma joins digits alone */
            size_t next_length = 0;
            utf8proc_int32_t next = at + length < n ? read_point(text + at + length, n - at - length, &next_length) : ' ';
            bool joins = is_word_point(next) && !is_ideograph(next);
            if (c == '.' || c == ',') joins = next >= '0' && next <= '9' && text[at - 1] >= '0' && text[at - 1] <= '9';
            inside = joins;
        } else {
            inside = false;
        }
    }
    return words;
}

static bool is_closing(utf8proc_int32_t c)
{
    return c == '"' || c == '\'' || c == ')' || c == ']' || c == '*' || c == '_' || c == 0x201d || c == 0x2019 || c == 0xbb;
}

/* A run of . ! ? or an ellipsis ends a sentence when white space or the end of the text follows (closing quotes and brackets between) and the next
 * letter is not lower case; full-width marks need no space; a line end always ends one. A sentence holds at least one word. */
static int64_t count_sentences(const char *text, size_t n)
{
    int64_t sentences = 0;
    bool has_word = false, line_start = true;
    for (size_t at = 0, length; at < n; at += length) {
        if (line_start) {
            size_t mark = list_mark(text + at, n - at);
            line_start = false;
            if (mark) {
                length = mark;
                continue;
            }
        }
        utf8proc_int32_t c = read_point(text + at, n - at, &length);
        bool ends = false;
        if (is_line_end(c)) {
            ends = line_start = true;
        } else if (is_word_point(c)) {
            has_word = true;
        } else if (c == 0x3002 || c == 0xff01 || c == 0xff1f) {
            ends = true;
        } else if (c == '.' || c == '!' || c == '?' || c == 0x2026) {
            size_t ahead = at + length, step;
            utf8proc_int32_t next = ' ';
            while (ahead < n && is_closing(next = read_point(text + ahead, n - ahead, &step))) ahead += step;
            ends = ahead >= n || is_space(next);
            while (ends && ahead < n && is_space(next = read_point(text + ahead, n - ahead, &step))) ahead += step;
            if (ends && ahead < n && c != '!' && c != '?' && utf8proc_category(next) == UTF8PROC_CATEGORY_LL) ends = false;
        }
        if (ends && has_word) {
            sentences++;
            has_word = false;
        }
    }
    return sentences + has_word;
}

/* Lines that hold more than white space; those after a blank line (or the first); those with a list mark. */
static void count_lines(ra_subject *s)
{
    const char *text = s->text.data;
    size_t n = s->text.length;
    int64_t lines = 0, paragraphs = 0, items = 0;
    bool after_blank = true;
    for (size_t at = 0; at < n;) {
        const char *newline = memchr(text + at, '\n', n - at);
        size_t end = newline ? (size_t)(newline - text) : n, first = at, length;
        while (first < end && is_space(read_point(text + first, end - first, &length))) first += length;
        if (first < end) {
            lines++;
            paragraphs += after_blank;
            items += list_mark(text + first, end - first) != 0;
        }
        after_blank = first >= end;
        at = end + 1;
    }
    s->count[RA_COUNT_LINES] = lines;
    s->count[RA_COUNT_PARAGRAPHS] = paragraphs;
    s->count[RA_COUNT_LIST_ITEMS] = items;
}

static void count_points(ra_subject *s)
{
    int64_t characters = 0, questions = 0, exclamations = 0;
    for (size_t at = 0, length; at < s->text.length; at += length) {
        utf8proc_int32_t c = read_point(s->text.data + at, s->text.length - at, &length);
        characters++;
        questions += c == '?' || c == 0xff1f || c == 0x61f;
        exclamations += c == '!' || c == 0xff01;
    }
    s->count[RA_COUNT_CHARACTERS] = characters;
    s->count[RA_COUNT_QUESTION_MARKS] = questions;
    s->count[RA_COUNT_EXCLAMATION_MARKS] = exclamations;
}

int64_t ra_subject_count(ra_subject *s, ra_count_kind kind)
{
    if (s->count[kind] >= 0) return s->count[kind];
    switch (kind) {
    case RA_COUNT_WORDS: s->count[kind] = count_words(s->text.data, s->text.length); break;
    case RA_COUNT_SENTENCES: s->count[kind] = count_sentences(s->text.data, s->text.length); break;
    case RA_COUNT_LINES:
    case RA_COUNT_PARAGRAPHS:
    case RA_COUNT_LIST_ITEMS: count_lines(s); break;
    default: count_points(s); break;
    }
    return s->count[kind];
}
