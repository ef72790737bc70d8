#include "added.h"

#include <stdlib.h>
#include <string.h>

struct ra_added_node {
    uint8_t byte;
    int32_t child, sibling; /* 0: none; node 0 is the root */
    int32_t index;          /* -1: nothing ends here */
};

static int32_t new_node(ra_added_trie *trie, uint8_t byte)
{
    if (trie->n == trie->capacity) {
        trie->capacity = trie->capacity ? 2 * trie->capacity : 64;
        trie->nodes = ra_realloc(trie->nodes, (size_t)trie->capacity, sizeof *trie->nodes);
    }
    trie->nodes[trie->n] = (ra_added_node){.byte = byte, .index = -1};
    return trie->n++;
}

static int32_t find_child(const ra_added_trie *trie, int32_t node, uint8_t byte)
{
    int32_t child = trie->nodes[node].child;
    while (child && trie->nodes[child].byte != byte) child = trie->nodes[child].sibling;
    return child;
}

void ra_added_trie_add(ra_added_trie *trie, const void *text, size_t n, int32_t index)
{
    const uint8_t *s = text;
    if (!trie->n) new_node(trie, 0);
    int32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t child = find_child(trie, node, s[i]);
        if (!child) {
            child = new_node(trie, s[i]);
            trie->nodes[child].sibling = trie->nodes[node].child;
            trie->nodes[node].child = child;
        }
        node = child;
    }
    trie->nodes[node].index = index;
    trie->starts[s[0]] = true;
    int count = 0;
    trie->only = -1;
    for (int c = 0; c < 256; c++) {
        if (trie->starts[c]) count++, trie->only = c;
    }
    if (count != 1) trie->only = -1;
}

void ra_added_trie_free(ra_added_trie *trie)
{
    free(trie->nodes);
    *trie = (ra_added_trie){0};
}

/* The longest match at s[i]; its index is -1 where there is none. */
static ra_added_match match_at(const ra_added_trie *trie, const uint8_t *s, size_t n, size_t i)
{
    ra_added_match m = {i, i, -1};
    int32_t node = 0;
    for (size_t j = i; j < n && (node = find_child(trie, node, s[j])); j++) {
        if (trie->nodes[node].index >= 0) m.index = trie->nodes[node].index, m.end = j + 1;
    }
    return m;
}

bool ra_added_trie_next(const ra_added_trie *trie, const uint8_t *s, size_t n, size_t from, ra_added_match *out)
{
    if (!trie->n) return false;
    for (size_t i = from; i < n; i++) {
        if (trie->only >= 0) {
            const uint8_t *hit = memchr(s + i, trie->only, n - i);
            if (!hit) return false;
            i = (size_t)(hit - s);
        } else if (!trie->starts[s[i]]) {
            continue;
        }
        *out = match_at(trie, s, n, i);
        if (out->index >= 0) return true;
    }
    return false;
}

size_t ra_added_trie_at(const ra_added_trie *trie, const uint8_t *s, size_t n)
{
    if (!trie->n || !n || !trie->starts[s[0]]) return 0;
    return match_at(trie, s, n, 0).end;
}
