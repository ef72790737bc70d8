/* Pictures of pipeline schedules: a row a rank, a box a slot, time to the right. */
#include "plot_impl.h"

#include <realign/report.h>

#include <math.h>
#include <stdio.h>

#define ROW 20.0
#define BETWEEN 4.0
#define LABEL_FONT 9.5     /* of a box */
#define FORWARD_WIDTH 16.0 /* a forward pass is at least this wide: room for two digits */
#define LEAST_WIDTH 900.0
#define MOST_WIDTH 6000.0

static const struct {
    const char *name;
    ra_colour colour;
} look[RA_SLOT_OPS] = {
    [RA_SLOT_FORWARD] = {"forward", RA_COLOUR_BLUE},
    [RA_SLOT_BACKWARD] = {"backward", RA_COLOUR_VERMILION},
    [RA_SLOT_BACKWARD_INPUT] = {"backward, gradient of the input", RA_COLOUR_VERMILION},
    [RA_SLOT_BACKWARD_WEIGHT] = {"backward, gradient of the weights", RA_COLOUR_GREEN},
};

typedef struct {
    ra_buf *out;
    const ra_schedule *s;
    const ra_schedule_timing *t;
    double left, scale, top, peaks, idle; /* pixels: the area of boxes; a unit of time; right edges of the columns of numbers */
} picture;

/* Chunks of a rank fade from full colour on; on the pale ones letters are dark. */
static double opacity_of(const ra_schedule *s, int32_t chunk)
{
    return chunk == 0 ? 1.0 : 0.6 - 0.35 * (chunk - 1) / fmax(1.0, s->chunks - 2);
}

static double mean_forward(const ra_schedule *s, const ra_schedule_timing *t)
{
    double sum = 0.0;
    int64_t n = 0;
    for (int32_t r = 0; r < s->ranks; r++) {
        for (int32_t i = 0; i < s->rank[r].slots; i++) {
            if (s->rank[r].slot[i].op != RA_SLOT_FORWARD) continue;
            sum += t->end[r][i] - t->start[r][i];
            n++;
        }
    }
    return sum / (double)n;
}

static void draw_box(const picture *p, int32_t rank, int32_t i, double y)
{
    const ra_slot *slot = &p->s->rank[rank].slot[i];
    double start = p->t->start[rank][i], end = p->t->end[rank][i], x = p->left + start * p->scale,
           width = (end - start) * p->scale;
    double opacity = opacity_of(p->s, slot->chunk);
    ra_buf_addf(p->out, "<rect class=\"p-slot f%d\" x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%.1f\"", look[slot->op].colour,
                x, y, fmax(width - 0.6, 0.3), ROW);
    if (opacity < 1.0) ra_buf_addf(p->out, " fill-opacity=\"%.2f\"", opacity);
    ra_buf_addf(p->out, "><title>rank %d: %s, micro-batch %d", rank, look[slot->op].name, slot->micro_batch);
    if (p->s->chunks > 1) ra_buf_addf(p->out, ", chunk %d", slot->chunk);
    ra_buf_addf(p->out, ", %.6g to %.6g</title></rect>\n", start, end);
    char text[16];
    snprintf(text, sizeof text, "%d", slot->micro_batch);
    if (ra_text_width(text, LABEL_FONT) + 1.0 > width) return;
    ra_svg_text(p->out, x + width / 2.0, y + ROW / 2.0 + 3.4, opacity < 1.0 ? "p-slot-pale" : "p-slot-text", "middle", text);
}

static void draw_rank(const picture *p, int32_t rank)
{
    char text[32];
    double y = p->top + rank * (ROW + BETWEEN), base = y + ROW / 2.0 + 4.0, makespan = p->t->makespan;
    snprintf(text, sizeof text, "rank %d", rank);
    ra_svg_text(p->out, p->left - 8.0, base, "p-label", "end", text);
    ra_buf_addf(p->out, "<rect class=\"p-idle\" x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%.1f\"/>\n", p->left, y,
                makespan * p->scale, ROW);
    for (int32_t i = 0; i < p->s->rank[rank].slots; i++) draw_box(p, rank, i, y);
    snprintf(text, sizeof text, "%.1f %%", 100.0 * (1.0 - p->t->busy[rank] / makespan));
    ra_svg_text(p->out, p->idle, base, "p-value", "end", text);
    snprintf(text, sizeof text, "%d", p->s->rank[rank].peak);
    ra_svg_text(p->out, p->peaks, base, "p-value", "end", text);
}

/* Boxes with their names: the ops that occur, idle time, chunks where there are several. */
static double draw_key(ra_buf *out, double x, double y, const char *css, double opacity, const char *name)
{
    ra_buf_addf(out, "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"14\" height=\"11\" fill-opacity=\"%.2f\"/>\n", css, x,
                y - 10.0, opacity);
    ra_svg_text(out, x + 20.0, y, "p-label", "start", name);
    return x + 20.0 + ra_text_width(name, 12.0) + 16.0;
}

static void draw_legend(const picture *p, double y)
{
    bool used[RA_SLOT_OPS] = {0};
    double x = p->left;
    for (int32_t i = 0; i < p->s->rank[0].slots; i++) used[p->s->rank[0].slot[i].op] = true;
    for (int op = 0; op < RA_SLOT_OPS; op++) {
        char css[8];
        snprintf(css, sizeof css, "f%d", (int)look[op].colour);
        if (used[op]) x = draw_key(p->out, x, y, css, 1.0, look[op].name);
    }
    x = draw_key(p->out, x, y, "p-idle", 1.0, "idle");
    for (int32_t c = 0; c < p->s->chunks && p->s->chunks > 1; c++) {
        char name[32];
        snprintf(name, sizeof name, "chunk %d", c);
        x = draw_key(p->out, x, y, "f7", opacity_of(p->s, c), name);
    }
    ra_svg_text(p->out, p->idle, y, "p-axis", "end", "idle");
    ra_svg_text(p->out, p->peaks, y, "p-axis", "end", "peak");
}

static void draw_axis(const picture *p, const char *label)
{
    double bottom = p->top + p->s->ranks * (ROW + BETWEEN), right = p->left + p->t->makespan * p->scale;
    ra_ticks t = ra_ticks_of(0.0, p->t->makespan, 8, false);
    for (int i = 0; i < t.n; i++) {
        double x = p->left + t.at[i] * p->scale;
        ra_buf_addf(p->out, "<line class=\"p-base\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>\n", x, x, bottom,
                    bottom + 4.0);
        ra_svg_text(p->out, x, bottom + 16.0, "p-tick", "middle", t.label[i]);
    }
    ra_buf text = {0};
    ra_buf_adds(&text, label ? label : "time");
    if (t.exponent) {
        ra_buf_adds(&text, " \u00d7");
        ra_power_of_ten(&text, t.exponent);
    }
    ra_svg_text(p->out, right, bottom + 32.0, "p-axis", "end", text.data);
    ra_buf_free(&text);
}

/* "1f1b, 4 ranks, 8 micro-batches", and what came out: the caption. */
static void describe(const ra_schedule *s, const ra_schedule_timing *t, ra_buf *title, ra_buf *caption)
{
    int32_t most = 0;
    for (int32_t r = 1; r < s->ranks; r++) {
        if (s->rank[r].peak > s->rank[most].peak) most = r;
    }
    ra_buf_addf(title, "%s: %d rank%s, %d micro-batch%s", ra_pipeline_kind_name[s->kind], s->ranks, s->ranks == 1 ? "" : "s",
                s->micro_batches, s->micro_batches == 1 ? "" : "es");
    if (s->chunks > 1) ra_buf_addf(title, ", %d chunks a rank", s->chunks);
    ra_buf_addf(caption, "makespan %.6g \u00b7 bubble %.2f %% \u00b7 peak %d on rank %d (%s whose activations are held)",
                t->makespan, 100.0 * t->bubble, s->rank[most].peak, most,
                s->chunks > 1 ? "chunks of micro-batches" : "micro-batches");
}

void ra_plot_schedule(ra_buf *out, const ra_plot *plot, const ra_schedule *s, const ra_schedule_timing *t)
{
    ra_buf title = {0}, caption = {0};
    describe(s, t, &title, &caption);
    const double left = 58.0, columns = 112.0;
    picture p = {.out = out, .s = s, .t = t, .left = left, .top = 74.0};
    double boxes = fmin(fmax(FORWARD_WIDTH * t->makespan / mean_forward(s, t), LEAST_WIDTH - left - columns), MOST_WIDTH);
    double width = plot->width > 0.0 ? plot->width : left + boxes + columns;
    p.scale = (width - left - columns) / t->makespan;
    p.idle = width - 48.0;
    p.peaks = width - 4.0;
    ra_plot with = *plot;
    if (!with.title) with.title = title.data;
    if (!with.description) with.description = caption.data;
    ra_svg_begin(out, &with, width, p.top + s->ranks * (ROW + BETWEEN) + 40.0);
    ra_svg_text(out, 0.0, 32.0, "p-axis", "start", caption.data);
    draw_legend(&p, 60.0);
    for (int32_t r = 0; r < s->ranks; r++) draw_rank(&p, r);
    draw_axis(&p, plot->x_label);
    ra_svg_end(out);
    ra_buf_free(&title);
    ra_buf_free(&caption);
}
