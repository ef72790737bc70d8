/* doc/pipeline.md and its figures are what the functions say today. Run with --write to bring them up to date:
 *   build/tests/unit/test_pipeline_doc --write */
#include "support/archs.h"
#include "support/support.h"

#include <realign/file.h>
#include <realign/mem.h>
#include <realign/report.h>
#include <realign/schedule.h>
#include <realign/split.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char doc_path[] = "doc/pipeline.md";
static const ra_schedule_costs twice = {.forward = 1.0, .backward = 2.0, .backward_input = 1.0, .backward_weight = 1.0};

typedef struct {
    ra_pipeline_kind kind;
    int32_t chunks;
    const char *name;
} shown;
static const shown kinds[] = {{RA_PIPELINE_GPIPE, 1, "gpipe"},
                              {RA_PIPELINE_1F1B, 1, "1f1b"},
                              {RA_PIPELINE_INTERLEAVED, 1, "interleaved, 1 chunk"},
                              {RA_PIPELINE_INTERLEAVED, 2, "interleaved, 2 chunks"},
                              {RA_PIPELINE_INTERLEAVED, 4, "interleaved, 4 chunks"},
                              {RA_PIPELINE_ZERO_BUBBLE, 1, "zero-bubble"}};
enum { SHOWN = sizeof kinds / sizeof kinds[0] };

/* The costs of a chunk where the whole rank has those of `twice`. */
static ra_schedule_costs costs_of(int32_t chunks, double latency)
{
    const double c = chunks;
    return (ra_schedule_costs){.forward = twice.forward / c,
                               .backward = twice.backward / c,
                               .backward_input = twice.backward_input / c,
                               .backward_weight = twice.backward_weight / c,
                               .latency = latency};
}

static void write_orders(ra_buf *out)
{
    ra_buf_adds(out, "```\n");
    for (int k = 0; k < SHOWN; k++) {
        if (kinds[k].kind == RA_PIPELINE_INTERLEAVED && kinds[k].chunks != 2) continue;
        ra_schedule s;
        CHECK_OK(ra_schedule_make(kinds[k].kind, 4, 6, kinds[k].chunks, &s));
        ra_buf_addf(out, "%s%s\n", k ? "\n" : "", kinds[k].name);
        for (int32_t r = 0; r < s.ranks; r++) {
            ra_buf_addf(out, "  rank %d ", r);
            for (int32_t i = 0; i < s.rank[r].slots; i++) {
                const ra_slot *slot = &s.rank[r].slot[i];
                ra_buf_addf(out, " %c%d%.*s", "FBbW"[slot->op], slot -> micro_batch, slot -> chunk, "'''");
            }
            ra_buf_adds(out, "\n");
        }
        ra_schedule_free(&s);
    }
    ra_buf_adds(out, "```\n");
}

/* Every message of 1F1B at p = 2, m = 3: the table as the engine reads it. */
static void write_slots(ra_buf *out)
{
    ra_schedule s;
    CHECK_OK(ra_schedule_make(RA_PIPELINE_1F1B, 2, 3, 1, &s));
    ra_buf_adds(out, "| rank | slot | posts receives of slots | computes | activation | received into | receives (rank, tag) | "
                     "sends (rank, tag) |\n"
                     "|---|---|---|---|---|---|---|---|\n");
    for (int32_t r = 0; r < s.ranks; r++) {
        const ra_schedule_rank *of = &s.rank[r];
        for (int32_t i = 0; i < of->slots; i++) {
            const ra_slot *slot = &of->slot[i];
            ra_buf_addf(out, "| %d | %d |", r, i);
            for (int32_t j = of->post_begin[i]; j < of->post_begin[i + 1]; j++) ra_buf_addf(out, " %d", of->post[j]);
            ra_buf_addf(out, " | %s of %d | %d |", slot->op == RA_SLOT_FORWARD ? "forward" : "backward", slot->micro_batch,
                        slot->activation);
            if (slot->receive.rank >= 0) ra_buf_addf(out, " %d", slot->inbox);
            const ra_slot_message *ends[] = {&slot->receive, &slot->send};
            for (int k = 0; k < 2; k++) {
                ra_buf_adds(out, " |");
                if (ends[k]->rank >= 0) ra_buf_addf(out, " %d, %d", ends[k]->rank, ends[k]->tag);
            }
            ra_buf_adds(out, " |\n");
        }
    }
    ra_schedule_free(&s);
}

static void write_bubbles(ra_buf *out)
{
    static const int32_t shape[][2] = {{2, 8}, {4, 8}, {4, 16}, {4, 32}, {8, 16}, {8, 64}, {16, 64}};
    enum { SHAPES = sizeof shape / sizeof shape[0] };
    ra_buf_adds(out, "| bubble % (peak of rank 0, in micro-batches) |");
    for (int k = 0; k < SHAPES; k++) ra_buf_addf(out, " p %d, m %d |", shape[k][0], shape[k][1]);
    ra_buf_adds(out, "\n|---|");
    for (int k = 0; k < SHAPES; k++) ra_buf_adds(out, "---|");
    for (int k = 0; k < SHOWN; k++) {
        ra_buf_addf(out, "\n| %s |", kinds[k].name);
        for (int i = 0; i < SHAPES; i++) {
            const ra_schedule_costs c = costs_of(kinds[k].chunks, 0.0);
            ra_schedule s;
            ra_schedule_timing t;
            CHECK_OK(ra_schedule_make(kinds[k].kind, shape[i][0], shape[i][1], kinds[k].chunks, &s));
            CHECK_OK(ra_schedule_time(&s, &c, &t));
            ra_buf_addf(out, " %.1f (%.4g) |", 100.0 * t.bubble, (double)s.rank[0].peak / kinds[k].chunks);
            ra_schedule_timing_free(&t);
            ra_schedule_free(&s);
        }
    }
    ra_buf_adds(out, "\n");
}

static void write_latency(ra_buf *out)
{
    static const double latency[] = {0.0, 0.05, 0.1, 0.2, 0.4};
    enum { LATENCIES = sizeof latency / sizeof latency[0] };
    ra_buf_adds(out, "| makespan, p 4, m 32 |");
    for (int i = 0; i < LATENCIES; i++) ra_buf_addf(out, " latency %.4g |", latency[i]);
    ra_buf_adds(out, "\n|---|");
    for (int i = 0; i < LATENCIES; i++) ra_buf_adds(out, "---|");
    for (int k = 0; k < SHOWN; k++) {
        ra_schedule s;
        CHECK_OK(ra_schedule_make(kinds[k].kind, 4, 32, kinds[k].chunks, &s));
        ra_buf_addf(out, "\n| %s |", kinds[k].name);
        for (int i = 0; i < LATENCIES; i++) {
            const ra_schedule_costs c = costs_of(kinds[k].chunks, latency[i]);
            ra_schedule_timing t;
            CHECK_OK(ra_schedule_time(&s, &c, &t));
            ra_buf_addf(out, " %.2f |", t.makespan);
            ra_schedule_timing_free(&t);
        }
        ra_schedule_free(&s);
    }
    ra_buf_adds(out, "\n");
}

/* Pairs of 60 prompt and 2 x 120 response tokens: 60 + 2 x 119 rows, for a response's last token is predicted only. */
static const double context = (60 * 61 / 2 + 2 * (119 * 60 + 119 * 120 / 2)) / 298.0, head_share = 240.0 / 298.0;

static void write_costs(ra_buf *out)
{
    static const char *const names[] = {"full parameters", "LoRA r32, all projections", "scoring"};
    const ra_lora_config lora = {.rank = 32, .targets = (1u << RA_PROJECTIONS) - 1};
    ra_buf_adds(out, "| MFLOP a row: forward, gradient of activations, of weights (computed again) | a layer | the head | layers "
                     "that weigh as much as the head |\n"
                     "|---|---|---|---|\n");
    for (int k = 0; k < TEST_ARCHS; k++) {
        ra_arch a = test_arch_parse(k);
        for (int i = 0; i < 3; i++) {
            const ra_training training[] = {RA_TRAIN_FULL, RA_TRAIN_ADAPTER, RA_FROZEN};
            const ra_workload w = {.training = training[i], .lora = lora, .context = context, .head_share = head_share};
            const ra_cost of[2] = {ra_cost_layer(&a, 0, &w), ra_cost_head(&a, &w, true)};
            ra_buf_addf(out, "| %s, %s |", test_archs[k].name, names[i]);
            for (int j = 0; j < 2; j++) {
                ra_buf_addf(out, " %.0f", of[j].forward * 1e-6);
                if (training[i] != RA_FROZEN)
                    ra_buf_addf(out, ", %.0f, %.0f (%.0f)", of[j].input * 1e-6, of[j].weight * 1e-6, of[j].again * 1e-6);
                ra_buf_adds(out, " |");
            }
            ra_buf_addf(out, " %.2f |\n", ra_cost_work(&of[1]) / ra_cost_work(&of[0]));
        }
        ra_arch_free(&a);
    }
}

static void write_splits(ra_buf *out)
{
    const ra_lora_config lora = {.rank = 32, .targets = (1u << RA_PROJECTIONS) - 1};
    ra_buf_adds(out, "| layers of each rank, 1F1B, m 16 | full parameters | slowest / mean | LoRA r32 | slowest / mean "
                     "|\n|---|---|---|---|---|\n");
    for (int k = 0; k < TEST_ARCHS; k++) {
        ra_arch a = test_arch_parse(k);
        for (int32_t p = 2; p <= 8; p *= 2) {
            double held[8];
            for (int32_t r = 0; r < p; r++) held[r] = ra_schedule_theory_peak(RA_PIPELINE_1F1B, p, 16, 1, r);
            ra_buf_addf(out, "| %s, %d ranks |", test_archs[k].name, p);
            for (int adapted = 0; adapted < 2; adapted++) {
                const ra_split_model model = {.work = {.training = adapted ? RA_TRAIN_ADAPTER : RA_TRAIN_FULL,
                                                       .lora = lora,
                                                       .context = context,
                                                       .head_share = head_share},
                                              .memory = {.a_size = 2, .r_size = 4, .rows = 8192, .shards = 1},
                                              .held = held};
                ra_split split;
                CHECK_OK(ra_split_make(&a, &model, p, 1, &split));
                char *text = ra_split_text(&split);
                ra_buf_addf(out, " %s | %.3f |", text, ra_split_imbalance(&split));
                free(text);
                ra_split_free(&split);
            }
            ra_buf_adds(out, "\n");
        }
        ra_arch_free(&a);
    }
}

/* ---- the document: each block stands between <!-- generated: NAME --> and <!-- end --> ---- */

static const struct {
    const char *name;
    void (*write)(ra_buf *out);
} blocks[] = {{"slots", write_slots},     {"orders", write_orders}, {"bubbles", write_bubbles},
              {"latency", write_latency}, {"costs", write_costs},   {"splits", write_splits}};
enum { BLOCKS = sizeof blocks / sizeof blocks[0] };

/* The document with every block made anew. */
static void renew(const char *text, ra_buf *out)
{
    for (int k = 0; k < BLOCKS; k++) {
        char *mark = ra_format("<!-- generated: %s -->\n", blocks[k].name);
        const char *begin = strstr(text, mark), *end = begin ? strstr(begin, "<!-- end -->") : NULL;
        if (!end) fail_msg("%s has no block '%s', in this order, with its end", doc_path, blocks[k].name);
        begin += strlen(mark);
        ra_buf_add(out, text, (size_t)(begin - text));
        blocks[k].write(out);
        text = end;
        free(mark);
    }
    ra_buf_adds(out, text);
}

static void check_file(const char *path, const ra_buf *want, bool write)
{
    ra_buf got = {0};
    if (write) {
        CHECK_OK(ra_file_write(path, want->data, want->length));
        return;
    }
    CHECK_OK(ra_file_read(path, &got));
    if (got.length != want->length || memcmp(got.data, want->data, got.length) != 0)
        fail_msg("%s is not what the functions say: build/tests/unit/test_pipeline_doc --write brings it up to date", path);
    ra_buf_free(&got);
}

static bool writing;

static void document(void **state)
{
    (void)state;
    ra_buf text = {0}, want = {0};
    CHECK_OK(ra_file_read(doc_path, &text));
    renew(text.data, &want);
    check_file(doc_path, &want, writing);
    ra_buf_free(&text);
    ra_buf_free(&want);
}

static void figures(void **state)
{
    (void)state;
    char *dir = test_dir_make(), *made = ra_path_join(dir, "schedule.svg");
    for (int k = 0; k < SHOWN; k++) {
        if (kinds[k].kind == RA_PIPELINE_INTERLEAVED && kinds[k].chunks != 2) continue;
        const ra_schedule_costs c = costs_of(kinds[k].chunks, 0.0);
        char *path = ra_format("doc/figures/schedule-%s.svg", ra_pipeline_kind_name[kinds[k].kind]);
        ra_schedule s;
        ra_buf want = {0};
        CHECK_OK(ra_schedule_make(kinds[k].kind, 4, 8, kinds[k].chunks, &s));
        CHECK_OK(ra_report_write_schedule(made, &s, &c, "time; a forward pass of a rank's layers = 1"));
        CHECK_OK(ra_file_read(made, &want));
        check_file(path, &want, writing);
        ra_buf_free(&want);
        ra_schedule_free(&s);
        free(path);
    }
    free(made);
    test_dir_remove(dir);
}

int main(int argc, char **argv)
{
    writing = argc > 1 && strcmp(argv[1], "--write") == 0;
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {cmocka_unit_test(document), cmocka_unit_test(figures)};
    return cmocka_run_group_tests_name("pipeline_doc", tests, NULL, NULL);
}
