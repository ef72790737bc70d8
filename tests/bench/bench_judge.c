/* Judging HH-RLHF pairs under a policy of some 600 tokens: items a second with the policy's keys and values kept, with the policy computed again in every pack, and with
 * nothing shared. Prints one table; with OUT also writes what a peer needs: ids, answer tokens, probabilities.
 *   bench_judge [MODEL [HH_JSONL_GZ [PAIRS [PRECISION [OUT]]]]]   MODEL: a directory or a GGUF file; default $REALIGN_DEMO_GGUF; data: those of $SHARED; 48 pairs
 */
#include "../../src/infer/ask.h"
#include "../../src/infer/judge_text.h"
#include <realign/file.h>
#include <realign/judge.h>
#include <realign/log.h>
#include <realign/mem.h>
#include <realign/prefdata.h>
#include <realign/timer.h>

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { PACK = 2048, LIMIT = 2048 };

typedef struct {
    ra_oracle_item *item;
    ra_verdict *verdict;
    int n;
} work;

static ra_message *copy_turns(const ra_row *row)
{
    ra_message *turns = ra_calloc((size_t)row->n_prompt, sizeof *turns);
    for (int i = 0; i < row->n_prompt; i++)
        turns[i] = (ra_message){ra_strdup(row->prompt[i].role), ra_strdup(row->prompt[i].content)};
    return turns;
}

static work read_work(const char *path, int pairs)
{
    work w = {.item = ra_calloc((size_t)(2 * pairs), sizeof *w.item),
              .verdict = ra_calloc((size_t)(2 * pairs), sizeof *w.verdict)};
    ra_prefdata *data;
    const ra_row *row;
    ra_row_status status;
    bool more = true;
    if (ra_prefdata_open(&path, 1, "hh", 100, &data) != RA_OK) ra_die("%s", ra_error_message());
    while (w.n < 2 * pairs) {
        if (ra_prefdata_next(data, 0, 1, 1, &row, &status, &more) != RA_OK) ra_die("%s", ra_error_message());
        if (!more) break;
        if (status != RA_ROW_OK) continue;
        ra_message *turns = copy_turns(row);
        for (int k = 0; k < 2; k++) {
            w.item[w.n++] = (ra_oracle_item){.prompt = turns[row->n_prompt - 1].content,
                                             .response = ra_strdup(k ? row->rejected : row->chosen),
                                             .response_index = k,
                                             .turns = turns,
                                             .n_turns = row->n_prompt};
        }
    }
    ra_prefdata_close(data);
    return w;
}

static void free_work(work *w)
{
    for (int i = 0; i < w->n; i++) {
        free((char *)(uintptr_t)w->item[i].response);
        if (i % 2) continue;
        for (int t = 0; t < w->item[i].n_turns; t++) {
            free((char *)(uintptr_t)w->item[i].turns[t].role);
            free((char *)(uintptr_t)w->item[i].turns[t].content);
        }
        ra_free((ra_message *)(uintptr_t)w->item[i].turns);
    }
    ra_free(w->item);
    ra_free(w->verdict);
}

static void keep_verdict(void *context, int item, const ra_verdict *verdict)
{
    ((work *)context)->verdict[item] = *verdict;
}

/* Wall-clock and processor time since `from`; the latter is disturbed less by a busy machine. */
typedef struct {
    double wall, processor;
} clocks;

static clocks clocks_now(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (clocks){ra_now(),
                    (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + 1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec)};
}

static void report(const char *what, int items, int64_t rows, clocks from)
{
    clocks now = clocks_now();
    printf("%-34s %8.2f items/s %8.2f items/processor-s %9lld rows computed\n", what, items / (now.wall - from.wall),
           items / (now.processor - from.processor), (long long)rows);
}

/* ---- the other two ways, by hand ---- */

static ra_err ignore(void *context, int64_t id, const double *logit, double lse)
{
    (void)id, (void)lse;
    *(double *)context += logit[0];
    return RA_OK;
}

static void nothing_shared(ra_model *m, const ra_judge_page *page, int n)
{
    double sum = 0.0;
    clocks began = clocks_now();
    ra_asker *a = ra_asker_new(m, NULL, PACK, NULL, 0, (const int32_t[]){0}, 1, ignore, &sum);
    for (int i = 0; i < n; i++) {
        if (ra_asker_add(a, i, page[i].rendered.ids.id, (int32_t)page[i].rendered.ids.count, 0) != RA_OK)
            ra_die("%s", ra_error_message());
    }
    if (ra_asker_flush(a) != RA_OK) ra_die("%s", ra_error_message());
    report("nothing shared", n, ra_asker_counts(a)->rows, began);
    ra_asker_free(a);
}

static void add(ra_pack *p, int32_t parent, const int32_t *token, int32_t from, int32_t to)
{
    p->segment[p->segments++] = (ra_segment){.parent = parent, .begin = p->rows, .end = p->rows + to - from};
    for (int32_t i = from; i < to; i++, p->rows++) p->token[p->rows] = token[i], p->position[p->rows] = i;
}

/* Packs of PACK rows, one tree each: the policy, under it conversations, under them replies. */
static void root_in_every_pack(ra_model *m, const ra_judge_form *form, const ra_judge_page *page, int n)
{
    ra_pack p = {.token = ra_alloc(PACK, sizeof(int32_t)),
                 .position = ra_alloc(PACK, sizeof(int32_t)),
                 .segment = ra_alloc(PACK, sizeof(ra_segment)),
                 .tree_begin = ra_calloc(2, sizeof(int32_t)),
                 .trees = 1};
    ra_activations *acts = ra_activations_new(m, PACK, &(ra_keeping){0});
    int64_t rows = 0;
    int32_t root = form->root_count;
    clocks began = clocks_now();
    for (int i = 0; i < n;) {
        p.rows = p.segments = 0;
        add(&p, -1, form->root, 0, root);
        for (; i + 1 < n; i += 2) { /* a pair: both replies of one conversation */
            const ra_ids *a = &page[i].rendered.ids, *b = &page[i + 1].rendered.ids;
            int32_t branch = page[i].branch;
            if (p.rows + a->count + b->count - branch - root > PACK) break;
            add(&p, 0, a->id, root, branch);
            int32_t stem = p.segments - 1;
            add(&p, stem, a->id, branch, (int32_t)a->count);
            add(&p, stem, b->id, branch, (int32_t)b->count);
        }
        if (p.segments == 1) ra_die("a pair does not fit into a pack of %d", PACK);
        p.tree_begin[1] = p.segments;
        ra_model_forward(m, 0, &p, acts, 0);
        rows += p.rows;
    }
    report("policy computed in every pack", n, rows, began);
    ra_activations_free(acts);
    void *memory[] = {p.token, p.position, p.segment, p.tree_begin};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++) ra_free(memory[i]);
}

static void write_peer(const char *path, const work *w, const ra_judge_page *page)
{
    FILE *out = fopen(path, "w");
    if (!out) ra_die("%s cannot be written", path);
    for (int i = 0; i < w->n; i++) {
        json_t *ids = json_array(), *line = json_object();
        for (int64_t k = 0; k < page[i].rendered.ids.count; k++)
            json_array_append_new(ids, json_integer(page[i].rendered.ids.id[k]));
        json_object_set_new(line, "ids", ids);
        json_object_set_new(line, "text", json_string(page[i].rendered.text.data));
        json_object_set_new(line, "probability", json_real((double)w->verdict[i].probability));
        json_object_set_new(line, "margin", json_real((double)w->verdict[i].margin));
        json_dumpf(line, out, JSON_COMPACT | JSON_REAL_PRECISION(17));
        fputc('\n', out);
        json_decref(line);
    }
    if (fclose(out)) ra_die("%s cannot be written", path);
}

int main(int argc, char **argv)
{
    const char *model = argc > 1 ? argv[1] : getenv("REALIGN_DEMO_GGUF"), *shared = getenv("SHARED");
    char *data = argc > 2 ? ra_strdup(argv[2])
                          : ra_format("%s/data/preference/hh-rlhf/harmless-base.part.jsonl.gz", shared ? shared : "../shared");
    if (!model || !*model || !ra_file_exists(data)) {
        printf("skipped: a model (or REALIGN_DEMO_GGUF) and HH-RLHF data are needed\n");
        free(data);
        return 0;
    }
    static const char *const yes[] = {"Yes", "yes", "YES"}, *const no[] = {"No", "no", "NO"};
    ra_judge_config config = {.model = model,
                              .tokenizer = model,
                              .chat_template = "auto",
                              .backend = "cpu",
                              .precision = argc > 4 ? argv[4] : "auto",
                              .yes = yes,
                              .no = no,
                              .n_yes = 3,
                              .n_no = 3,
                              .max_tokens = LIMIT,
                              .pack_tokens = PACK,
                              .threshold = 0.5};
    ra_log_setup(0, RA_LOG_INFO);
    work w = read_work(data, argc > 3 ? atoi(argv[3]) : 48);
    ra_buf policy = {0};
    const ra_oracle_ops *ops;
    void *state;
    if (ra_file_read("tests/bench/judge_policy.txt", &policy) != RA_OK ||
        ra_judge_open(&config, policy.data, &ops, &state) != RA_OK)
        ra_die("%s", ra_error_message());
    if (ops->judge(state, w.item, 2, keep_verdict, &w) != RA_OK)
        ra_die("%s", ra_error_message()); /* loads, and makes the products' primitives */
    ra_judge_counts before = ra_judge_counted(state);
    clocks began = clocks_now();
    if (ops->judge(state, w.item, w.n, keep_verdict, &w) != RA_OK) ra_die("%s", ra_error_message());
    ra_judge_counts after = ra_judge_counted(state);
    printf("%s\n", ra_judge_identity(state));
    report("policy kept (the judge)", w.n, after.rows - before.rows, began);
    int n_yes, n_answers;
    const int32_t *answer = ra_judge_answers(state, &n_yes, &n_answers);
    for (int i = 0; i < n_answers; i++)
        printf("%s%d%s",
               i == 0       ? "answer yes "
               : i == n_yes ? "answer no "
                            : "",
               answer[i], i + 1 == n_yes || i + 1 == n_answers ? "\n" : ",");
    ops->close(state);

    ra_backend *b;
    ra_modelfile *file;
    ra_model *m;
    ra_tokenizer *t;
    ra_judge_form form;
    if (ra_backend_open("cpu", config.precision, 0, &b) != RA_OK || ra_modelfile_open(model, &file) != RA_OK ||
        ra_tokenizer_open(model, &t) != RA_OK || ra_model_open(b, file, RA_FROZEN, NULL, LIMIT, NULL, &m) != RA_OK ||
        ra_judge_form_open(t, "auto", policy.data, yes[0], no[0], LIMIT, &form) != RA_OK)
        ra_die("%s", ra_error_message());
    ra_judge_page *page = ra_calloc((size_t)w.n, sizeof *page);
    int64_t tokens = 0;
    for (int i = 0; i < w.n; i++) {
        if (ra_judge_page_write(&form, &w.item[i], &page[i]) != RA_OK) ra_die("%s", ra_error_message());
        tokens += page[i].rendered.ids.count;
    }
    root_in_every_pack(m, &form, page, w.n);
    nothing_shared(m, page, w.n < 8 ? w.n : 8);
    printf("%d items, %lld tokens, %d of each in the shared policy\n", w.n, (long long)tokens, form.root_count);
    if (argc > 5) write_peer(argv[5], &w, page);
    for (int i = 0; i < w.n; i++) ra_judge_page_free(&page[i]);
    ra_free(page);
    ra_judge_form_close(&form);
    ra_tokenizer_close(t);
    ra_model_close(m);
    ra_modelfile_close(file);
    ra_backend_close(b);
    ra_buf_free(&policy);
    free_work(&w);
    free(data);
    return 0;
}
