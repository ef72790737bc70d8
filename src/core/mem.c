#include <realign/error.h>
#include <realign/mem.h>

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static size_t product(size_t n, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes) || bytes > (size_t)PTRDIFF_MAX) {
        ra_die("a request for %zu x %zu bytes of memory overflows", n, size);
    }
    return bytes;
}

void *ra_alloc(size_t n, size_t size)
{
    size_t bytes = product(n, size);
    size_t rounded = (bytes + 63) / 64 * 64;
    void *pointer = aligned_alloc(64, rounded ? rounded : 64);
    if (!pointer) ra_die("out of memory: %zu bytes (%.2f GiB)", bytes, (double)bytes / (1 << 30));
    return pointer;
}

void *ra_calloc(size_t n, size_t size)
{
    void *pointer = ra_alloc(n, size);
    memset(pointer, 0, n * size);
    return pointer;
}

void *ra_realloc(void *pointer, size_t n, size_t size)
{
    size_t bytes = product(n, size);
    void *grown = realloc(pointer, bytes ? bytes : 1);
    if (!grown) ra_die("out of memory: %zu bytes (%.2f GiB)", bytes, (double)bytes / (1 << 30));
    return grown;
}

void ra_free(void *pointer)
{
    free(pointer);
}

char *ra_strndup(const char *text, size_t length)
{
    char *copy = ra_realloc(NULL, length + 1, 1);
    memcpy(copy, text, length);
    copy[length] = '\0';
    return copy;
}

char *ra_strdup(const char *text)
{
    return ra_strndup(text, strlen(text));
}

char *ra_format(const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = ra_realloc(NULL, (size_t)n + 1, 1);
    vsnprintf(text, (size_t)n + 1, format, again);
    va_end(again);
    return text;
}

size_t ra_peak_rss(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (size_t)usage.ru_maxrss * 1024;
}

void ra_buf_reserve(ra_buf *buf, size_t more)
{
    size_t need = buf->length + more + 1;
    if (need <= buf->capacity) return;
    size_t capacity = buf->capacity ? buf->capacity : 256;
    while (capacity < need) capacity *= 2;
    buf->data = ra_realloc(buf->data, capacity, 1);
    buf->capacity = capacity;
}

void ra_buf_add(ra_buf *buf, const void *bytes, size_t n)
{
    ra_buf_reserve(buf, n);
    if (n) memcpy(buf->data + buf->length, bytes, n);
    buf->length += n;
    buf->data[buf->length] = '\0';
}

void ra_buf_adds(ra_buf *buf, const char *text)
{
    ra_buf_add(buf, text, strlen(text));
}

void ra_buf_addf(ra_buf *buf, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    ra_buf_reserve(buf, (size_t)n);
    vsnprintf(buf->data + buf->length, (size_t)n + 1, format, again);
    va_end(again);
    buf->length += (size_t)n;
}

void ra_buf_clear(ra_buf *buf)
{
    buf->length = 0;
    if (buf->data) buf->data[0] = '\0';
}

void ra_buf_free(ra_buf *buf)
{
    free(buf->data);
    *buf = (ra_buf){0};
}
