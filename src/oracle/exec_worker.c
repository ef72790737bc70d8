/* Bytes to and from one copy of the program. */
#include "exec_impl.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { CHUNK = 65536, WORDS_LIMIT = 8192 };

void ra_exec_worker_write(ra_exec_worker *w)
{
    while (w->process.in >= 0 && w->written < w->to_write.length) {
        ssize_t n = write(w->process.in, w->to_write.data + w->written, w->to_write.length - w->written);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno != EAGAIN) ra_process_close(&w->process.in); /* its end shows elsewhere */
        if (n <= 0) return;
        w->written += (size_t)n;
    }
    if (w->written < w->to_write.length) return;
    ra_buf_clear(&w->to_write);
    w->written = 0;
}

/* Appends what is there, at most `most` bytes at a time; closes the file at its end. */
static void read_some(int *file, ra_buf *into, size_t most)
{
    char bytes[CHUNK];
    for (size_t got = 0; *file >= 0 && got < most;) {
        ssize_t n = read(*file, bytes, sizeof bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) {
            ra_process_close(file);
            return;
        }
        ra_buf_add(into, bytes, (size_t)n);
        got += (size_t)n;
    }
}

bool ra_exec_worker_read(ra_exec_worker *w)
{
    read_some(&w->process.out, &w->output, RA_EXEC_LINE_LIMIT);
    read_some(&w->process.err, &w->words, CHUNK);
    if (w->words.length > WORDS_LIMIT && !memchr(w->words.data, '\n', w->words.length)) ra_buf_adds(&w->words, "\n");
    return w->output.length <= RA_EXEC_LINE_LIMIT || memchr(w->output.data, '\n', w->output.length);
}

bool ra_exec_next_line(const ra_buf *text, size_t *at, const char **line, size_t *n)
{
    if (*at >= text->length) return false;
    const char *from = text->data + *at, *end = memchr(from, '\n', text->length - *at);
    if (!end) return false;
    *line = from;
    *n = (size_t)(end - from);
    *at += *n + 1;
    if (*n && from[*n - 1] == '\r') (*n)--;
    return true;
}

void ra_exec_drop(ra_buf *text, size_t n)
{
    if (n == 0) return;
    memmove(text->data, text->data + n, text->length - n);
    text->length -= n;
    text->data[text->length] = '\0';
}
