#include "layouts.h"

#include <realign/file.h>
#include <realign/mem.h>
#include <realign/tools.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int test_layouts(int ranks, int32_t layers, test_layout out[TEST_LAYOUTS_MOST])
{
    int n = 0;
    for (int32_t all = 1; all <= ranks; all++) {
        for (int32_t stages = 1; stages <= all; stages++) {
            for (int32_t chunks = 1; chunks <= (stages > 1 ? 2 : 1); chunks++) {
                if (all % stages || stages * chunks > layers || n == TEST_LAYOUTS_MOST) continue;
                out[n++] = (test_layout){all / stages, stages, chunks};
            }
        }
    }
    return n;
}

const char *test_layout_name(const test_layout *l)
{
    static char names[4][48];
    static int next;
    char *name = names[next++ % 4];
    snprintf(name, sizeof names[0], "%dx%d%s", l->replicas, l->stages, l->chunks > 1 ? ", 2 chunks" : "");
    return name;
}

ra_part test_layout_part(const test_layout *l, int32_t stage, int32_t layers)
{
    ra_part part = {.chunks = l->chunks};
    int32_t runs = l->stages * l->chunks;
    for (int32_t c = 0; c < l->chunks; c++) {
        int32_t run = c * l->stages + stage;
        part.chunk[c].first = layers * run / runs;
        part.chunk[c].count = layers * (run + 1) / runs - part.chunk[c].first;
    }
    return part;
}

ra_comm test_layout_join(const ra_comm *world, const test_layout *l)
{
    ra_comm comm = {.comm = MPI_COMM_NULL};
    bool in = world->rank < l->replicas * l->stages;
    RA_MPI(MPI_Comm_split(world->comm, in ? 0 : MPI_UNDEFINED, world->rank, &comm.comm));
    if (!in) return comm;
    comm.rank = world->rank;
    comm.size = l->replicas * l->stages;
    return comm;
}

void test_layout_leave(ra_comm *comm)
{
    if (comm->size > 0) RA_MPI(MPI_Comm_free(&comm->comm));
    comm->size = 0;
}

char *test_layout_model_path(const char *dir, const char *family, bool tied)
{
    return ra_format("%s/%s-%s", dir, family, tied ? "tied" : "untied");
}

ra_err test_layout_model(const char *dir, const char *family, bool tied)
{
    char *model = test_layout_model_path(dir, family, tied), *config = ra_format("%s.json", model);
    char *text = ra_format("{\"model_type\": \"%s\", \"hidden_size\": 24, \"intermediate_size\": 36, \"num_hidden_layers\": %d, "
                           "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"vocab_size\": 90, "
                           "\"max_position_embeddings\": 64, \"tie_word_embeddings\": %s}",
                           family, TEST_LAYERS, tied ? "true" : "false");
    char random[] = "--random", *words[] = {random, config, model};
    ra_err err = RA_OK;
    if (!ra_file_exists(model)) {
        err = ra_file_write(config, text, strlen(text));
        if (err == RA_OK) err = ra_tool_convert(3, words);
    }
    free(text);
    free(config);
    free(model);
    return err;
}
