#include "jsontext.h"

#include <string.h>
#include <utf8proc.h>

/* Length of the code point at text[0 .. n); 0 where the bytes are not UTF-8. */
static size_t point_length(const char *text, size_t n)
{
    utf8proc_int32_t point;
    utf8proc_ssize_t got = utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n, &point);
    return got > 0 ? (size_t)got : 0;
}

json_t *ra_json_string_of(const char *text)
{
    if (!text) text = "";
    size_t n = strlen(text);
    json_t *as_is = json_stringn(text, n);
    if (as_is) return as_is;
    ra_buf mended = {0};
    for (size_t at = 0, length; at < n; at += length) {
        length = point_length(text + at, n - at);
        if (length) {
            ra_buf_add(&mended, text + at, length);
        } else {
            ra_buf_adds(&mended, "\xef\xbf\xbd");
            length = 1;
        }
    }
    json_t *string = json_stringn(mended.data, mended.length);
    ra_buf_free(&mended);
    return string;
}

json_t *ra_json_turns(const ra_message *messages, int n)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++) {
        json_t *turn = json_object();
        json_object_set_new(turn, "role", ra_json_string_of(messages[i].role));
        json_object_set_new(turn, "content", ra_json_string_of(messages[i].content));
        json_array_append_new(list, turn);
    }
    return list;
}

void ra_text_quote(ra_buf *out, const char *text, size_t n, size_t most)
{
    ra_buf_adds(out, "");
    size_t used = 0;
    for (size_t at = 0, length; at < n; at += length) {
        length = point_length(text + at, n - at);
        if (used + (length ? length : 1) > most) {
            ra_buf_adds(out, "...");
            return;
        }
        unsigned char first = (unsigned char)text[at];
        bool control = first < 0x20 || first == 0x7f || (first == 0xc2 && length == 2 && (unsigned char)text[at + 1] < 0xa0);
        if (length == 0) {
            ra_buf_adds(out, "?");
            length = 1;
        } else if (control) {
            ra_buf_adds(out, " ");
        } else {
            ra_buf_add(out, text + at, length);
        }
        used += length;
    }
}
