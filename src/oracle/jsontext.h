/* Texts of any origin as JSON strings. */
#ifndef RA_ORACLE_JSONTEXT_H
#define RA_ORACLE_JSONTEXT_H
#include <realign/mem.h>
#include <realign/tokenizer.h>
#include <jansson.h>

/* A new JSON string; bytes that are not UTF-8 become U+FFFD, as rules see them. NULL counts as "". */
json_t *ra_json_string_of(const char *text);
/* A new list of {"role", "content"}. */
json_t *ra_json_turns(const ra_message *messages, int n);
/* Appends at most `most` bytes of a text from outside for a message: on one line, without control characters, whole code points, "..." where it was cut. */
void ra_text_quote(ra_buf *out, const char *text, size_t n, size_t most);

#endif
