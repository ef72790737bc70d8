/* Small files for tests: a folder of the test's own under $TMPDIR, removed at the end; the shared data folder. */
#ifndef TESTS_SUPPORT_TEXTFILE_H
#define TESTS_SUPPORT_TEXTFILE_H
#include <stddef.h>

/* The path of `name` in the test's folder; made on first use. Free with free. */
char *textfile_path(const char *name);
/* Writes bytes to `name` in the test's folder and returns its path. Free with free. */
char *textfile_write(const char *name, const void *bytes, size_t n);
char *textfile_write_text(const char *name, const char *text);
char *textfile_write_gz(const char *name, const void *bytes, size_t n);
char *textfile_write_zst(const char *name, const void *bytes, size_t n); /* one frame */
/* The path of a shared file ($REALIGN_SHARED, or ../shared), or NULL with a line on stderr where it is absent. Free with free. */
char *textfile_shared(const char *name);
/* cmocka group teardown: removes the folder. */
int textfile_cleanup(void **state);

#endif
