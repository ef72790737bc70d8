/* `realign inspect` of a model: its tokenizer and chat template, and whether they fit the weights. */
#include "open_text.h"
#include "tool_inspect.h"

#include <realign/mem.h>

#include <ctype.h>
#include <stdio.h>

static void print_label(const char *label)
{
    printf("  %-26s ", label);
}

static void print_shown(const char *text, size_t n)
{
    for (size_t i = 0; i < n && i < 200; i++) putchar(iscntrl((unsigned char)text[i]) ? ' ' : text[i]);
}

static void print_token(const ra_tokenizer *t, const char *label, int32_t id)
{
    ra_buf text = {0};
    print_label(label);
    if (id >= 0 && ra_tokenizer_decode(t, &id, 1, false, &text) == RA_OK) {
        printf("%d ", id);
        print_shown(text.data ? text.data : "", text.length);
        puts("");
    } else {
        puts("none");
    }
    ra_buf_free(&text);
}

static void print_fit(const ra_tokenizer *t, const ra_modelfile *file)
{
    int64_t rows = ra_model_rows(file), ids = ra_tokenizer_vocabulary_size(t);
    print_label("ids and rows");
    if (rows < 0) {
        printf("%lld ids; the model says nothing of its rows\n", (long long)ids);
    } else if (ids > rows) {
        printf("%lld ids, %lld rows: DOES NOT FIT, ids from %lld up have no row\n", (long long)ids, (long long)rows,
               (long long)rows);
    } else {
        printf("%lld ids, %lld rows (%lld of them without a token)\n", (long long)ids, (long long)rows, (long long)(rows - ids));
    }
}

static void print_template(const ra_tokenizer *t)
{
    ra_template *tpl;
    const int32_t *stop;
    if (ra_template_open("auto", t, &tpl) != RA_OK) {
        print_label("chat template");
        printf("%s\n", ra_error_message());
        return;
    }
    print_label("chat template");
    printf("%s, recognised\n", ra_template_name(tpl));
    int n = ra_template_stop_ids(tpl, &stop);
    for (int i = 0; i < n; i++) print_token(t, i ? "" : "answers end with", stop[i]);
    ra_template_close(tpl);
}

void ra_inspect_text(const char *path, const ra_modelfile *file)
{
    ra_tokenizer *t;
    if (ra_tokenizer_open(path, &t) != RA_OK) {
        printf("tokenizer: %s\n", ra_error_message());
        return;
    }
    printf("tokenizer: %s, %s\n", ra_tokenizer_source(t), ra_tokenizer_kind(t));
    print_fit(t, file);
    print_token(t, "BOS", ra_tokenizer_bos(t));
    print_token(t, "EOS", ra_tokenizer_eos(t));
    print_template(t);
    ra_tokenizer_close(t);
}
