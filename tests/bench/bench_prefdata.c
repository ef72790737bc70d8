/* Reading preference data: rows and MB of text a processor-second (one thread reads) and peak memory, for lines and an array, plain and packed, and what one rank of four spends. A million rows of
 * a file made here. usage: bench_prefdata [ROWS [FOLDER]]; the files go to FOLDER, else $TMPDIR or /tmp. */
#include <realign/file.h>
#include <realign/mem.h>
#include <realign/prefdata.h>
#include <realign/rng.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

static void add_words(ra_rng *rng, ra_buf *out, int n)
{
    static const char *const words[] = {"the",    "of",     "river",      "because",    "they", "question",
                                        "answer", "slowly", "\\n\\nThen", "caf\\u00e9", "is",   "12"};
    for (int i = 0; i < n; i++) ra_buf_addf(out, "%s%s", i ? " " : "", words[ra_rng_below(rng, 12)]);
}

static void add_row(ra_rng *rng, ra_buf *out, int64_t i)
{
    ra_buf_addf(out, "{\"prompt\": \"%lld ", (long long)i);
    add_words(rng, out, 12);
    ra_buf_adds(out, "\", \"chosen\": \"");
    add_words(rng, out, 10 + (int)ra_rng_below(rng, 40));
    ra_buf_adds(out, "\", \"rejected\": \"");
    add_words(rng, out, 10 + (int)ra_rng_below(rng, 40));
    ra_buf_adds(out, "\", \"category\": \"none\"}");
}

typedef struct {
    FILE *plain, *array, *zst;
    gzFile gz;
    ZSTD_CCtx *zstd;
    char packed[1 << 17];
    bool failed;
} outputs;

static void pack(outputs *o, const ra_buf *text, ZSTD_EndDirective end)
{
    ZSTD_inBuffer in = {text->data, text->length, 0};
    for (size_t left = 1; left > 0 || in.pos < in.size;) {
        ZSTD_outBuffer out = {o->packed, sizeof o->packed, 0};
        left = ZSTD_compressStream2(o->zstd, &out, &in, end);
        o->failed |= ZSTD_isError(left) || fwrite(o->packed, 1, out.pos, o->zst) != out.pos;
        if (o->failed || (end == ZSTD_e_continue && in.pos == in.size)) break;
    }
}

/* Bytes of text, or -1. */
static double make_files(char *const path[4], int64_t rows)
{
    outputs *o = ra_calloc(1, sizeof *o);
    o->plain = fopen(path[0], "wb");
    o->array = fopen(path[1], "wb");
    o->gz = gzopen(path[2], "wb1");
    o->zst = fopen(path[3], "wb");
    o->zstd = ZSTD_createCCtx();
    o->failed = !o->plain || !o->array || !o->gz || !o->zst;
    ra_rng rng = ra_rng_make(1, RA_STREAM_TEST);
    ra_buf text = {0};
    double bytes = 0;
    for (int64_t i = 0; i < rows && !o->failed; i++) {
        ra_buf_clear(&text);
        add_row(&rng, &text, i);
        fprintf(o->array, "%s%s", i ? ",\n" : "[", text.data);
        ra_buf_adds(&text, "\n");
        bytes += (double)text.length;
        o->failed |=
            fwrite(text.data, 1, text.length, o->plain) != text.length || gzwrite(o->gz, text.data, (unsigned)text.length) <= 0;
        pack(o, &text, ZSTD_e_continue);
    }
    ra_buf_clear(&text);
    if (!o->failed) fputs("]\n", o->array), pack(o, &text, ZSTD_e_end);
    if (o->plain) o->failed |= fclose(o->plain) != 0;
    if (o->array) o->failed |= fclose(o->array) != 0;
    if (o->zst) o->failed |= fclose(o->zst) != 0;
    if (o->gz) o->failed |= gzclose(o->gz) != Z_OK;
    bool failed = o->failed;
    ZSTD_freeCCtx(o->zstd);
    ra_buf_free(&text);
    ra_free(o);
    return failed ? -1 : bytes;
}

static int read_file(const char *what, const char *path, double bytes, int64_t rows, int ranks)
{
    ra_prefdata *data;
    if (ra_prefdata_open(&path, 1, "auto", 0, &data) != RA_OK) return fprintf(stderr, "%s\n", ra_error_message());
    clock_t begin = clock();
    ra_err err = RA_OK;
    for (bool more = true; err == RA_OK && more;) {
        const ra_row *row;
        ra_row_status status;
        err = ra_prefdata_next(data, 0, ranks, 256, &row, &status, &more);
    }
    double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
    bool whole = err == RA_OK && ra_prefdata_counts(data)->rows == rows;
    if (!whole) fprintf(stderr, "%s: %s\n", what, err == RA_OK ? "rows are missing" : ra_error_message());
    if (whole)
        printf("  %-28s %10.0f rows/s %8.1f MB/s   peak %5.1f MiB\n", what, (double)rows / seconds, bytes * 1e-6 / seconds,
               (double)ra_peak_rss() / 1048576);
    ra_prefdata_close(data);
    return !whole;
}

/* Every hash once, in rounds of 256, on this one rank. */
static void find_duplicates(int64_t rows)
{
    const ra_comm alone = {MPI_COMM_SELF, 0, 1};
    ra_duplicates *d = ra_duplicates_new(&alone);
    ra_rng rng = ra_rng_make(2, RA_STREAM_TEST);
    ra_hash hash[256];
    int64_t id[256], first[256];
    clock_t begin = clock();
    for (int64_t at = 0; at < rows; at += 256) {
        for (int i = 0; i < 256; i++) hash[i] = (ra_hash){ra_rng_u64(&rng), ra_rng_u64(&rng)}, id[i] = at + i;
        ra_duplicates_add(d, hash, id, 256, first);
    }
    printf("  %-28s %10.0f rows/s                 peak %5.1f MiB\n", "duplicates, one rank",
           (double)rows * CLOCKS_PER_SEC / (double)(clock() - begin), (double)ra_peak_rss() / 1048576);
    ra_duplicates_free(d);
}

int main(int argc, char **argv)
{
    MPI_Init(NULL, NULL);
    int64_t rows = argc > 1 ? strtoll(argv[1], NULL, 10) : 1000000;
    const char *base = argc > 2 ? argv[2] : getenv("TMPDIR");
    char *dir = ra_format("%s/realign-bench-XXXXXX", base && *base ? base : "/tmp");
    if (!mkdtemp(dir)) return perror(dir), 1;
    static const char *const names[4] = {"rows.jsonl", "rows.json", "rows.jsonl.gz", "rows.jsonl.zst"};
    char *path[4];
    for (int i = 0; i < 4; i++) path[i] = ra_path_join(dir, names[i]);
    double bytes = make_files(path, rows);
    int failed = bytes < 0;
    if (failed) fprintf(stderr, "%s: cannot write the files\n", dir);
    if (!failed) {
        printf("%lld rows, %.0f MB of text\n", (long long)rows, bytes * 1e-6);
        failed = read_file("JSON Lines", path[0], bytes, rows, 1) || read_file("one rank of four", path[0], bytes, rows, 4) ||
                 read_file("a JSON array", path[1], bytes, rows, 1) || read_file("one rank of four", path[1], bytes, rows, 4) ||
                 read_file("gzip", path[2], bytes, rows, 1) || read_file("zstd", path[3], bytes, rows, 1) ||
                 read_file("zstd, one rank of four", path[3], bytes, rows, 4);
        find_duplicates(rows);
    }
    for (int i = 0; i < 4; i++) {
        unlink(path[i]);
        free(path[i]);
    }
    rmdir(dir);
    free(dir);
    MPI_Finalize();
    return failed;
}
