/* Text and numbers for HTML and SVG. */
#include <realign/report.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Length of the UTF-8 character at `s`; 0 where there is none. Surrogates, overlong forms and what lies beyond U+10FFFF are none. */
static size_t character(const unsigned char *s)
{
    if (s[0] < 0x80) return 1;
    size_t n = s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3 : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
    }
    if (s[0] == 0xe0 && s[1] < 0xa0) return 0;
    if (s[0] == 0xed && s[1] >= 0xa0) return 0;
    if (s[0] == 0xf0 && s[1] < 0x90) return 0;
    if (s[0] == 0xf4 && s[1] >= 0x90) return 0;
    return n;
}

void ra_html_text(ra_buf *out, const char *text)
{
    static const char replacement[] = "\xef\xbf\xbd";
    const unsigned char *s = (const unsigned char *)text;
    while (s && *s) {
        size_t n = character(s);
        bool control = (s[0] < 0x20 && s[0] != '\t' && s[0] != '\n') || s[0] == 0x7f || (s[0] == 0xc2 && s[1] < 0xa0);
        if (n == 0 || control) {
            ra_buf_adds(out, replacement);
        } else if (*s == '<') {
            ra_buf_adds(out, "&lt;");
        } else if (*s == '>') {
            ra_buf_adds(out, "&gt;");
        } else if (*s == '&') {
            ra_buf_adds(out, "&amp;");
        } else if (*s == '"') {
            ra_buf_adds(out, "&quot;");
        } else if (*s == '\'') {
            ra_buf_adds(out, "&#39;");
        } else {
            ra_buf_add(out, s, n);
        }
        s += n ? n : 1;
    }
}

void ra_html_count(ra_buf *out, int64_t value)
{
    char digits[32];
    int n = snprintf(digits, sizeof digits, "%llu", value < 0 ? 0ull - (unsigned long long)value : (unsigned long long)value);
    if (value < 0) ra_buf_adds(out, "\u2212");
    for (int i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0) ra_buf_adds(out, ",");
        ra_buf_add(out, &digits[i], 1);
    }
}

void ra_html_real(ra_buf *out, double value, int digits)
{
    if (!isfinite(value)) {
        ra_buf_adds(out, "\u2013");
        return;
    }
    char text[64];
    snprintf(text, sizeof text, "%.*g", digits, fabs(value));
    char *e = strchr(text, 'e');
    int exponent = 0;
    if (e) {
        sscanf(e + 1, "%d", &exponent);
        *e = '\0';
        if (exponent > 0 && exponent < 7) { /* %g goes over to powers of ten at `digits` figures */
            snprintf(text, sizeof text, "%.0f", fabs(value));
            e = NULL;
        }
    }
    if (value < 0.0) ra_buf_adds(out, "\u2212");
    ra_buf_adds(out, text);
    if (e) ra_buf_addf(out, "\u00d710<sup>%s%d</sup>", exponent < 0 ? "\u2212" : "", exponent < 0 ? -exponent : exponent);
}
