/* Text to value, by the type of its key. Numbers are read in the C locale's form whatever the environment says. */
#include "schema.h"
#include <realign/settings.h>

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *name;
    double factor;
} unit;

static const unit byte_units[] = {{"B", 1},        {"kB", 1e3},     {"KB", 1e3},     {"MB", 1e6},     {"GB", 1e9}, {"TB", 1e12},
                                  {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40}, {"bytes", 1}};
static const unit time_units[] = {{"ms", 1e-3}, {"s", 1}, {"sec", 1}, {"min", 60}, {"h", 3600}, {"d", 86400}};

static const unit *find_unit(const unit *table, size_t n, const char *text, size_t length)
{
    for (size_t i = 0; i < n; i++) {
        if (strlen(table[i].name) == length && strncmp(table[i].name, text, length) == 0) return &table[i];
    }
    return NULL;
}

/* A decimal number (no "inf", "nan" or hexadecimal form) at the start of `text`; NULL without one. */
static const char *read_number(const char *text, double *out)
{
    const char *at = text + (*text == '-' || *text == '+');
    if (!((*at >= '0' && *at <= '9') || *at == '.')) return NULL;
    if (at[0] == '0' && (at[1] == 'x' || at[1] == 'X')) return NULL;
    char *end;
    *out = strtod(text, &end);
    if (end == text || !isfinite(*out)) return NULL;
    return end;
}

/* [d-]hh:mm:ss or mm:ss, as batch systems write it. */
static bool read_clock(const char *text, double *seconds)
{
    unsigned days = 0, part[3];
    int n = 0, used = 0;
    if (sscanf(text, "%5u-%n", &days, &used) != 1 || used == 0) {
        days = 0;
        used = 0;
    }
    const char *at = text + used;
    while (n < 3) {
        int length = 0;
        if (*at < '0' || *at > '9' || sscanf(at, "%6u%n", &part[n], &length) != 1) return false;
        n++;
        at += length;
        if (*at != ':') break;
        at++;
    }
    if (*at || n < 2 || (used && n != 3)) return false;
    for (int i = 1; i < n; i++) {
        if (part[i] > 59) return false;
    }
    *seconds = 86400.0 * days + (n == 3 ? 3600.0 * part[0] + 60.0 * part[1] + part[2] : 60.0 * part[0] + part[1]);
    return true;
}

/* One number with an optional unit; a sum of several where `sums`. A number alone has the factor 1. */
static bool read_units(const char *text, const unit *table, size_t n, bool sums, double *out)
{
    double total = 0;
    int parts = 0;
    for (const char *at = text; *at; parts++) {
        double number;
        const char *end = read_number(at, &number);
        if (!end || (parts && !sums) || (parts && number < 0)) return false;
        while (*end == ' ') end++;
        size_t length = strspn(end, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");
        if (length == 0) {
            if (parts || *end) return false;
            *out = number;
            return true;
        }
        const unit *found = find_unit(table, n, end, length);
        if (!found) return false;
        total += number * found->factor;
        at = end + length;
        while (*at == ' ') at++;
    }
    *out = total;
    return parts > 0;
}

static bool read_integer(const char *text, int64_t *out)
{
    errno = 0;
    char *end;
    long long whole = strtoll(text, &end, 10);
    if (end != text && *end == '\0' && errno == 0) {
        *out = whole;
        return true;
    }
    double number; /* 1e6 and 4.0 are whole numbers too */
    const char *rest = read_number(text, &number);
    if (!rest || *rest || number != floor(number) || fabs(number) > 0x1p53) return false;
    *out = (int64_t)number;
    return true;
}

static bool in_range(const ra_key *key, double number)
{
    return (key->above_low ? number > key->low : number >= key->low) && number <= key->high;
}

static void refuse(const ra_key *key, const char *text, ra_buf *problem)
{
    if (key->type == RA_KEY_ENV || key->type == RA_KEY_URL) {
        ra_buf_adds(problem, "what stands there (not shown, as it may be a secret) is not accepted; give ");
    } else {
        ra_buf_addf(problem, "'%.80s' is not accepted; give ", text);
    }
    ra_schema_accepted(key, problem);
    if (key->why) ra_buf_addf(problem, " (%s)", key->why);
    if (!key->words) return;
    const char *words[16];
    char *copy = ra_strdup(key->words), *state = NULL;
    int n = 0;
    for (char *word = strtok_r(copy, "|", &state); word && n < 16; word = strtok_r(NULL, "|", &state)) words[n++] = word;
    const char *nearest = ra_nearest_name(text, words, n);
    if (nearest) ra_buf_addf(problem, " (nearest: %s)", nearest);
    free(copy);
}

bool ra_set_is_variable_name(const char *text)
{
    return !(*text >= '0' && *text <= '9') && strlen(text) <= 64 &&
           text[strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")] == '\0';
}

/* Canonical text of a list has RA_LIST_SEPARATOR before each item. */
static void split_items(ra_value *value)
{
    for (char *at = value->text; *at;) {
        size_t length = 1;
        while (at[length] && at[length] != RA_LIST_SEPARATOR) length++;
        value->items = ra_realloc(value->items, (size_t)value->n_items + 1, sizeof *value->items);
        value->items[value->n_items++] = ra_strndup(at + 1, length - 1);
        at += length;
    }
}

/* "a, b" and "[a, b]" become canonical; canonical text is kept, whatever its items hold. */
static char *list_text(const char *text)
{
    if (*text == RA_LIST_SEPARATOR) return ra_strdup(text);
    size_t n = strlen(text);
    if (n >= 2 && text[0] == '[' && text[n - 1] == ']') {
        text++;
        n -= 2;
    }
    ra_buf out = {0};
    ra_buf_adds(&out, "");
    for (size_t at = 0, end; at < n; at = end + 1) {
        end = at;
        while (end < n && text[end] != ',') end++;
        size_t first = at, last = end;
        while (first < last && text[first] == ' ') first++;
        while (last > first && text[last - 1] == ' ') last--;
        if (last == first) continue;
        ra_buf_addf(&out, "%c", RA_LIST_SEPARATOR);
        ra_buf_add(&out, text + first, last - first);
    }
    return out.data;
}

bool ra_value_parse(const ra_key *key, const char *text, ra_value *out, ra_buf *problem)
{
    ra_value value = {0};
    bool good = true;
    switch (key->type) {
    case RA_KEY_TEXT: value.text = ra_strdup(text); break;
    case RA_KEY_URL:
        good = text[strcspn(text, "@?#")] == '\0';
        if (good) value.text = ra_strdup(text);
        break;
    case RA_KEY_ENV:
        good = ra_set_is_variable_name(text);
        if (good) value.text = ra_strdup(text);
        break;
    case RA_KEY_WORD:
        good = ra_word_in(key->words, text);
        if (good) value.text = ra_strdup(text);
        break;
    case RA_KEY_LIST:
    case RA_KEY_MAP:
        value.text = list_text(text);
        split_items(&value);
        for (int i = 0; i < value.n_items && key->type == RA_KEY_MAP; i++) {
            const char *equal = strchr(value.items[i], '=');
            good = good && equal && equal > value.items[i] && equal[1];
        }
        for (int i = 0; key->words && i < value.n_items; i++) {
            if (ra_word_in(key->words, value.items[i])) continue;
            refuse(key, value.items[i], problem);
            ra_value_free(&value);
            return false;
        }
        break;
    case RA_KEY_BOOL:
        value.yes = ra_word_in("true|yes|on|True|1", text);
        good = value.yes || ra_word_in("false|no|off|False|0", text);
        if (good) value.text = ra_strdup(value.yes ? "true" : "false");
        break;
    case RA_KEY_INT: good = read_integer(text, &value.integer) && in_range(key, (double)value.integer); break;
    case RA_KEY_BYTES:
        good = read_units(text, byte_units, sizeof byte_units / sizeof *byte_units, false, &value.real) &&
               in_range(key, value.real) && value.real == floor(value.real);
        if (good) value.integer = (int64_t)value.real;
        break;
    case RA_KEY_REAL: {
        const char *end = read_number(text, &value.real);
        good = end && !*end && in_range(key, value.real);
        break;
    }
    case RA_KEY_TIME:
        good = (read_clock(text, &value.real) ||
                read_units(text, time_units, sizeof time_units / sizeof *time_units, true, &value.real)) &&
               in_range(key, value.real);
        break;
    }
    if (!good) {
        ra_value_free(&value);
        refuse(key, text, problem);
        return false;
    }
    if (key->type == RA_KEY_INT || key->type == RA_KEY_BYTES) value.text = ra_format("%lld", (long long)value.integer);
    if (key->type == RA_KEY_REAL || key->type == RA_KEY_TIME) {
        value.text = ra_format("%.15g", value.real); /* short where that is exact: 0.1, not 0.10000000000000001 */
        if (strtod(value.text, NULL) != value.real) {
            free(value.text);
            value.text = ra_format("%.17g", value.real);
        }
    }
    ra_value_free(out);
    *out = value;
    return true;
}

void ra_value_free(ra_value *value)
{
    free(value->text);
    for (int i = 0; i < value->n_items; i++) free(value->items[i]);
    free(value->items);
    *value = (ra_value){0};
}
