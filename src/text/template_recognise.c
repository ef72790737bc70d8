/* Which of the known templates a Jinja text is. Only texts known to render as a row does are accepted: a template that merely
 * looks alike (other defaults, tools always on) would train the model on the wrong text, so it is refused instead. */
#include "template_impl.h"

#include <realign/hash.h>
#include <stdlib.h>
#include <string.h>

static bool blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool ident(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* A string literal from its opening quote: copied with single quotes and with newlines as \n; returns what follows it. */
static const char *literal(const char *p, ra_buf *out)
{
    char quote = *p++;
    ra_buf_adds(out, "'");
    for (; *p && *p != quote; p++) {
        if (*p == '\\' && p[1]) {
            if (p[1] != '"') ra_buf_add(out, p, 1);
            ra_buf_add(out, ++p, 1);
        } else if (*p == '\n') {
            ra_buf_adds(out, "\\n");
        } else if (*p == '\'') {
            ra_buf_adds(out, "\\'");
        } else {
            ra_buf_add(out, p, 1);
        }
    }
    ra_buf_adds(out, "'");
    return *p ? p + 1 : p;
}

/* ['name'] -> .name; returns what follows, or NULL where p is something else. */
static const char *subscript(const char *p, ra_buf *out)
{
    if (*p++ != '[') return NULL;
    while (blank(*p)) p++;
    char quote = *p;
    if (quote != '\'' && quote != '"') return NULL;
    const char *name = ++p;
    while (ident(*p)) p++;
    const char *end = p;
    if (end == name || *p++ != quote) return NULL;
    while (blank(*p)) p++;
    if (*p != ']') return NULL;
    ra_buf_adds(out, ".");
    ra_buf_add(out, name, (size_t)(end - name));
    return p + 1;
}

/* Where a tag or the text itself ends: what Jinja does with the white space there. */
typedef struct {
    char kind; /* '%', '{', '#'; 0 at either end of the text */
    bool dash; /* white space on this side is cut away */
} edge;

/* White space between two tags as transformers renders it (trim_blocks, lstrip_blocks; one newline at the very end is
 * dropped). */
static void gap(const char *p, size_t n, edge before, edge after, ra_buf *out)
{
    if (before.dash || after.dash) return;
    if (n && *p == '\n' && (before.kind == '%' || before.kind == '#')) p++, n--;
    if (n && p[n - 1] == '\n' && !after.kind) n--;
    size_t line = n;
    while (line > 0 && p[line - 1] != '\n') line--;
    bool line_start = line > 0 || before.kind == '%' || before.kind == '#' || !before.kind;
    if (line_start && (after.kind == '%' || after.kind == '#')) n = line;
    ra_buf_add(out, p, n);
}

/* A tag with its inside, or a comment without; returns what follows. */
static const char *tag(const char *p, ra_buf *out, edge *end)
{
    *end = (edge){p[1], false};
    if (p[1] == '#') {
        const char *stop = strstr(p + 2, "#}");
        end->dash = stop && stop > p + 2 && stop[-1] == '-';
        return stop ? stop + 2 : p + strlen(p);
    }
    ra_buf_add(out, p, 2);
    p += 2;
    if (*p == '-' || *p == '+') p++;
    while (*p && !((*p == '%' || *p == '}') && p[1] == '}')) {
        const char *after;
        end->dash = *p == '-';
        if (blank(*p) || (*p == '-' && (p[1] == '%' || p[1] == '}') && p[2] == '}')) {
            p++;
        } else if (*p == '\'' || *p == '"') {
            p = literal(p, out);
        } else if ((after = subscript(p, out))) {
            p = after;
        } else {
            ra_buf_add(out, p++, 1);
        }
    }
    if (!*p) return p;
    ra_buf_add(out, p, 2);
    return p + 2;
}

static bool opens_tag(const char *p)
{
    return p[0] == '{' && (p[1] == '#' || p[1] == '%' || p[1] == '{');
}

static void normal_form(const char *p, ra_buf *out)
{
    ra_buf_adds(out, "");
    edge before = {0};
    while (*p) {
        const char *text = p;
        while (*p && !opens_tag(p)) p++;
        edge after = {*p ? p[1] : '\0', *p && p[2] == '-'};
        const char *first = text, *last = p;
        while (first < last && blank(*first)) first++;
        if (first == last) {
            gap(text, (size_t)(last - text), before, after, out);
        } else {
            ra_buf_add(out, text, (size_t)(last - text)); /* literal text: every byte counts */
        }
        if (*p) p = tag(p, out, &before);
    }
}

static char *unescape(const char *s, size_t n)
{
    ra_buf out = {0};
    ra_buf_adds(&out, "");
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        if (c == '\\' && i + 1 < n) {
            c = s[++i];
            if (c == 'n') c = '\n';
            if (c == 't') c = '\t';
        }
        ra_buf_add(&out, &c, 1);
    }
    return out.data;
}

uint64_t ra_jinja_fingerprint(const char *text, char **system)
{
    static const char HEAD[] = "'<|im_start|>system\\n", TAIL[] = "<|im_end|>";
    ra_buf normal = {0}, stripped = {0};
    *system = NULL;
    normal_form(text, &normal);
    size_t n = 0;
    const char *value = "";
    for (char *at = normal.data; !n && (at = strstr(at, HEAD));) {
        at += sizeof HEAD - 1;
        const char *end = at;
        while (*end && *end != '\'' && strncmp(end, TAIL, sizeof TAIL - 1) != 0) end += *end == '\\' && end[1] ? 2 : 1;
        if (*end == '<') value = at, n = (size_t)(end - at);
    }
    for (const char *p = normal.data; *p;) {
        if (n && !strncmp(p, value, n)) {
            ra_buf_adds(&stripped, "\x01");
            p += n;
        } else {
            ra_buf_add(&stripped, p++, 1);
        }
    }
    if (n) *system = unescape(value, n);
    ra_hash hash = ra_hash_bytes(stripped.data ? stripped.data : "", stripped.length);
    ra_buf_free(&normal);
    ra_buf_free(&stripped);
    return hash.low;
}

/* Fingerprints of the templates that models carry, and the row that renders the same. */
static const struct {
    uint64_t fingerprint;
    const char *row;
} KNOWN[] = {
    {0x64163d2bfc0a6c7a, "chatml"},   /* the loop over messages alone */
    {0x64f4f6607f5fa980, "chatml"},   /* after "if not add_generation_prompt is defined" */
    {0xc005f2adab745f7b, "smollm2"},  /* with a system turn where there is none; Qwen2 too, its text apart */
    {0x1dfcd603cd83c763, "smollm2"},  /* both */
    {0x107124ea7b19fbf8, "qwen2.5"},  /* Qwen2.5 Instruct, tools */
    {0x552716cc3396d55a, "llama3"},   /* Meta-Llama-3 Instruct with add_generation_prompt */
    {0x72af642e31c28f29, "llama3"},   /* after "if not add_generation_prompt is defined" */
    {0xdb78aebe0b373529, "llama3.1"}, /* Llama-3.1 Instruct, tools */
    {0x36d8253ea0a15af9, "llama3.2"}, /* Llama-3.2 Instruct, tools */
};

/* The row that renders like `row` and has this very system text, so that the name tells the model; else plain ChatML with
 * that text. */
static const ra_template_row *with_system(const ra_template_row *row, const char *system)
{
    if (!system || !strcmp(row->system, system)) return row;
    const ra_template_row *other = ra_template_row_find("chatml");
    for (int i = 0; i < RA_TEMPLATE_ROW_COUNT; i++) {
        const ra_template_row *r = &RA_TEMPLATE_ROWS[i];
        if (r->render == row->render && r->system && !strcmp(r->system, system)) return r;
    }
    return row->render == other->render ? other : row;
}

const ra_template_row *ra_template_recognise(const char *text, uint64_t *fingerprint, char **system)
{
    *fingerprint = ra_jinja_fingerprint(text, system);
    for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++) {
        if (KNOWN[i].fingerprint == *fingerprint) return with_system(ra_template_row_find(KNOWN[i].row), *system);
    }
    return NULL;
}
