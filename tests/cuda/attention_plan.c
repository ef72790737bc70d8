/* The attention kernels' plan of a pack: walking it as kernels do meets every visible (query, key) pair once from the side of the queries and once from the
 * side of the keys, and no other pair, for random forests, windows and tile heights. */
#include "../../src/backend/cuda/attention_plan.h"
#include "support/support.h"

#include <realign/mem.h>
#include <realign/rng.h>

#include <string.h>

enum { SEED = 411, FORESTS = 300, MAX_ROWS = 700, MAX_SEGMENTS = 40 };

typedef struct {
    ra_pack pack;
    int32_t position[MAX_ROWS], tree_begin[MAX_SEGMENTS + 1], next_position[MAX_SEGMENTS];
    ra_segment segment[MAX_SEGMENTS];
} forest;

static int32_t draw(ra_rng *rng, int32_t below)
{
    return (int32_t)(ra_rng_uniform(rng) * below);
}

/* Segments of no rows, few and many; parents anywhere in the tree; now and then positions that jump. */
static void grow(forest *f, ra_rng *rng)
{
    *f = (forest){.pack = {.position = f->position, .segment = f->segment, .tree_begin = f->tree_begin}};
    ra_pack *p = &f->pack;
    int32_t segments = 1 + draw(rng, MAX_SEGMENTS - 1), longest = draw(rng, 4) ? 30 : 300;
    bool jumps = draw(rng, 3) == 0;
    for (int32_t s = 0; s < segments; s++) {
        int32_t rows = draw(rng, 10) ? draw(rng, longest) : 0, tree = p->trees ? p->tree_begin[p->trees - 1] : 0;
        if (p->rows + rows > MAX_ROWS) break;
        int32_t parent = s > 0 && draw(rng, 4) ? tree + draw(rng, s - tree) : -1;
        p->segment[s] = (ra_segment){parent, p->rows, p->rows + rows};
        if (parent < 0) p->tree_begin[p->trees++] = s;
        int32_t position = parent < 0 ? draw(rng, 2) * 5 : f->next_position[parent];
        for (int32_t i = 0; i < rows; i++) {
            if (jumps && draw(rng, 20) == 0) position += draw(rng, 6) - 2;
            p->position[p->rows++] = position++;
        }
        f->next_position[s] = position;
        p->segments = s + 1;
    }
    p->tree_begin[p->trees] = p->segments;
}

static bool sees(const ra_pack *p, const int32_t *segment_of, int32_t q, int32_t k, int32_t window)
{
    if (k > q || (window && p->position[q] - p->position[k] >= window)) return false;
    int32_t s = segment_of[q];
    while (s >= 0 && s != segment_of[k]) s = p->segment[s].parent;
    return s >= 0;
}

static bool lets_through(ra_attention_range r, int32_t q, int32_t k, int32_t window)
{
    return k <= q && (!window || q - k + r.shift < window);
}

/* met[q][k]: how often; visits: tiles of the other side that were looked at. */
static void walk_queries(const ra_attention_plan *plan, int32_t height, int32_t window, uint8_t *met)
{
    for (int32_t i = 0; i < plan->tiles; i++) {
        ra_attention_tile tile = plan->query[i];
        for (int32_t row = tile.row; row < tile.end; row += height) {
            int32_t end = row + height < tile.end ? row + height : tile.end;
            for (int32_t next = tile.piece; next >= 0;) {
                ra_attention_range r = ra_attention_keys(plan->piece, tile.piece, next, row, end, window);
                for (int32_t k = r.begin; k < r.end; k++)
                    for (int32_t q = row; q < end; q++) met[q * MAX_ROWS + k] += lets_through(r, q, k, window);
                next = r.next;
            }
        }
    }
}

static void walk_keys(const ra_attention_plan *plan, int32_t height, int32_t window, uint8_t *met)
{
    for (int32_t i = 0; i < plan->tiles; i++) {
        ra_attention_tile tile = plan->key[i];
        for (int32_t row = tile.row; row < tile.end; row += height) {
            int32_t end = row + height < tile.end ? row + height : tile.end;
            for (int32_t next = tile.piece; next >= 0;) {
                ra_attention_range r = ra_attention_queries(plan->piece, tile.piece, next, row, end, window);
                for (int32_t q = r.begin; q < r.end; q++)
                    for (int32_t k = row; k < end; k++) met[q * MAX_ROWS + k] += lets_through(r, q, k, window);
                next = r.next;
            }
        }
    }
}

static int64_t count_wrong(const ra_pack *p, const uint8_t *met, int32_t window)
{
    int32_t segment_of[MAX_ROWS];
    for (int32_t s = 0; s < p->segments; s++)
        for (int32_t t = p->segment[s].begin; t < p->segment[s].end; t++) segment_of[t] = s;
    int64_t wrong = 0;
    for (int32_t q = 0; q < p->rows; q++)
        for (int32_t k = 0; k < p->rows; k++) wrong += met[q * MAX_ROWS + k] != sees(p, segment_of, q, k, window);
    return wrong;
}

static void test_every_pair_once(void **state)
{
    (void)state;
    ra_rng rng = ra_rng_make(SEED, RA_STREAM_TEST);
    forest *f = ra_alloc(1, sizeof *f);
    uint8_t *met = ra_alloc(MAX_ROWS, MAX_ROWS);
    for (int i = 0; i < FORESTS; i++) {
        grow(f, &rng);
        int32_t window = i % 3 ? 0 : 1 + draw(&rng, 60), height = (int32_t[]){16, 32, 64, 128}[draw(&rng, 4)];
        void *memory = ra_calloc(1, ra_attention_plan_bytes(f->pack.rows, f->pack.segments));
        ra_attention_plan plan = ra_attention_plan_build(&f->pack, memory);
        size_t bytes = ra_attention_plan_image(&plan);
        assert_true(bytes <= ra_attention_plan_bytes(f->pack.rows, f->pack.segments));
        void *image = ra_alloc(1, bytes); /* as a device would have it: the image alone, elsewhere */
        memcpy(image, memory, bytes);
        ra_free(memory);
        plan = ra_attention_plan_at(&plan, image);
        memset(met, 0, (size_t)MAX_ROWS * MAX_ROWS);
        walk_queries(&plan, height, window, met);
        int64_t wrong = count_wrong(&f->pack, met, window);
        memset(met, 0, (size_t)MAX_ROWS * MAX_ROWS);
        walk_keys(&plan, height, window, met);
        wrong += count_wrong(&f->pack, met, window);
        if (wrong)
            print_error("seed %d, forest %d: %d segments, %d rows, window %d, height %d: %lld pairs wrong\n", SEED, i,
                        f->pack.segments, f->pack.rows, window, height, (long long)wrong);
        ra_free(image);
        assert_int_equal(wrong, 0);
    }
    ra_free(met);
    ra_free(f);
}

/* A prompt with two responses, then a lone sequence: ranges as few as they can be, and the order of the work. */
static void test_runs_and_order(void **state)
{
    (void)state;
    enum { PROMPT = 60, RESPONSE = 120, ALONE = 300, ROWS = PROMPT + 2 * RESPONSE + ALONE };
    int32_t position[ROWS], tree_begin[] = {0, 3, 4};
    ra_segment segment[] = {{-1, 0, 60}, {0, 60, 180}, {0, 180, 300}, {-1, 300, 600}};
    for (int32_t t = 0; t < ROWS; t++) position[t] = t < 180 ? t : t < 300 ? t - 120 : t - 300;
    ra_pack pack = {.rows = ROWS, .segments = 4, .trees = 2, .position = position, .segment = segment, .tree_begin = tree_begin};
    void *memory = ra_alloc(1, ra_attention_plan_bytes(ROWS, 4));
    ra_attention_plan plan = ra_attention_plan_build(&pack, memory);
    assert_int_equal(plan.pieces, 4);
    assert_int_equal(plan.tiles, 1 + 1 + 1 + 3);
    /* the first response's keys are one run with the prompt's, the second's are not */
    ra_attention_range r = ra_attention_keys(plan.piece, 1, 1, 60, 180, 0);
    assert_int_equal(r.begin, 0);
    assert_int_equal(r.end, 180);
    assert_int_equal(r.next, -1);
    r = ra_attention_keys(plan.piece, 2, 2, 180, 300, 0);
    assert_int_equal(r.begin, 180);
    assert_int_equal(r.next, 0);
    r = ra_attention_keys(plan.piece, 2, r.next, 180, 300, 0);
    assert_int_equal(r.begin, 0);
    assert_int_equal(r.end, 60);
    assert_int_equal(r.shift, -120);
    assert_int_equal(r.next, -1);
    /* the prompt's queries are one range over the whole tree */
    r = ra_attention_queries(plan.piece, 0, 0, 0, 60, 0);
    assert_int_equal(r.begin, 0);
    assert_int_equal(r.end, 300);
    assert_int_equal(r.next, -1);
    assert_int_equal(plan.query[0].row, 300 + 256);
    assert_int_equal(plan.query[0].end, 600);
    assert_int_equal(plan.key[0].row, 0); /* 300 rows see each; ties go by row */
    assert_int_equal(plan.key[1].row, 300);
    for (int32_t i = 1; i < plan.tiles; i++) {
        assert_true(plan.query[i].work <= plan.query[i - 1].work);
        assert_true(plan.key[i].work <= plan.key[i - 1].work);
    }
    for (int32_t i = 0; i < plan.tiles; i++) assert_int_equal(plan.piece[plan.query[i].piece].tree, plan.query[i].row >= 300);
    ra_free(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_pair_once),
        cmocka_unit_test(test_runs_and_order),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
