#define _GNU_SOURCE /* nftw */
#include "support.h"
#include <realign/file.h>
#include <realign/mem.h>

#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool is_close(double got, double want, double rel, double abs, const char *what)
{
    double bound = fmax(abs, rel * fabs(want));
    if (!isnan(got) && !isnan(want) && (got == want || fabs(got - want) <= bound)) return true;
    print_error("%s: got %.17g, want %.17g, off by %.3g, allowed %.3g (relative %.3g, absolute %.3g)\n", what, got, want,
                fabs(got - want), bound, rel, abs);
    return false;
}

void check_close_at(double got, double want, double rel, double abs, const char *what, const char *file, int line)
{
    if (!is_close(got, want, rel, abs, what)) _fail(file, line);
}

void check_ok_at(ra_err err, const char *what, const char *file, int line)
{
    if (err == RA_OK) return;
    print_error("%s: %s: %s\n", what, ra_error_name(err), ra_error_message());
    _fail(file, line);
}

void check_fails_at(const char *file, int line, ra_err err, ra_err code, ...)
{
    if (err != code) {
        print_error("expected '%s', got '%s' (%s)\n", ra_error_name(code), ra_error_name(err),
                    err == RA_OK ? "no message" : ra_error_message());
        _fail(file, line);
    }
    bool good = true;
    va_list words;
    va_start(words, code);
    for (const char *word = va_arg(words, const char *); word; word = va_arg(words, const char *)) {
        if (strstr(ra_error_message(), word)) continue;
        print_error("the message '%s' lacks '%s'\n", ra_error_message(), word);
        good = false;
    }
    va_end(words);
    if (!good) _fail(file, line);
}

char *test_dir_make(void)
{
    const char *base = getenv("TMPDIR");
    char *dir = ra_format("%s/realign-test-XXXXXX", base && *base ? base : "/tmp");
    if (!mkdtemp(dir)) ra_die("cannot make a temporary directory %s: %m", dir);
    return dir;
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *at)
{
    (void)info, (void)kind, (void)at;
    return remove(path);
}

void test_dir_remove(char *dir)
{
    nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    free(dir);
}

const char *test_shared(void)
{
    const char *dir = getenv("REALIGN_SHARED");
    if (!dir || !*dir) dir = "../shared";
    return ra_file_is_dir(dir) ? dir : NULL;
}

char *test_shared_path(const char *relative)
{
    const char *shared = test_shared();
    char *path = ra_path_join(shared ? shared : "../shared", relative);
    if (ra_file_exists(path)) return path;
    print_message("# SKIP: %s is not here\n", path);
    free(path);
    skip();
    return NULL;
}
