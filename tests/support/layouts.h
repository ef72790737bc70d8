/* Layouts of ranks over data and pipeline that tests go through. */
#ifndef REALIGN_TESTS_LAYOUTS_H
#define REALIGN_TESTS_LAYOUTS_H
#include <realign/engine.h>

typedef struct {
    int32_t replicas, stages, chunks;
} test_layout;

enum { TEST_LAYOUTS_MOST = 32 };
/* Every layout of 1 .. ranks ranks with at least one layer in each run, one or two runs a stage. Returns how many; the first is 1 x 1. */
int test_layouts(int ranks, int32_t layers, test_layout out[TEST_LAYOUTS_MOST]);
/* "2x2, 2 chunks" */
const char *test_layout_name(const test_layout *l); /* static; the next calls overwrite it in turn */
/* The layers of a stage. */
ra_part test_layout_part(const test_layout *l, int32_t stage, int32_t layers);
/* Collective over world. The ranks of the layout, the first of world; size 0 on the others. Free with test_layout_leave. */
ra_comm test_layout_join(const ra_comm *world, const test_layout *l);
void test_layout_leave(ra_comm *comm);
/* Not collective. Writes a random model of TEST_LAYERS layers, hidden 24, 90 tokens, unless it is there already. */
enum { TEST_LAYERS = 4 };
ra_err test_layout_model(const char *dir, const char *family, bool tied);
/* Free with free. */
char *test_layout_model_path(const char *dir, const char *family, bool tied);

#endif
