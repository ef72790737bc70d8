/* prepare on any number of ranks: the same files as on one, ids as the template gives them, nothing dropped in silence, stores reused only where nothing changed. */
#include "support/support.h"
#include <realign/file.h>
#include <realign/h5.h>
#include <realign/mem.h>
#include <realign/settings.h>
#include <realign/stage.h>
#include <realign/store.h>
#include <realign/tokenizer.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <utime.h>

enum {
    ROWS = 5 * RA_STORE_BLOCK + 91, /* 6 blocks: ranks do not all get as many */
    MALFORMED_ROW = 40,
    EMPTY_ROW = 301,
    LONG_PROMPT_ROW = 600,
    LONG_RESPONSE_ROW = 601,
    LAST_MALFORMED_ROW = ROWS - 1
};

static char *model_path(void)
{
    const char *shared = test_shared();
    char *path = ra_path_join(shared ? shared : "../shared", "data/models/smollm2");
    if (ra_file_exists(path)) return path;
    free(path);
    return NULL;
}

static void add_words(ra_buf *out, int64_t row, int64_t n)
{
    static const char *const words[] = {"river", "counts",      "slowly",     "a dozen", "caf\\u00e9",
                                        "12345", "under_score", "\\n\\nthen", "why?",    "\\ud83d\\ude00"};
    for (int64_t i = 0; i < n; i++) ra_buf_addf(out, "%s%s", i ? " " : "", words[(row * 7 + i * i + i) % 10]);
}

static void add_row(ra_buf *out, int64_t row)
{
    if (row == MALFORMED_ROW || row == LAST_MALFORMED_ROW) {
        ra_buf_adds(out, "{\"prompt\": \"cut off\n");
        return;
    }
    ra_buf_adds(out, "{\"prompt\": \"");
    add_words(out, row, row == LONG_PROMPT_ROW ? 400 : 3 + row % 17);
    ra_buf_adds(out, "\", \"chosen\": \"");
    if (row != EMPTY_ROW) add_words(out, row + 1, row == LONG_RESPONSE_ROW ? 400 : 1 + row % 23);
    ra_buf_adds(out, "\", \"rejected\": \"");
    if (row % 5 == 0) ra_buf_adds(out, "\\n"); /* melts with the template's newline */
    add_words(out, row + 2, 1 + row % 11);
    if (row % 4 == 0) {
        ra_buf_adds(out, "\", \"correction\": \"");
        add_words(out, row + 3, 2 + row % 5);
    }
    ra_buf_adds(out, "\"}\n");
}

typedef struct {
    char *dir, *model, *data;
    ra_settings *s;
} setup;

/* Collective. A data file and settings for it; no model: not to be run. */
static setup begin(const ra_comm *world)
{
    setup up = {.model = model_path()};
    if (!up.model) return up;
    up.dir = test_mpi_dir_make(world);
    up.data = ra_path_join(up.dir, "rows.jsonl");
    if (world->rank == 0) {
        ra_buf text = {0};
        for (int64_t row = 0; row < ROWS; row++) add_row(&text, row);
        if (ra_file_write(up.data, text.data, text.length) != RA_OK) ra_die("%s", ra_error_message());
        ra_buf_free(&text);
    }
    RA_MPI(MPI_Barrier(world->comm));
    up.s = ra_settings_new();
    if (ra_set_put(up.s, "model", up.model) != RA_OK || ra_set_put(up.s, "data.path", up.data) != RA_OK ||
        ra_set_put(up.s, "run.dir", up.dir) != RA_OK) {
        ra_die("%s", ra_error_message());
    }
    return up;
}

static void end(const ra_comm *world, setup *up)
{
    ra_settings_free(up->s);
    free(up->data);
    free(up->model);
    if (up->dir) test_mpi_dir_remove(world, up->dir);
}

static const char *compare_files(const char *dir_a, const char *dir_b, const char *name)
{
    char *path_a = ra_path_join(dir_a, name), *path_b = ra_path_join(dir_b, name);
    ra_map a, b;
    MPI_EXPECT_OK(ra_map_open(path_a, &a));
    MPI_EXPECT_OK(ra_map_open(path_b, &b));
    bool same = a.size == b.size && memcmp(a.data, b.data, a.size) == 0;
    MPI_EXPECT(same, "%s (%zu bytes) and %s (%zu bytes) differ", path_a, a.size, path_b, b.size);
    ra_map_close(&a);
    ra_map_close(&b);
    free(path_a);
    free(path_b);
    return NULL;
}

static const char *compare_stores(const char *dir_a, const char *dir_b)
{
    ra_store *a, *b;
    MPI_EXPECT_OK(ra_store_open(dir_a, &a));
    MPI_EXPECT_OK(ra_store_open(dir_b, &b));
    MPI_EXPECT(ra_store_count(a) == ROWS, "%lld samples", (long long)ra_store_count(a));
    MPI_EXPECT(ra_store_hash(a) == ra_store_hash(b), "the hashes differ");
    for (int64_t id = 0; id < ROWS; id++) {
        ra_sample x = ra_store_get(a, id), y = ra_store_get(b, id);
        bool same = x.state == y.state && x.cut == y.cut && x.prompt_count == y.prompt_count;
        for (int r = 0; r < RA_ROLES; r++) {
            same = same && x.response[r].count == y.response[r].count && x.response[r].skip == y.response[r].skip;
        }
        MPI_EXPECT(same, "sample %lld differs", (long long)id);
    }
    ra_store_close(a);
    ra_store_close(b);
    return compare_files(dir_a, dir_b, "tokens.bin");
}

/* Every way to truncate: the files of these ranks are the files of one. */
static const char *test_same_on_any_rank_count(const ra_comm *world)
{
    static const char *const words[] = {"drop", "left", "right", "keep"};
    setup up = begin(world);
    ra_comm alone = {MPI_COMM_SELF, 0, 1};
    for (int i = 0; up.model && i < 4; i++) {
        char *together = ra_format("%s/together-%s", up.dir, words[i]), *single = ra_format("%s/single-%s", up.dir, words[i]);
        MPI_EXPECT_OK(ra_set_put(up.s, "data.truncate", words[i]));
        MPI_EXPECT_OK(ra_set_put(up.s, "run.dir", together));
        MPI_EXPECT_OK(ra_stage_prepare(up.s, world));
        MPI_EXPECT_OK(ra_set_put(up.s, "run.dir", single));
        if (world->rank == 0) {
            MPI_EXPECT_OK(ra_stage_prepare(up.s, &alone));
            const char *message = compare_stores(together, single);
            if (message) return message;
        }
        RA_MPI(MPI_Barrier(world->comm));
        ra_store *store; /* each rank checks a share */
        MPI_EXPECT_OK(ra_store_open_shared(together, world, &store));
        MPI_EXPECT(ra_store_highest_token(store) > 2 && ra_store_highest_token(store) < 49152, "highest token %d",
                   ra_store_highest_token(store));
        ra_store_close(store);
        free(together);
        free(single);
    }
    end(world, &up);
    return NULL;
}

/* A rendering, tokenised here by itself, against prompt and branch of the store. */
static const char *check_row(const ra_template *tpl, const ra_store *store, int64_t id, const char *prompt, const char *response,
                             ra_role role)
{
    ra_message messages[2] = {{"user", prompt}, {"assistant", response}};
    ra_rendered out = {0};
    MPI_EXPECT_OK(ra_template_render(tpl, messages, 2, false, &out));
    ra_sample sample = ra_store_get(store, id);
    int64_t n = sample.prompt_count, total = n + sample.response[role].count;
    bool same = total == out.response_end && n + sample.response[role].skip == out.response_start;
    for (int64_t i = 0; same && i < total; i++) {
        same = out.ids.id[i] == (i < n ? sample.prompt[i] : sample.response[role].token[i - n]);
    }
    MPI_EXPECT(same, "row %lld: the store's ids are not those of the rendering", (long long)id);
    MPI_EXPECT(out.ids.id[out.response_end - 1] == 2, "the branch does not end with <|im_end|>");
    ra_rendered_free(&out);
    return NULL;
}

static const char *test_ids_and_states(const ra_comm *world)
{
    setup up = begin(world);
    if (!up.model) return NULL;
    if (world->rank == 0) { /* whole texts that are easy to say again */
        ra_buf text = {0};
        ra_buf_adds(&text, "{\"prompt\": \"Name a colour.\", \"chosen\": \"Blue.\", \"rejected\": \"Blue, I think.\"}\n");
        ra_buf_adds(&text,
                    "{\"prompt\": \"Say hi\", \"chosen\": \"hi there\", \"rejected\": \"HI\", \"correction\": \"hello\"}\n");
        for (int64_t row = 2; row < ROWS; row++) add_row(&text, row);
        MPI_EXPECT_OK(ra_file_write(up.data, text.data, text.length));
        ra_buf_free(&text);
    }
    RA_MPI(MPI_Barrier(world->comm));
    MPI_EXPECT_OK(ra_stage_prepare(up.s, world));
    ra_store *store;
    ra_tokenizer *t;
    ra_template *tpl;
    MPI_EXPECT_OK(ra_store_open(up.dir, &store));
    MPI_EXPECT_OK(ra_tokenizer_open(up.model, &t));
    MPI_EXPECT_OK(ra_template_open("auto", t, &tpl));
    const char *message = check_row(tpl, store, 0, "Name a colour.", "Blue.", RA_CHOSEN);
    if (!message) message = check_row(tpl, store, 0, "Name a colour.", "Blue, I think.", RA_REJECTED);
    if (!message) message = check_row(tpl, store, 1, "Say hi", "HI", RA_REJECTED);
    if (!message) message = check_row(tpl, store, 1, "Say hi", "hello", RA_CORRECTION);
    if (message) return message;
    MPI_EXPECT(ra_store_get(store, 0).response[RA_CORRECTION].count == 0, "a correction from nowhere");
    int64_t states[RA_SAMPLE_STATES] = {0}, n = ra_store_count(store);
    for (int64_t id = 0; id < n; id++) states[ra_store_state(store, id)]++;
    MPI_EXPECT(n == ROWS, "%lld samples", (long long)n);
    MPI_EXPECT(states[RA_SAMPLE_MALFORMED] == 2 && ra_store_state(store, LAST_MALFORMED_ROW) == RA_SAMPLE_MALFORMED &&
                   ra_store_state(store, MALFORMED_ROW) == RA_SAMPLE_MALFORMED,
               "%lld malformed", (long long)states[RA_SAMPLE_MALFORMED]);
    MPI_EXPECT(states[RA_SAMPLE_SKIPPED] + states[RA_SAMPLE_EMPTY] == 1 && ra_store_state(store, EMPTY_ROW) != RA_SAMPLE_OK,
               "%lld skipped, %lld empty", (long long)states[RA_SAMPLE_SKIPPED], (long long)states[RA_SAMPLE_EMPTY]);
    MPI_EXPECT(states[RA_SAMPLE_TOO_LONG] == 2 && ra_store_state(store, LONG_PROMPT_ROW) == RA_SAMPLE_TOO_LONG &&
                   ra_store_state(store, LONG_RESPONSE_ROW) == RA_SAMPLE_TOO_LONG,
               "%lld too long", (long long)states[RA_SAMPLE_TOO_LONG]);
    ra_store_close(store);
    ra_template_close(tpl);
    ra_tokenizer_close(t);
    end(world, &up);
    return NULL;
}

/* left saves the long prompt and not the long response; right the reverse. A sequence that was cut fills max_tokens. */
static const char *test_truncation(const ra_comm *world)
{
    setup up = begin(world);
    for (int right = 0; up.model && right < 2; right++) {
        MPI_EXPECT_OK(ra_set_put(up.s, "data.truncate", right ? "right" : "left"));
        MPI_EXPECT_OK(ra_stage_prepare(up.s, world));
        ra_store *store;
        MPI_EXPECT_OK(ra_store_open(up.dir, &store));
        int64_t saved = right ? LONG_RESPONSE_ROW : LONG_PROMPT_ROW, lost = right ? LONG_PROMPT_ROW : LONG_RESPONSE_ROW;
        ra_sample sample = ra_store_get(store, saved);
        int64_t chosen = sample.response[RA_CHOSEN].count, rejected = sample.response[RA_REJECTED].count;
        MPI_EXPECT(ra_store_state(store, lost) == RA_SAMPLE_TOO_LONG, "row %lld was kept", (long long)lost);
        MPI_EXPECT(sample.state == RA_SAMPLE_OK && sample.cut > 0, "row %lld was not cut", (long long)saved);
        MPI_EXPECT(sample.prompt_count + (chosen > rejected ? chosen : rejected) == ra_set_int(up.s, "data.max_tokens"),
                   "prompt %d, responses %lld and %lld tokens", sample.prompt_count, (long long)chosen, (long long)rejected);
        MPI_EXPECT(sample.prompt[0] == 1, "the BOS was cut");
        MPI_EXPECT((sample.response[RA_CHOSEN].token[chosen - 1] == 2) == !right, "the closing token of a cut response");
        ra_store_close(store);
    }
    end(world, &up);
    return NULL;
}

/* What tells one tokens.bin from another that replaced it. */
static ino_t inode(const setup *up)
{
    struct stat info = {0};
    char *path = ra_path_join(up->dir, "tokens.bin");
    if (stat(path, &info) != 0) ra_die("%s: %m", path);
    free(path);
    return info.st_ino;
}

/* Collective. Prepares and says whether the store was made anew. The old file is kept, so that its inode is not given to the new one. */
static const char *prepare_again(const ra_comm *world, const setup *up, bool *made)
{
    char *path = ra_path_join(up->dir, "tokens.bin"), *keep = ra_path_join(up->dir, "old-tokens.bin");
    if (world->rank == 0) {
        remove(keep);
        if (rename(path, keep) != 0 || ra_file_copy(keep, path) != RA_OK) ra_die("cannot copy %s", path);
    }
    RA_MPI(MPI_Barrier(world->comm));
    ino_t before = inode(up);
    RA_MPI(MPI_Barrier(world->comm));
    MPI_EXPECT_OK(ra_stage_prepare(up->s, world));
    *made = inode(up) != before;
    RA_MPI(MPI_Barrier(world->comm));
    free(path);
    free(keep);
    return NULL;
}
#define EXPECT_MADE(wanted, what)                                                        \
    do {                                                                                 \
        bool made = false;                                                               \
        const char *message = prepare_again(world, &up, &made);                          \
        if (message) return message;                                                     \
        MPI_EXPECT(made == (wanted), "%s: %s", what, made ? "made anew" : "was reused"); \
    } while (0)

static const char *test_reuse(const ra_comm *world)
{
    setup up = begin(world);
    if (!up.model) return NULL;
    MPI_EXPECT_OK(ra_stage_prepare(up.s, world));
    EXPECT_MADE(false, "nothing changed");
    MPI_EXPECT_OK(ra_set_put(up.s, "beta", "0.7"));
    EXPECT_MADE(false, "a setting of training changed");
    MPI_EXPECT_OK(ra_set_put(up.s, "run.resume", "must"));
    EXPECT_MADE(false, "run.resume must");
    MPI_EXPECT_OK(ra_set_put(up.s, "data.max_tokens", "200"));
    MPI_EXPECT(ra_stage_prepare(up.s, world) == RA_ERR_DATA && strstr(ra_error_message(), "data.max_tokens=256"), "must: %s",
               ra_error_message());
    MPI_EXPECT_OK(ra_set_put(up.s, "run.resume", "auto"));
    EXPECT_MADE(true, "data.max_tokens changed");
    MPI_EXPECT_OK(ra_set_put(up.s, "data.limit", "500"));
    EXPECT_MADE(true, "data.limit changed");
    MPI_EXPECT_OK(ra_set_put(up.s, "data.truncate", "left"));
    EXPECT_MADE(true, "data.truncate changed");
    MPI_EXPECT_OK(ra_set_put(up.s, "template", "chatml"));
    EXPECT_MADE(true, "template changed");
    if (world->rank == 0) utime(up.data, &(struct utimbuf){1000, 1000});
    RA_MPI(MPI_Barrier(world->comm));
    EXPECT_MADE(true, "the data file was touched");
    EXPECT_MADE(false, "nothing changed since");
    if (world->rank == 0) {
        char *path = ra_path_join(up.dir, "tokens.bin");
        FILE *file = fopen(path, "r+b");
        fputc(0x7f, file);
        fclose(file);
        free(path);
    }
    EXPECT_MADE(true, "the tokens were damaged");
    MPI_EXPECT_OK(ra_set_put(up.s, "run.resume", "never"));
    EXPECT_MADE(true, "run.resume never");
    end(world, &up);
    return NULL;
}

/* Rows that repeat an earlier one, across blocks and ranks: the lowest id stays. triage leaves out the same ones. */
static const char *test_duplicates(const ra_comm *world)
{
    setup up = begin(world);
    if (!up.model) return NULL;
    char *policy = ra_path_join(up.dir, "policy.yaml");
    if (world->rank == 0) {
        static const char rules[] = "name: p\nrules:\n  - {name: r, require: {words: {max: 3}}}\n";
        ra_buf text = {0};
        for (int64_t row = 0; row < ROWS; row++) { /* row i says what row i % 700 does; every tenth has another response */
            ra_buf_addf(&text, "{\"prompt\": \"number %d\", \"chosen\": \"%s\", \"rejected\": \"no\"}\n", (int)(row % 700),
                        row >= 700 && row % 10 == 0 ? "yes" : "perhaps");
        }
        MPI_EXPECT_OK(ra_file_write(up.data, text.data, text.length));
        MPI_EXPECT_OK(ra_file_write(policy, rules, strlen(rules)));
        ra_buf_free(&text);
    }
    MPI_EXPECT_OK(ra_set_put(up.s, "data.duplicates", "drop"));
    MPI_EXPECT_OK(ra_set_put(up.s, "policy", policy));
    RA_MPI(MPI_Barrier(world->comm));
    MPI_EXPECT_OK(ra_stage_prepare(up.s, world));
    MPI_EXPECT_OK(ra_stage_triage(up.s, world));
    ra_store *store;
    ra_h5 *h5;
    int8_t action[ROWS];
    char *path = ra_path_join(up.dir, "triage.h5");
    MPI_EXPECT_OK(ra_store_open(up.dir, &store));
    MPI_EXPECT_OK(ra_h5_open(path, NULL, &h5));
    MPI_EXPECT_OK(ra_h5_read(h5, "action", H5T_NATIVE_INT8, 0, -1, action));
    uint64_t hash = ra_store_get(store, 3).prompt_hash;
    MPI_EXPECT(hash != 0 && hash == ra_store_get(store, 703).prompt_hash && hash != ra_store_get(store, 4).prompt_hash,
               "prompt hashes");
    for (int64_t id = 0; id < ROWS; id++) {
        bool first = id < 700 || (id % 10 == 0 && id < 1400);
        MPI_EXPECT((ra_store_state(store, id) == RA_SAMPLE_OK) == first, "row %lld is %s", (long long)id,
                   ra_sample_state_name(ra_store_state(store, id)));
        MPI_EXPECT((action[id] >= 0) == first, "triage uses row %lld: %d", (long long)id, action[id] >= 0);
    }
    ra_h5_close(h5);
    ra_store_close(store);
    free(path);
    free(policy);
    end(world, &up);
    return NULL;
}

/* Failures come to every rank with the same words, and leave no store behind. */
static const char *test_refusals(const ra_comm *world)
{
    setup up = begin(world);
    if (!up.model) return NULL;
    MPI_EXPECT_OK(ra_set_put(up.s, "data.malformed_limit", "1")); /* the two lie in the first and the last block */
    MPI_EXPECT(ra_stage_prepare(up.s, world) == RA_ERR_DATA, "two malformed rows of one allowed");
    MPI_EXPECT(strstr(ra_error_message(), "data.malformed_limit"), "%s", ra_error_message());
    MPI_EXPECT_OK(ra_set_put(up.s, "data.malformed_limit", "100"));
    MPI_EXPECT_OK(ra_set_put(up.s, "data.max_tokens", "8"));
    MPI_EXPECT(ra_stage_prepare(up.s, world) == RA_ERR_DATA, "no usable row");
    MPI_EXPECT(strstr(ra_error_message(), "none of the"), "%s", ra_error_message());
    char *index = ra_path_join(up.dir, "store.h5"), *part = ra_path_join(up.dir, "tokens.bin.part");
    MPI_EXPECT(!ra_file_exists(index) && !ra_file_exists(part), "something was left behind");
    free(index);
    free(part);
    MPI_EXPECT_OK(ra_set_put(up.s, "data.path", "/nowhere/rows.jsonl"));
    MPI_EXPECT(ra_stage_prepare(up.s, world) == RA_ERR_IO && strstr(ra_error_message(), "/nowhere/rows.jsonl"), "%s",
               ra_error_message());
    end(world, &up);
    return NULL;
}

int main(int argc, char **argv)
{
    static const test_mpi tests[] = {
        {"the same files on any rank count", test_same_on_any_rank_count},
        {"ids of the template, states of the rows", test_ids_and_states},
        {"truncation", test_truncation},
        {"reuse", test_reuse},
        {"rows that repeat an earlier one", test_duplicates},
        {"refusals", test_refusals},
    };
    char *model = model_path();
    if (!model) {
        const char *rank = getenv("OMPI_COMM_WORLD_RANK");
        if (!rank || strcmp(rank, "0") == 0) printf("1..1\nok 1 - prepare # SKIP the shared folder has no data/models/smollm2\n");
        return 0;
    }
    free(model);
    return test_mpi_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
