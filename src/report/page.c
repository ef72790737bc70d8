/* The page: head, verdict, key figures, sections. */
#include "page.h"

#include <realign/file.h>
#include <realign/version.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- pieces that sections are made of ---- */

void ra_page_section(ra_page *p, const char *id, const char *title)
{
    ra_buf_addf(p->out, "<section id=\"%s\">\n<h2><span class=\"no\">%d</span>%s</h2>\n", id, ++p->sections, title);
}

void ra_page_section_end(ra_page *p)
{
    ra_buf_adds(p->out, "</section>\n");
}

void ra_page_absent(ra_page *p, const char *why)
{
    ra_buf_adds(p->out, "<p class=\"absent\">");
    ra_html_text(p->out, why);
    ra_buf_adds(p->out, "</p>\n");
}

void ra_page_figure(ra_page *p, const char *css)
{
    ra_buf_addf(p->out, "<figure>\n<div class=\"%s\">\n", css);
}

void ra_page_caption(ra_page *p)
{
    ra_buf_addf(p->out, "</div>\n<figcaption><b>Figure %d.</b> ", ++p->figures);
}

void ra_page_figure_end(ra_page *p)
{
    ra_buf_adds(p->out, "</figcaption>\n</figure>\n");
}

void ra_page_table(ra_page *p, const char *caption, const char *heads)
{
    ra_buf_addf(p->out, "<div class=\"scroll\">\n<table>\n<caption><b>Table %d.</b> %s</caption>\n<thead><tr>", ++p->tables,
                caption);
    for (const char *at = heads; at;) {
        const char *bar = strchr(at, '|');
        bool number = *at == '>';
        size_t n = bar ? (size_t)(bar - at) : strlen(at);
        ra_buf_addf(p->out, "<th scope=\"col\"%s>%.*s</th>", number ? " class=\"n\"" : "", (int)(n - number), at + number);
        at = bar ? bar + 1 : NULL;
    }
    ra_buf_adds(p->out, "</tr></thead>\n<tbody>\n");
}

void ra_page_table_end(ra_page *p)
{
    ra_buf_adds(p->out, "</tbody>\n</table>\n</div>\n");
}

void ra_page_cell_text(ra_page *p, const char *text)
{
    ra_buf_adds(p->out, "<td>");
    ra_html_text(p->out, text);
    ra_buf_adds(p->out, "</td>");
}

void ra_page_cell_count(ra_page *p, int64_t value)
{
    ra_buf_adds(p->out, "<td class=\"n\">");
    ra_html_count(p->out, value);
    ra_buf_adds(p->out, "</td>");
}

void ra_page_cell_real(ra_page *p, double value, int digits)
{
    ra_buf_adds(p->out, "<td class=\"n\">");
    ra_html_real(p->out, value, digits);
    ra_buf_adds(p->out, "</td>");
}

void ra_page_cell_percent(ra_page *p, double share)
{
    ra_buf_adds(p->out, "<td class=\"n\">");
    ra_page_percent(p->out, share);
    ra_buf_adds(p->out, "</td>");
}

void ra_page_percent(ra_buf *out, double share)
{
    if (isfinite(share)) {
        ra_buf_addf(out, "%.1f\u202f%%", 100.0 * share);
    } else {
        ra_buf_adds(out, "\u2013");
    }
}

void ra_page_bounds(ra_buf *out, const ra_interval *share)
{
    if (isfinite(share->low) && isfinite(share->high)) {
        ra_buf_addf(out, "[%.1f, %.1f]", 100.0 * share->low, 100.0 * share->high);
    } else {
        ra_buf_adds(out, "\u2013");
    }
}

void ra_page_points(ra_buf *out, double change)
{
    if (!isfinite(change)) {
        ra_buf_adds(out, "\u2013");
        return;
    }
    double points = 100.0 * change;
    ra_buf_addf(out, "%s%.1f", points >= 0.05 ? "+" : points <= -0.05 ? "\u2212" : "", fabs(points));
}

/* ---- verdict ---- */

static void add_verdict(ra_page *p)
{
    const ra_part_verdict *v = &p->run->verdict;
    ra_buf *out = p->out;
    if (v->why) {
        ra_buf_adds(out, "<div class=\"verdict\"><strong>NO VERDICT</strong>");
        ra_html_text(out, v->why);
        ra_buf_adds(out, "</div>\n");
        return;
    }
    ra_buf_addf(out, "<div class=\"verdict %s\"><strong>%s</strong>", v->valid ? "valid" : "invalid",
                v->valid ? "VALID" : "INVALID");
    if (v->reasons == 0)
        ra_buf_adds(out, v->valid ? "All stages ended and their checks passed." : "verdict.json gives no reason.");
    if (v->reasons > 0) ra_buf_adds(out, "<ul>");
    for (int i = 0; i < v->reasons; i++) {
        ra_buf_adds(out, "<li>");
        ra_html_text(out, v->reason[i]);
        ra_buf_adds(out, "</li>");
    }
    ra_buf_adds(out, v->reasons > 0 ? "</ul></div>\n" : "</div>\n");
}

/* ---- key figures ---- */

static void tile(ra_buf *out, const char *name)
{
    ra_buf_addf(out, "<div class=\"tile\"><dt>%s</dt><dd><div class=\"figure\">", name);
}

static void tile_note(ra_buf *out)
{
    ra_buf_adds(out, "</div><div class=\"note\">");
}

static void tile_end(ra_buf *out)
{
    ra_buf_adds(out, "</div></dd></div>\n");
}

/* In percent, without the sign. */
static void add_tpa(ra_buf *out, double share)
{
    if (isfinite(share)) {
        ra_buf_addf(out, "%.1f", 100.0 * share);
    } else {
        ra_buf_adds(out, "\u2013");
    }
}

static void add_agreement_tiles(ra_buf *out, const ra_part_evaluation *e)
{
    const ra_agreement *a = &e->all;
    tile(out, "Target policy agreement");
    add_tpa(out, a->tpa[RA_BEFORE].value);
    if (e->trained) {
        ra_buf_adds(out, " <small>\u2192</small> ");
        add_tpa(out, a->tpa[RA_AFTER].value);
    }
    ra_buf_adds(out, " <small>%</small>");
    tile_note(out);
    ra_buf_adds(out, "95\u202f% intervals ");
    ra_page_bounds(out, &a->tpa[RA_BEFORE]);
    if (e->trained) {
        ra_buf_adds(out, " and ");
        ra_page_bounds(out, &a->tpa[RA_AFTER]);
    }
    ra_buf_adds(out, "; ");
    ra_html_count(out, isfinite(a->judged[RA_BEFORE]) ? (int64_t)a->judged[RA_BEFORE] : 0);
    ra_buf_adds(out, " held-out prompts");
    tile_end(out);
    if (!e->trained) return;
    tile(out, "Change in agreement");
    ra_page_points(out, a->change.value);
    ra_buf_adds(out, " <small>points</small>");
    tile_note(out);
    ra_buf_adds(out, "95\u202f% interval [");
    ra_page_points(out, a->change.low);
    ra_buf_adds(out, ", ");
    ra_page_points(out, a->change.high);
    ra_buf_adds(out, "], paired; McNemar p = ");
    ra_html_real(out, a->p, 2);
    tile_end(out);
}

static void add_cost_tiles(ra_buf *out, const ra_part_evaluation *e)
{
    if (e->retain > 0) {
        tile(out, "Drift on Retain samples");
        ra_html_real(out, e->drift_mean, 3);
        ra_buf_adds(out, " <small>nat</small>");
        tile_note(out);
        ra_buf_adds(out, "mean change of log p(y<sub>w</sub>|x); ");
        ra_html_real(out, e->drift_per_token, 2);
        ra_buf_adds(out, " nat a token; ");
        ra_html_count(out, e->retain);
        ra_buf_adds(out, " samples");
        tile_end(out);
    }
    if (!isfinite(e->perplexity[RA_BEFORE])) return;
    tile(out, "Perplexity of neutral text");
    ra_html_real(out, e->perplexity[RA_BEFORE], 4);
    if (isfinite(e->perplexity[RA_AFTER])) {
        ra_buf_adds(out, " <small>\u2192</small> ");
        ra_html_real(out, e->perplexity[RA_AFTER], 4);
    }
    tile_note(out);
    if (isfinite(e->perplexity[RA_AFTER])) {
        double change = 100.0 * (e->perplexity[RA_AFTER] / e->perplexity[RA_BEFORE] - 1.0);
        ra_buf_addf(out, "%s%.2f\u202f%%; ", change < 0.0 ? "\u2212" : "+", fabs(change));
    }
    ra_html_count(out, e->perplexity_tokens);
    ra_buf_adds(out, " tokens");
    tile_end(out);
}

static void add_tiles(ra_page *p)
{
    const ra_run_files *r = p->run;
    ra_buf *out = p->out;
    if (r->evaluation.why && r->triage.why) return;
    ra_buf_adds(out, "<dl class=\"tiles\">\n");
    if (!r->evaluation.why) {
        add_agreement_tiles(out, &r->evaluation);
        add_cost_tiles(out, &r->evaluation);
    }
    if (!r->triage.why) {
        ra_row_counts c = ra_count_rows(r);
        tile(out, "Training samples by set");
        for (int k = 0; k < RA_SETS; k++) {
            if (k) ra_buf_adds(out, " <small>\u00b7</small> ");
            ra_html_count(out, c.set[k]);
        }
        tile_note(out);
        ra_buf_adds(out, "Invert \u00b7 Punish \u00b7 Retain, of ");
        ra_html_count(out, c.rows);
        ra_buf_adds(out, " rows");
        tile_end(out);
    }
    ra_buf_adds(out, "</dl>\n");
}

/* ---- the page ---- */

static void add_meta(ra_page *p)
{
    static const char *const keys[] = {"model", "method", "policy"};
    ra_buf *out = p->out;
    char date[40];
    time_t now = time(NULL);
    struct tm utc;
    strftime(date, sizeof date, "%Y-%m-%d %H:%M UTC", gmtime_r(&now, &utc));
    ra_buf_adds(out, "<p class=\"meta\">");
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        char *value = ra_run_files_setting(p->run, keys[i]);
        if (value && *value) {
            ra_buf_addf(out, "%s ", keys[i]);
            ra_html_text(out, value);
            ra_buf_adds(out, " \u00b7 ");
        }
        free(value);
    }
    ra_buf_addf(out, "written %s</p>\n", date);
}

static void add_head(ra_page *p)
{
    ra_buf *out = p->out;
    ra_buf_adds(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n"
        "<link rel=\"icon\" href=\"data:,\">\n<title>");
    ra_html_text(out, p->run->name);
    ra_buf_adds(out, " \u2013 re-alignment report</title>\n<style>\n");
    ra_page_style(out);
    ra_buf_adds(out, "</style>\n</head>\n<body>\n<main>\n<header>\n<p class=\"kicker\">Re-alignment report</p>\n<h1>");
    ra_html_text(out, p->run->name);
    ra_buf_adds(out, "</h1>\n");
    add_meta(p);
    add_verdict(p);
    add_tiles(p);
    ra_buf_adds(out, "<nav aria-label=\"Contents\"><a href=\"#agreement\">Agreement</a> <a href=\"#triage\">Triage</a> "
                     "<a href=\"#weights\">Weights</a> <a href=\"#training\">Training</a> <a href=\"#texts\">Texts</a> "
                     "<a href=\"#time\">Layout and time</a> <a href=\"#provenance\">Provenance</a></nav>\n</header>\n");
}

static void write_page(ra_page *p)
{
    add_head(p);
    ra_page_agreement(p);
    ra_page_triage(p);
    ra_page_weights(p);
    ra_page_training(p);
    ra_page_texts(p);
    ra_page_timing(p);
    ra_page_provenance(p);
    ra_buf_adds(p->out, "<footer><p class=\"meta\">realign ");
    ra_html_text(p->out, ra_version());
    ra_buf_adds(p->out, " (");
    ra_html_text(p->out, ra_version_git());
    ra_buf_adds(p->out, ")</p></footer>\n</main>\n</body>\n</html>\n");
}

ra_err ra_report_write(const char *dir, int64_t samples)
{
    ra_run_files run;
    RA_TRY(ra_run_files_read(dir, samples, &run));
    ra_buf html = {0};
    ra_page page = {.out = &html, .run = &run};
    write_page(&page);
    char *path = ra_path_join(dir, "report.html");
    ra_err err = ra_file_write(path, html.data, html.length);
    free(path);
    ra_buf_free(&html);
    ra_run_files_free(&run);
    return err;
}
