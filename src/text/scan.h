/* Hand-written scanners for the regular expressions of the known byte-level tokenizers; the same splits as the expression
 * makes, without its price. */
#ifndef REALIGN_TEXT_SCAN_H
#define REALIGN_TEXT_SCAN_H
#include "unicode.h"

/* The end of the word that starts at s[i]; i < n. Every byte of a text belongs to a word. */
typedef size_t (*ra_scan)(const ra_unicode *u, const uint8_t *s, size_t n, size_t i);

#define RA_PATTERN_GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define RA_PATTERN_CL100K(numbers)                                        \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" numbers \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define RA_PATTERN_LLAMA3 RA_PATTERN_CL100K("\\p{N}{1,3}")
#define RA_PATTERN_QWEN2 RA_PATTERN_CL100K("\\p{N}")

/* The scanner for a pattern's exact text, NULL where there is none. */
ra_scan ra_scan_for(const char *pattern);

#endif
