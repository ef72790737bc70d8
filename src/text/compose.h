/* utf8proc's normal forms in time that grows with the text: utf8proc_decompose and utf8proc_map order combining marks by exchanging
 * neighbours, quadratic in the length of a run of marks, and texts come from anyone. */
#ifndef REALIGN_TEXT_COMPOSE_H
#define REALIGN_TEXT_COMPOSE_H
#include <realign/mem.h>
#include <stdbool.h>
#include <stdint.h>

/* Code points with room to work in; {0} at first, free code with free. */
typedef struct {
    int32_t *code;
    size_t capacity;
} ra_compose_work;

/* The code points that utf8proc_map would give for s under `options` (of utf8proc_option_t; UTF8PROC_COMPOSE or UTF8PROC_DECOMPOSE
 * among them, and neither CHARBOUND nor NULLTERM), in w->code. Returns their number, or -1 where s is no valid UTF-8. */
int64_t ra_compose(const uint8_t *s, size_t n, int options, ra_compose_work *w);

#endif
