/* Memory that cannot fail quietly: every call ends the run with a message where malloc would return NULL. */
#ifndef REALIGN_MEM_H
#define REALIGN_MEM_H
#include <stddef.h>

/* n * size bytes, 64-byte aligned, zeroed; free with ra_free. Overflow of n * size is fatal. */
void *ra_calloc(size_t n, size_t size);
/* The same, not zeroed. */
void *ra_alloc(size_t n, size_t size);
/* Grows or shrinks memory from malloc or ra_realloc (not from ra_alloc/ra_calloc); free with free. */
void *ra_realloc(void *pointer, size_t n, size_t size);
void ra_free(void *pointer);
char *ra_strdup(const char *text);                                              /* free with free */
char *ra_strndup(const char *text, size_t length);                              /* free with free */
char *ra_format(const char *format, ...) __attribute__((format(printf, 1, 2))); /* free with free */

/* Peak resident set of this process so far, bytes. */
size_t ra_peak_rss(void);

/* A byte string that grows. Always NUL-terminated once anything was added; `{0}` is empty. */
typedef struct {
    char *data;
    size_t length, capacity;
} ra_buf;

void ra_buf_reserve(ra_buf *buf, size_t more);
void ra_buf_add(ra_buf *buf, const void *bytes, size_t n);
void ra_buf_adds(ra_buf *buf, const char *text);
void ra_buf_addf(ra_buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
void ra_buf_clear(ra_buf *buf); /* keeps the memory */
void ra_buf_free(ra_buf *buf);

#endif
