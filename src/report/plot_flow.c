/* Flow diagrams: nodes in columns, ribbons between them. */
#include "plot_impl.h"

#include <realign/report.h>

#include <math.h>
#include <stdlib.h>

enum { MOST_COLUMNS = 8 };

#define NODE_WIDTH 12.0
#define SLOT 30.0 /* a node's room is at least this high, for its two lines of text */
#define PAD 8.0

typedef struct {
    double x, y, height; /* the bar */
    double out, in;      /* where the next ribbon leaves and arrives */
} place;

static double room(double value, double scale)
{
    return fmax(value * scale, SLOT);
}

/* Height of the fullest column at a scale. */
static double fullest(const ra_flow_node *node, int nodes, double scale)
{
    double sum[MOST_COLUMNS] = {0}, most = 0.0;
    for (int i = 0; i < nodes; i++) {
        if (node[i].value <= 0) continue;
        double *s = &sum[node[i].column];
        *s += room((double)node[i].value, scale) + (*s > 0.0 ? PAD : 0.0);
        most = fmax(most, *s);
    }
    return most;
}

/* Pixels for a unit of value so that the columns fit, by halving. */
static double find_scale(const ra_flow_node *node, int nodes, double height)
{
    double low = 0.0, high = 0.0;
    for (int i = 0; i < nodes; i++) {
        if (node[i].value > 0) high = fmax(high, height / (double)node[i].value);
    }
    for (int k = 0; k < 60; k++) {
        double middle = 0.5 * (low + high);
        if (fullest(node, nodes, middle) <= height) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

static void draw_ribbon(ra_buf *out, const ra_flow_node *to, double x0, double y0, double x1, double y1, double h)
{
    double middle = 0.5 * (x0 + x1);
    ra_buf_addf(
        out,
        "<path class=\"p-ribbon f%d\" d=\"M%.1f %.1fC%.1f %.1f %.1f %.1f %.1f %.1fv%.2fC%.1f %.1f %.1f %.1f %.1f %.1fz\"/>\n",
        to->colour, x0, y0, middle, y0, middle, y1, x1, y1, h, middle, y1 + h, middle, y0 + h, x0, y0 + h);
}

static void draw_node(ra_buf *out, const ra_flow_node *node, const place *p, int64_t whole)
{
    ra_buf text = {0};
    ra_html_count(&text, node->value);
    if (node->column > 0 && whole > 0) ra_buf_addf(&text, " (%.1f %%)", 100.0 * (double)node->value / (double)whole);
    ra_buf_addf(out, "<rect class=\"f%d\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.2f\"/>\n", node->colour, p->x, p->y,
                NODE_WIDTH, fmax(p->height, 1.0));
    double y = fmax(p->y + p->height / 2.0 - 3.0, p->y + 11.0), x = p->x + NODE_WIDTH + 7.0;
    ra_svg_text(out, x, y, "p-node", "start", node->label);
    ra_svg_text(out, x, y + 14.0, "p-tick", "start", text.data);
    ra_buf_free(&text);
}

void ra_plot_flow(ra_buf *out, const ra_plot *plot, const ra_flow_node *node, int nodes, const ra_flow_link *link, int links)
{
    double width = plot->width > 0.0 ? plot->width : 1060.0, height = plot->height > 0.0 ? plot->height : 320.0;
    double top = plot->title ? 30.0 : 4.0, next[MOST_COLUMNS];
    int columns = 1;
    int64_t whole = 0;
    for (int i = 0; i < nodes; i++) {
        if (node[i].column + 1 > columns) columns = node[i].column + 1;
        if (node[i].column == 0) whole += node[i].value;
    }
    if (columns > MOST_COLUMNS) ra_die("ra_plot_flow: %d columns; at most %d", columns, MOST_COLUMNS);
    height = fmax(height, top + fullest(node, nodes, 0.0) + 14.0);
    double scale = find_scale(node, nodes, height - top - 10.0), last = width - 150.0;
    for (int c = 0; c < columns; c++) next[c] = top;
    place *at = ra_calloc((size_t)nodes, sizeof *at);
    for (int i = 0; i < nodes; i++) {
        if (node[i].value <= 0) continue;
        int c = node[i].column;
        at[i] = (place){.x = columns > 1 ? last * c / (columns - 1) : 0.0, .y = next[c], .height = (double)node[i].value * scale};
        at[i].out = at[i].in = at[i].y;
        next[c] += room((double)node[i].value, scale) + PAD;
    }
    ra_svg_begin(out, plot, width, height);
    for (int i = 0; i < links; i++) {
        if (link[i].value <= 0 || node[link[i].from].value <= 0 || node[link[i].to].value <= 0) continue;
        place *a = &at[link[i].from], *b = &at[link[i].to];
        double h = (double)link[i].value * scale;
        draw_ribbon(out, &node[link[i].to], a->x + NODE_WIDTH, a->out, b->x, b->in, h);
        a->out += h;
        b->in += h;
    }
    ra_buf_adds(out, "<g class=\"halo\">\n");
    for (int i = 0; i < nodes; i++) {
        if (node[i].value > 0) draw_node(out, &node[i], &at[i], whole);
    }
    ra_buf_adds(out, "</g>\n");
    ra_svg_end(out);
    ra_free(at);
}
