/* Micro-batches: samples as trees of a pack, and the rows whose states predict their response tokens. */
#include <realign/error.h>
#include <realign/loss.h>
#include <realign/mem.h>

#include <string.h>

ra_microbatch *ra_microbatch_new(int32_t rows)
{
    ra_microbatch *mb = ra_calloc(1, sizeof *mb);
    size_t n = (size_t)rows;
    mb->max_rows = rows;
    mb->max_items = rows;
    mb->max_head_rows = rows;
    mb->pack.token = ra_alloc(n, sizeof(int32_t));
    mb->pack.position = ra_alloc(n, sizeof(int32_t));
    mb->pack.segment = ra_alloc(n, sizeof(ra_segment));
    mb->pack.tree_begin = ra_alloc(n + 1, sizeof(int32_t));
    mb->item = ra_alloc(n, sizeof *mb->item);
    mb->response = ra_alloc(n * RA_ROLES, sizeof *mb->response);
    mb->head_row = ra_alloc((size_t)mb->max_head_rows, sizeof(int32_t));
    mb->head_target = ra_alloc((size_t)mb->max_head_rows, sizeof(int32_t));
    ra_microbatch_clear(mb);
    return mb;
}

void ra_microbatch_free(ra_microbatch *mb)
{
    if (!mb) return;
    void *memory[] = {mb->pack.token, mb->pack.position, mb->pack.segment, mb->pack.tree_begin,
                      mb->item,       mb->response,      mb->head_row,     mb->head_target};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++) ra_free(memory[i]);
    ra_free(mb);
}

void ra_microbatch_clear(ra_microbatch *mb)
{
    mb->pack.rows = mb->pack.segments = mb->pack.trees = 0;
    mb->pack.tree_begin[0] = 0;
    mb->items = mb->responses = mb->head_rows = mb->kl_first = 0;
}

static bool takes(const ra_sample *s, unsigned roles, int role)
{
    return (roles >> role & 1) && s->response[role].count > s->response[role].skip;
}

/* Head rows of a sample: more than its pack rows where the prompt is shorter than the number of responses. */
static int32_t head_rows_of(const ra_sample *s, unsigned roles)
{
    int32_t rows = 0;
    for (int role = 0; role < RA_ROLES; role++) {
        if (takes(s, roles, role)) rows += s->response[role].count - s->response[role].skip;
    }
    return rows;
}

int32_t ra_microbatch_rows(const ra_sample *s, unsigned roles)
{
    int32_t rows = s->prompt_count, head_rows = head_rows_of(s, roles);
    for (int role = 0; role < RA_ROLES; role++) {
        if (takes(s, roles, role)) rows += s->response[role].count - 1;
    }
    return rows > head_rows ? rows : head_rows;
}

/* Appends a segment and returns its index; a segment without rows is its parent. */
static int32_t add_segment(ra_pack *p, int32_t parent, const int32_t *token, int32_t n, int32_t position)
{
    if (n == 0) return parent;
    ra_segment *s = &p->segment[p->segments];
    *s = (ra_segment){.parent = parent, .begin = p->rows, .end = p->rows + n};
    memcpy(p->token + p->rows, token, (size_t)n * sizeof *token);
    for (int32_t i = 0; i < n; i++) p->position[p->rows + i] = position + i;
    p->rows += n;
    return p->segments++;
}

static void add_response(ra_microbatch *mb, const ra_sample *s, int role, int32_t prompt, const double *reference)
{
    ra_pack *p = &mb->pack;
    int32_t n = s->response[role].count, first = s->response[role].skip, last_prompt_row = p->segment[prompt].end - 1;
    int32_t begin = p->rows;
    add_segment(p, prompt, s->response[role].token, n - 1, s->prompt_count);
    mb->item[mb->items].response[role] = mb->responses;
    mb->response[mb->responses++] = (ra_response){.item = mb->items,
                                                  .role = (ra_role)role,
                                                  .first = mb->head_rows,
                                                  .count = n - first,
                                                  .reference = reference ? reference[role] : 0.0};
    for (int32_t i = first; i < n; i++) { /* token i is predicted by the row before it */
        mb->head_row[mb->head_rows] = i == 0 ? last_prompt_row : begin + i - 1;
        mb->head_target[mb->head_rows++] = s->response[role].token[i];
    }
}

bool ra_microbatch_add(ra_microbatch *mb, const ra_sample *s, ra_loss_kind kind, double weight, const double *reference)
{
    ra_pack *p = &mb->pack;
    unsigned roles = ra_loss_roles(kind);
    if (p->rows + ra_microbatch_rows(s, roles) > mb->max_rows || mb->items == mb->max_items) return false;
    if (mb->head_rows + head_rows_of(s, roles) > mb->max_head_rows) return false;
    bool retain = kind == RA_LOSS_RETAIN;
    if (!retain && mb->kl_first < mb->head_rows) ra_die("a Retain sample stands before another kind in a micro-batch");
    ra_item *item = &mb->item[mb->items];
    *item = (ra_item){.sample = s->id, .kind = kind, .weight = weight, .response = {-1, -1, -1}};
    int32_t prompt = add_segment(p, -1, s->prompt, s->prompt_count, 0);
    for (int role = 0; role < RA_ROLES; role++) {
        if (takes(s, roles, role)) add_response(mb, s, role, prompt, reference);
    }
    mb->items++;
    p->trees++;
    p->tree_begin[p->trees] = p->segments;
    if (!retain) mb->kl_first = mb->head_rows;
    return true;
}
