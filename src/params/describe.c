/* Texts made from the schema: used.yaml, --help, doc/parameters.md. */
#include "store.h"

#include <string.h>

/* A scalar that reads back as the same text: plain where that is safe, else in double quotes. */
static void add_scalar(ra_buf *out, const char *text)
{
    bool plain = *text && strcmp(text, "null") && text[strlen(text) - 1] != ' ';
    for (const char *p = text; *p && plain; p++) {
        unsigned char c = (unsigned char)*p;
        bool safe = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || strchr("/._+-", c) || c >= 0x80;
        plain = safe && !(p == text && strchr("-+", c) && (p[1] < '0' || p[1] > '9'));
    }
    if (plain) {
        ra_buf_adds(out, text);
        return;
    }
    ra_buf_adds(out, "\"");
    for (const char *p = text; *p; p++) {
        unsigned char c = (unsigned char)*p;
        if (c == '"' || c == '\\') {
            ra_buf_addf(out, "\\%c", c);
        } else if (c < 0x20 || c == 0x7f) {
            ra_buf_addf(out, "\\x%02x", c);
        } else {
            ra_buf_addf(out, "%c", c);
        }
    }
    ra_buf_adds(out, "\"");
}

static void add_value(ra_buf *out, const ra_key *key, const ra_value *value)
{
    if (key->type != RA_KEY_LIST && key->type != RA_KEY_MAP) {
        add_scalar(out, value->text);
        return;
    }
    ra_buf_adds(out, "[");
    for (int i = 0; i < value->n_items; i++) {
        if (i) ra_buf_adds(out, ", ");
        add_scalar(out, value->items[i]);
    }
    ra_buf_adds(out, "]");
}

void ra_settings_write_yaml(const ra_settings *s, ra_buf *out)
{
    const char *group = "";
    size_t group_length = 0;
    for (int i = 0; i < ra_schema_count; i++) {
        const char *name = ra_schema[i].name, *dot = strchr(name, '.');
        size_t length = dot ? (size_t)(dot - name) : 0;
        const char *section = ra_schema_section(name);
        if (section) ra_buf_addf(out, "%s# %s\n", i ? "\n" : "", section);
        if (length && (length != group_length || memcmp(name, group, length))) ra_buf_addf(out, "%.*s:\n", (int)length, name);
        group = name;
        group_length = length;
        size_t start = out->length;
        ra_buf_addf(out, "%s%s: ", dot ? "  " : "", dot ? dot + 1 : name);
        add_value(out, &ra_schema[i], &s->value[i]);
        size_t width = out->length - start;
        ra_buf_addf(out, "%*s  # ", width < 36 ? (int)(36 - width) : 0, "");
        switch (s->origin[i]) {
        case RA_FROM_DEFAULT: ra_buf_adds(out, "default"); break;
        case RA_FROM_FILE: ra_buf_addf(out, "%s line %zu", s->file, s->line[i]); break;
        case RA_FROM_PROGRAM: ra_buf_adds(out, "set by the program"); break;
        case RA_FROM_WORDS: ra_buf_adds(out, "command line"); break;
        }
        if (*ra_schema[i].unit) ra_buf_addf(out, "; %s", ra_schema[i].unit);
        ra_buf_adds(out, "\n");
    }
}

/* "default", "that of `model`". */
static void add_default(ra_buf *out, const ra_key *key, const char *quote)
{
    if (key->fallback[0] == '=') {
        ra_buf_addf(out, "that of %s%s%s", quote, key->fallback + 1, quote);
    } else if (*key->fallback) {
        ra_buf_addf(out, "%s%s%s", quote, key->fallback, quote);
    } else {
        ra_buf_adds(out, "empty");
    }
}

/* Words of `text`, broken before column 100, each line indented. */
static void add_wrapped(ra_buf *out, const char *text, int indent)
{
    int column = 0;
    while (*text) {
        int n = (int)strcspn(text, " ");
        if (column == 0 || column + 1 + n > 100) {
            ra_buf_addf(out, "%s%*s%.*s", column ? "\n" : "", indent, "", n, text);
            column = indent + n;
        } else {
            ra_buf_addf(out, " %.*s", n, text);
            column += 1 + n;
        }
        text += n;
        text += strspn(text, " ");
    }
    ra_buf_adds(out, "\n");
}

void ra_settings_help(ra_buf *out)
{
    ra_buf_adds(out,
                "Keys of the parameter file, or key=value on the command line, which wins. Nested maps and dots are the same:\n"
                "`train: {lr: 1e-4}` is `train.lr: 1e-4`.\n");
    for (int i = 0; i < ra_schema_count; i++) {
        const ra_key *key = &ra_schema[i];
        const char *section = ra_schema_section(key->name);
        if (section) ra_buf_addf(out, "\n%s\n", section);
        ra_buf_addf(out, "  %s  (", key->name);
        ra_schema_accepted(key, out);
        if (*key->unit) ra_buf_addf(out, "; %s", key->unit);
        ra_buf_adds(out, "; default ");
        add_default(out, key, "");
        ra_buf_adds(out, ")\n");
        add_wrapped(out, key->help, 6);
    }
}

static void add_cell(ra_buf *out, const char *text)
{
    for (; *text; text++) ra_buf_addf(out, *text == '|' ? "\\%c" : "%c", *text);
}

void ra_settings_markdown(ra_buf *out)
{
    ra_buf_adds(
        out,
        "# Parameters\n\n"
        "Made from the table in `src/params/schema.c` (`make check` compares). A key is given in the YAML parameter file or as\n"
        "`key=value` on the command line, which wins. Nested maps and dotted names are the same: `train: {lr: 1e-4}` is\n"
        "`train.lr: 1e-4`. A list is `[a, b]`, or `a,b` on the command line; a map `{a: b}`, or `a=b`. Times take units (`90`, "
        "`10min`, `1h30min`,\n"
        "`23:59:00`), sizes too (`64MiB`, `2GiB`). A run writes every value and where it came from to `used.yaml`.\n");
    for (int i = 0; i < ra_schema_count; i++) {
        const ra_key *key = &ra_schema[i];
        const char *section = ra_schema_section(key->name);
        if (section)
            ra_buf_addf(out, "\n## %s\n\n| key | default | accepts | unit | meaning |\n|---|---|---|---|---|\n", section);
        ra_buf_addf(out, "| `%s` | ", key->name);
        add_default(out, key, "`");
        ra_buf_adds(out, " | ");
        ra_buf accepted = {0};
        ra_schema_accepted(key, &accepted);
        add_cell(out, accepted.data);
        ra_buf_free(&accepted);
        ra_buf_addf(out, " | %s | ", key->unit);
        add_cell(out, key->help);
        ra_buf_adds(out, " |\n");
    }
}
