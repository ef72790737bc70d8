/* Added tokens: pieces of text that become one token before anything else looks at them (special tokens, user-defined ones). */
#ifndef REALIGN_TEXT_ADDED_H
#define REALIGN_TEXT_ADDED_H
#include <realign/mem.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    int32_t id;
    char *text; /* as decoded and looked up */
    size_t length;
    bool special, single_word, lstrip, rstrip;
    bool normalized; /* found in the normal text, else in the raw one */
    bool piece;      /* ... as it is, without going through the normaliser itself (SentencePiece's user-defined pieces) */
} ra_added;

/* A set of texts, found leftmost first and longest first. */
typedef struct ra_added_node ra_added_node;
typedef struct {
    ra_added_node *nodes;
    int32_t n, capacity;
    bool starts[256]; /* bytes that begin one of them */
    int only;         /* the one such byte, or -1 */
} ra_added_trie;

void ra_added_trie_add(ra_added_trie *trie, const void *text, size_t n, int32_t index);
void ra_added_trie_free(ra_added_trie *trie);

typedef struct {
    size_t begin, end;
    int32_t index; /* what ra_added_trie_add was given */
} ra_added_match;
/* The next match that begins at or after `from`. */
bool ra_added_trie_next(const ra_added_trie *trie, const uint8_t *s, size_t n, size_t from, ra_added_match *out);

/* Length of the longest match that begins at s, 0: none. */
size_t ra_added_trie_at(const ra_added_trie *trie, const uint8_t *s, size_t n);

#endif
