/* Copies of rows: the row, its messages and all their texts in one block. */
#include <realign/mem.h>
#include <realign/prefdata.h>

#include <string.h>

/* The texts of a row, in the order in which they are copied. */
typedef struct {
    const char **slot[8];
    int n;
} texts;

static texts texts_of(ra_row *row)
{
    const char **const all[] = {&row->chosen,      &row->rejected, &row->correction, &row->category,
                                &row->prompt_text, &row->why,      &row->file};
    texts t = {.n = 0};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (*all[i]) t.slot[t.n++] = all[i];
    }
    return t;
}

static const char *keep(char **at, const char *text)
{
    size_t n = strlen(text) + 1;
    char *copy = memcpy(*at, text, n);
    *at += n;
    return copy;
}

ra_row *ra_row_copy(const ra_row *row)
{
    ra_row from = *row;
    texts t = texts_of(&from);
    size_t head = sizeof *row + (size_t)row->n_prompt * sizeof *row->prompt, bytes = head;
    for (int i = 0; i < t.n; i++) bytes += strlen(*t.slot[i]) + 1;
    for (int i = 0; i < row->n_prompt; i++) bytes += strlen(row->prompt[i].role) + strlen(row->prompt[i].content) + 2;
    char *block = ra_alloc(bytes, 1), *at = block + head;
    ra_row *copy = (ra_row *)(void *)block;
    for (int i = 0; i < t.n; i++) *t.slot[i] = keep(&at, *t.slot[i]);
    *copy = from;
    copy->prompt = (ra_message *)(void *)(block + sizeof *row);
    for (int i = 0; i < row->n_prompt; i++) {
        copy->prompt[i].role = keep(&at, row->prompt[i].role);
        copy->prompt[i].content = keep(&at, row->prompt[i].content);
    }
    json_incref(copy->source);
    return copy;
}

void ra_row_free(ra_row *row)
{
    if (!row) return;
    json_decref(row->source);
    ra_free(row);
}
