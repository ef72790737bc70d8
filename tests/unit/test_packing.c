/* Work items into packs: every item once, nothing over the budget, balanced, Retain last, the same for the same arguments; and micro-batches as packs describe them. */
#include "support/support.h"
#include "support/tiny_run.h"

#include <realign/engine.h>
#include <realign/file.h>
#include <realign/mem.h>

#include <stdlib.h>
#include <string.h>

enum { SAMPLES = 300 };

typedef struct {
    char *dir, *model;
    ra_store *store;
    ra_work work[SAMPLES];
    int64_t n;
} fixture;

static int set_up(void **state)
{
    static fixture f;
    f = (fixture){.dir = test_dir_make()};
    f.model = f.dir;
    char *config = ra_path_join(f.dir, "config.json");
    CHECK_OK(ra_file_write(config, "{\"vocab_size\": 50}", 18));
    free(config);
    tiny_run run = {.model = f.model, .samples = SAMPLES, .seed = 3};
    ra_comm self = {MPI_COMM_SELF, 0, 1};
    CHECK_OK(tiny_run_make(&self, f.dir, &run));
    CHECK_OK(ra_store_open(f.dir, &f.store));
    static const ra_loss_kind kinds[] = {RA_LOSS_INVERT, RA_LOSS_PUNISH, RA_LOSS_RETAIN};
    for (int64_t i = 0; i < SAMPLES; i++) {
        if (ra_store_state(f.store, i) == RA_SAMPLE_OK)
            f.work[f.n++] = (ra_work){.sample = i, .kind = kinds[tiny_run_action(&run, i)], .weight = 1.0 + (double)i};
    }
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    ra_store_close(f->store);
    test_dir_remove(f->dir);
    return 0;
}

static int32_t rows_of(const fixture *f, int64_t i)
{
    ra_sample s = ra_store_get(f->store, f->work[i].sample);
    return ra_microbatch_rows(&s, ra_loss_roles(f->work[i].kind));
}

/* Each item in exactly one pack, Retain last within it, no pack over the budget. Returns the fullest and emptiest packs' rows. */
static void check_packing(const fixture *f, const ra_packing *p, int64_t n, int32_t rows, int32_t *fullest, int32_t *emptiest)
{
    char seen[SAMPLES] = {0};
    *fullest = 0;
    *emptiest = rows;
    assert_int_equal(p->begin[0], 0);
    assert_int_equal(p->begin[p->packs], n);
    for (int32_t k = 0; k < p->packs; k++) {
        int32_t used = 0;
        bool retain = false;
        assert_true(p->begin[k + 1] > p->begin[k]);
        for (int32_t i = p->begin[k]; i < p->begin[k + 1]; i++) {
            int64_t item = p->order[i];
            assert_true(item >= 0 && item < n && !seen[item]);
            seen[item] = 1;
            bool is_retain = f->work[item].kind == RA_LOSS_RETAIN;
            assert_true(is_retain || !retain);
            retain = is_retain;
            used += rows_of(f, item);
        }
        assert_true(used <= rows);
        if (used > *fullest) *fullest = used;
        if (used < *emptiest) *emptiest = used;
    }
}

static void every_budget(void **state)
{
    const fixture *f = *state;
    static const int32_t budgets[] = {64, 96, 500, 100000}, minima[] = {1, 2, 7, 1000};
    for (int b = 0; b < 4; b++) {
        for (int m = 0; m < 4; m++) {
            for (int in_order = 0; in_order < 2; in_order++) {
                for (int64_t n = 0; n <= f->n; n += n < 4 ? 1 : 91) {
                    ra_packing p, again;
                    int32_t fullest, emptiest, longest = 0;
                    CHECK_OK(ra_packing_make(f->store, f->work, n, budgets[b], minima[m], in_order, &p));
                    CHECK_OK(ra_packing_make(f->store, f->work, n, budgets[b], minima[m], in_order, &again));
                    check_packing(f, &p, n, budgets[b], &fullest, &emptiest);
                    assert_int_equal(p.packs, again.packs);
                    assert_memory_equal(p.begin, again.begin, ((size_t)p.packs + 1) * sizeof *p.begin);
                    if (n) assert_memory_equal(p.order, again.order, (size_t)n * sizeof *p.order);
                    for (int64_t i = 0; i < n; i++) longest = rows_of(f, i) > longest ? rows_of(f, i) : longest;
                    if (!in_order) {
                        assert_true(p.packs >= (minima[m] < n ? minima[m] : n));
                        if (p.packs > 1)
                            assert_true(fullest - emptiest <= longest); /* longest first: a gap is at most one item */
                    }
                    ra_packing_free(&p);
                    ra_packing_free(&again);
                }
            }
        }
    }
}

/* in_order: packs are intervals of the list. */
static void order_is_kept(void **state)
{
    const fixture *f = *state;
    ra_packing p;
    CHECK_OK(ra_packing_make(f->store, f->work, f->n, 96, 1, true, &p));
    for (int32_t k = 0; k < p.packs; k++) {
        for (int32_t i = p.begin[k]; i < p.begin[k + 1]; i++)
            assert_true(p.order[i] >= p.begin[k] && p.order[i] < p.begin[k + 1]);
    }
    ra_packing_free(&p);
}

static void too_large(void **state)
{
    const fixture *f = *state;
    ra_packing p;
    check_fails(ra_packing_make(f->store, f->work, f->n, 12, 1, false, &p), RA_ERR_DATA, "a pack takes 12", "pack.tokens", NULL);
    assert_null(p.order);
    ra_packing_free(&p);
}

/* Filled packs: one tree an item, branches behind their prompt, every scored token predicted by the row before it. */
static void filled(void **state)
{
    const fixture *f = *state;
    ra_packing p;
    CHECK_OK(ra_packing_make(f->store, f->work, f->n, 120, 3, false, &p));
    ra_microbatch *mb = ra_microbatch_new(120);
    int64_t items = 0, scored = 0, expected = 0;
    for (int64_t i = 0; i < f->n; i++) {
        ra_sample s = ra_store_get(f->store, f->work[i].sample);
        for (int r = 0; r < RA_ROLES; r++)
            expected += ra_loss_roles(f->work[i].kind) >> r & 1 ? s.response[r].count - s.response[r].skip : 0;
    }
    for (int32_t k = 0; k < p.packs; k++) {
        ra_packing_fill(&p, k, f->store, f->work, mb);
        assert_int_equal(mb->items, p.begin[k + 1] - p.begin[k]);
        assert_int_equal(mb->items, mb->pack.trees);
        for (int32_t i = 0; i < mb->responses; i++) {
            const ra_response *y = &mb->response[i];
            const ra_item *item = &mb->item[y->item];
            ra_sample s = ra_store_get(f->store, item->sample);
            check_close(item->weight, 1.0 + (double)item->sample, 0, 0, "the weight goes with its sample");
            assert_int_equal(y->count, s.response[y->role].count - s.response[y->role].skip);
            assert_true((item->kind == RA_LOSS_RETAIN) == (y->first >= mb->kl_first));
            for (int32_t j = 0; j < y->count; j++) {
                int32_t row = mb->head_row[y->first + j], at = s.response[y->role].skip + j;
                assert_int_equal(mb->head_target[y->first + j], s.response[y->role].token[at]);
                assert_int_equal(mb->pack.position[row], s.prompt_count + at - 1);
                assert_int_equal(mb->pack.token[row], at ? s.response[y->role].token[at - 1] : s.prompt[s.prompt_count - 1]);
            }
        }
        items += mb->items;
        scored += mb->head_rows;
    }
    assert_int_equal(items, f->n);
    assert_int_equal(scored, expected);
    ra_microbatch_free(mb);
    ra_packing_free(&p);
}

int main(int argc, char **argv)
{
    ra_comm world;
    cmocka_set_message_output(CM_OUTPUT_TAP);
    if (ra_comm_init(&argc, &argv, &world) != RA_OK) return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_budget), cmocka_unit_test(order_is_kept),
                                       cmocka_unit_test(too_large), cmocka_unit_test(filled)};
    int failed = cmocka_run_group_tests_name("packing", tests, set_up, tear_down);
    ra_comm_finalize();
    return failed;
}
