/* Which of the known templates a Jinja text is. Only texts known to render as a row does are accepted: a template that merely
 * looks alike (other defaults, tools always on) would train the model on the wrong text, so it is refused instead. */
#include "template_impl.h"

#include <realign/hash.h>
#include <stdlib.h>
#include <string.h>

/* ---- the default system text, taken out so that texts that differ in it alone are one template ---- */

static const char HEAD[] = "<|im_start|>system\n", TAIL[] = "<|im_end|>", SET[] = " set system_message =";
enum { HEAD_LENGTH = sizeof HEAD - 1, TAIL_LENGTH = sizeof TAIL - 1, SET_LENGTH = sizeof SET - 1 };

/* A string literal of a normal form: [begin, end) inside its quotes, escapes as written. */
typedef struct {
    const char *begin, *end;
    bool sets_system; /* {% set system_message = '...' */
} literal;

/* The next literal at or behind *p, which is moved behind it. Quotes outside of tags are text. */
static bool next_literal(const char **p, bool *in_tag, literal *out)
{
    const char *s = *p;
    for (; *s; s++) {
        if (!*in_tag) {
            *in_tag = s[0] == '{' && (s[1] == '{' || s[1] == '%');
            if (*in_tag) s++;
        } else if (s[0] == ' ' && (s[1] == '}' || s[1] == '%') && s[2] == '}') {
            *in_tag = false;
            s += 2;
        } else if (*s == '\'') {
            out->sets_system = s - *p >= SET_LENGTH + 1 && !memcmp(s - SET_LENGTH - 1, SET, SET_LENGTH);
            out->begin = ++s;
            while (*s != '\'') s += *s == '\\' ? 2 : 1;
            out->end = s;
            *p = s + 1;
            return true;
        }
    }
    *p = s;
    return false;
}

/* The part of a literal that is the system text, where it has one. */
static bool system_part(const literal *whole, literal *part)
{
    *part = *whole;
    if (whole->sets_system) return whole->begin < whole->end;
    if (whole->end - whole->begin <= HEAD_LENGTH || memcmp(whole->begin, HEAD, HEAD_LENGTH) != 0) return false;
    part->begin += HEAD_LENGTH;
    part->end = part->begin;
    while (part->end < whole->end && strncmp(part->end, TAIL, TAIL_LENGTH) != 0) part->end += *part->end == '\\' ? 2 : 1;
    return part->end < whole->end && part->begin < part->end;
}

static char *unescape(const literal *part)
{
    ra_buf out = {0};
    ra_buf_adds(&out, "");
    for (const char *p = part->begin; p < part->end; p++) {
        if (*p == '\\') p++;
        ra_buf_add(&out, p, 1);
    }
    return out.data;
}

static bool same_text(const literal *a, const literal *b)
{
    return a->end - a->begin == b->end - b->begin && !memcmp(a->begin, b->begin, (size_t)(a->end - a->begin));
}

/* `normal` with \1 where the system text stood, as a whole literal or between HEAD and TAIL. */
static void take_system_out(const char *normal, ra_buf *out, char **system)
{
    const char *p = normal, *copied = normal;
    bool in_tag = false;
    literal l, part, value = {0};
    while (!value.begin && next_literal(&p, &in_tag, &l)) {
        if (system_part(&l, &part)) value = part;
    }
    if (value.begin) *system = unescape(&value);
    for (p = normal, in_tag = false; value.begin && next_literal(&p, &in_tag, &l);) {
        if (!same_text(&l, &value) && !(system_part(&l, &part) && same_text(&part, &value))) continue;
        if (same_text(&l, &value)) part = l;
        ra_buf_add(out, copied, (size_t)(part.begin - copied));
        ra_buf_adds(out, "\x01");
        copied = part.end;
    }
    ra_buf_adds(out, copied);
}

uint64_t ra_jinja_fingerprint(const char *text, char **system)
{
    ra_buf normal = {0}, stripped = {0};
    uint64_t fingerprint = 0;
    *system = NULL;
    if (ra_jinja_normal_form(text, &normal)) {
        take_system_out(normal.data, &stripped, system);
        fingerprint = ra_hash_bytes(stripped.data, stripped.length).low;
    }
    ra_buf_free(&normal);
    ra_buf_free(&stripped);
    return fingerprint;
}

/* ---- known texts ---- */

/* Fingerprints of the templates that models carry, and the row that renders the same. */
static const struct {
    uint64_t fingerprint;
    const char *row;
} KNOWN[] = {
    {0x52aaae525b7ff675, "chatml"},      /* the loop over messages alone */
    {0x01086023a1566efc, "chatml"},      /* after "if not add_generation_prompt is defined" */
    {0x400733bb309daaee, "smollm2"},     /* with a system turn where there is none; Qwen2 too, its text apart */
    {0x74de29408011f411, "smollm2"},     /* both */
    {0xe41f9bd1960d4fc6, "qwen2.5"},     /* Qwen2.5, tools; base, Instruct, Coder and Math differ in the system text */
    {0xec57b99ff5a4bf9e, "qwen-lf"},     /* Qwen as LLaMA-Factory writes it */
    {0xd201e1c2d5d389d0, "llama3"},      /* Meta-Llama-3 Instruct with add_generation_prompt */
    {0x609274ae63e9b665, "llama3"},      /* after "if not add_generation_prompt is defined" */
    {0xa045b49e24231fb8, "llama3-open"}, /* Meta-Llama-3 Instruct as it came out */
    {0x433fe94bbfbf3959, "llama3.1"},    /* Llama-3.1 Instruct, tools */
    {0xc50b7df5249238bd, "llama3.2"},    /* Llama-3.2 Instruct, tools */
    {0x6856bc191faa0975, "gemma2"},      /* Gemma 1 and 2 it */
    {0xff02d847ecfa4916, "llama2"},      /* Llama-2 chat */
    {0x04200c3f912df764, "mistral"},     /* Mistral-7B-Instruct-v0.2 */
    {0xc22da57d9adb8746, "mistral-v1"},  /* the same, with a system turn */
    {0x790198e3d99e98c9, "zephyr"},      /* Zephyr, TinyLlama chat */
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
    for (size_t i = 0; *fingerprint && i < sizeof KNOWN / sizeof *KNOWN; i++) {
        if (KNOWN[i].fingerprint == *fingerprint) return with_system(ra_template_row_find(KNOWN[i].row), *system);
    }
    free(*system);
    *system = NULL;
    return NULL;
}

const ra_template_row *ra_template_nearest(const char *text)
{
    const ra_template_row *nearest = NULL;
    int most = 0;
    for (int i = 0; i < RA_TEMPLATE_ROW_COUNT; i++) {
        const ra_template_row *row = &RA_TEMPLATE_ROWS[i];
        int n = 0;
        while (n < RA_TEMPLATE_MARKS && row->mark[n] && strstr(text, row->mark[n])) n++;
        if ((n == RA_TEMPLATE_MARKS || !row->mark[n]) && n > most) most = n, nearest = row;
    }
    return nearest;
}
