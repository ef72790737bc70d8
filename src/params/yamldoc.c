#include <realign/yamldoc.h>

#include <realign/file.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LONGEST_NAME = 64,
    MESSAGE_ROOM = 3900 /* bytes of one error message, less than core/error.c holds */
};

void ra_problem(ra_problems *list, const char *where, size_t line, const char *key, const char *format, ...)
{
    list->count++;
    if (list->text.length > 2 * MESSAGE_ROOM) return; /* counted; the message has no room for it */
    if (list->text.length) ra_buf_adds(&list->text, "\n");
    ra_buf_adds(&list->text, where);
    if (line) ra_buf_addf(&list->text, ":%zu", line);
    ra_buf_adds(&list->text, ": ");
    if (key && *key) ra_buf_addf(&list->text, "%.200s: ", key);
    va_list args;
    va_start(args, format);
    char text[1024];
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    ra_buf_adds(&list->text, text);
}

ra_err ra_problems_end(ra_problems *list, ra_err code)
{
    ra_err err = RA_OK;
    if (list->count && list->text.length <= MESSAGE_ROOM) {
        err = ra_fail(code, "%s", list->text.data);
    } else if (list->count) {
        size_t end = MESSAGE_ROOM;
        while (end > 0 && list->text.data[end] != '\n') end--;
        if (end == 0) end = MESSAGE_ROOM;
        int shown = 1;
        for (size_t i = 0; i < end; i++) shown += list->text.data[i] == '\n';
        err = ra_fail(code, "%.*s\nand %d more", (int)end, list->text.data, list->count - shown);
    }
    ra_buf_free(&list->text);
    *list = (ra_problems){0};
    return err;
}

int ra_edit_distance(const char *a, const char *b)
{
    size_t na = strnlen(a, LONGEST_NAME - 1), nb = strnlen(b, LONGEST_NAME - 1);
    int row[LONGEST_NAME]; /* row[j]: distance between the first i bytes of a and the first j of b */
    for (size_t j = 0; j <= nb; j++) row[j] = (int)j;
    for (size_t i = 1; i <= na; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= nb; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[nb];
}

const char *ra_nearest_name(const char *word, const char *const *known, int n)
{
    const char *best = NULL, *word_dot = strrchr(word, '.');
    const char *word_last = word_dot ? word_dot + 1 : word;
    int best_distance = 1 << 20;
    for (int i = 0; i < n; i++) {
        const char *dot = strrchr(known[i], '.'), *last = dot ? dot + 1 : known[i];
        int distance = 2 * ra_edit_distance(word, known[i]);
        int by_last = 2 * ra_edit_distance(word_last, last) + 1; /* a whole match wins over one of the last part */
        if (by_last < distance && strlen(word_last) > 1) distance = by_last;
        if (distance < best_distance) {
            best_distance = distance;
            best = known[i];
        }
    }
    int allowed = 2 * (int)(strnlen(word, LONGEST_NAME) / 3 + 1) + 1;
    return best_distance <= allowed ? best : NULL;
}

bool ra_word_in(const char *words, const char *word)
{
    size_t n = strlen(word);
    for (const char *at = words; n && *at; at += strcspn(at, "|"), at += *at == '|') {
        if (strcspn(at, "|") == n && memcmp(at, word, n) == 0) return true;
    }
    return false;
}

static ra_err fail_at_mark(const yaml_parser_t *parser, const char *path)
{
    const char *problem = parser->problem ? parser->problem : "not YAML";
    if (parser->error == YAML_READER_ERROR) {
        return ra_fail(RA_ERR_FORMAT, "%s: not YAML text: %s at byte %zu", path, problem, parser->problem_offset);
    }
    if (parser->error == YAML_MEMORY_ERROR) return ra_fail(RA_ERR_DATA, "%s: libyaml ran out of memory", path);
    return ra_fail(RA_ERR_FORMAT, "%s:%zu:%zu: not YAML: %s%s%s", path, parser->problem_mark.line + 1,
                   parser->problem_mark.column + 1, problem, parser->context ? ", " : "", parser->context ? parser->context : "");
}

ra_err ra_yaml_parse(const char *path, const char *text, size_t length, ra_yaml *out)
{
    *out = (ra_yaml){.path = path};
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser)) return ra_fail(RA_ERR_DATA, "%s: libyaml ran out of memory", path);
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, length);
    ra_err err = RA_OK;
    if (!yaml_parser_load(&parser, &out->document)) {
        err = fail_at_mark(&parser, path);
        out->path = NULL;
    } else {
        out->root = yaml_document_get_root_node(&out->document);
        yaml_document_t next;
        if (out->root && !yaml_parser_load(&parser, &next)) {
            err = fail_at_mark(&parser, path);
        } else if (out->root) {
            yaml_node_t *second = yaml_document_get_root_node(&next);
            if (second) {
                err = ra_fail(RA_ERR_FORMAT, "%s:%zu: a second YAML document begins; one per file is read", path,
                              second->start_mark.line + 1);
            }
            yaml_document_delete(&next);
        }
    }
    yaml_parser_delete(&parser);
    if (err != RA_OK) ra_yaml_free(out);
    return err;
}

ra_err ra_yaml_read(const char *path, ra_yaml *out)
{
    *out = (ra_yaml){0};
    if (ra_file_is_dir(path)) return ra_fail(RA_ERR_IO, "%s: a directory, not a YAML file", path);
    ra_buf text = {0};
    ra_err err = ra_file_read(path, &text);
    if (err == RA_OK) err = ra_yaml_parse(path, text.data ? text.data : "", text.length, out);
    ra_buf_free(&text);
    return err;
}

void ra_yaml_free(ra_yaml *y)
{
    if (y->path) yaml_document_delete(&y->document);
    *y = (ra_yaml){0};
}

yaml_node_t *ra_yaml_node(ra_yaml *y, int index)
{
    return yaml_document_get_node(&y->document, index);
}

size_t ra_yaml_line(const yaml_node_t *node)
{
    return node->start_mark.line + 1;
}

const char *ra_yaml_text(const yaml_node_t *node)
{
    return node && node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;
}

bool ra_yaml_is_null(const yaml_node_t *node)
{
    const char *text = ra_yaml_text(node);
    if (!text) return false;
    bool plain = node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    return plain && (!*text || strcmp(text, "~") == 0 || strcmp(text, "null") == 0);
}

const char *ra_yaml_kind(const yaml_node_t *node)
{
    switch (node->type) {
    case YAML_SEQUENCE_NODE: return "a list";
    case YAML_MAPPING_NODE: return "a map";
    default: return "a single value";
    }
}
