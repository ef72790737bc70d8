/* The report: ticks, escaping, numbers, intervals, tables, well-formed SVG, and runs that lack files or hold damaged ones. */
#include "../support/support.h"
#include "../support/xml.h"

#include <realign/file.h>
#include <realign/report.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void assert_in(const char *text, const char *part)
{
    if (!strstr(text, part)) fail_msg("'%s' is not in the text of %zu bytes", part, strlen(text));
}

/* ---- ticks ---- */

static void expect_ticks(double low, double high, int wanted, bool log, int exponent, const char *labels)
{
    ra_ticks t = ra_ticks_of(low, high, wanted, log);
    ra_buf got = {0};
    ra_buf_adds(&got, "");
    for (int i = 0; i < t.n; i++) ra_buf_addf(&got, "%s%s", i ? " " : "", t.label[i]);
    assert_string_equal(got.data, labels);
    assert_int_equal(t.exponent, exponent);
    ra_buf_free(&got);
}

static void test_ticks(void **state)
{
    (void)state;
    expect_ticks(0, 100, 5, false, 0, "0 20 40 60 80 100");
    expect_ticks(0, 1, 5, false, 0, "0.0 0.2 0.4 0.6 0.8 1.0");
    expect_ticks(-3, 2, 5, false, 0, "\u22123 \u22122 \u22121 0 1 2");
    expect_ticks(0, 2e-4, 5, false, -4, "0.0 0.5 1.0 1.5 2.0");
    expect_ticks(0, 6e6, 5, false, 6, "0 2 4 6");
    expect_ticks(0.31, 0.36, 5, false, 0, "0.31 0.32 0.33 0.34 0.35 0.36");
    expect_ticks(1e-4, 1, 5, true, 0, "0.0001 0.001 0.01 0.1 1");
    expect_ticks(1, 20, 5, true, 0, "1 2 5 10 20");
    expect_ticks(7, 7, 5, false, 0, "7.000");
    assert_int_equal(ra_ticks_of(NAN, 1, 5, false).n, 0);
    assert_int_equal(ra_ticks_of(0, INFINITY, 5, false).n, 0);
    assert_int_equal(ra_ticks_of(0, 1, 5, true).n, 0);
    for (int i = 0; i < 2000; i++) { /* whatever the range: within it, ascending, evenly spaced, not too many */
        double low = ldexp((i * 37 % 101) - 50.0, i % 61 - 30), high = low + ldexp(1.0 + i % 7, i * 11 % 71 - 35);
        ra_ticks t = ra_ticks_of(low, high, 5, false);
        assert_in_range(t.n, 1, 12);
        for (int k = 0; k < t.n; k++) {
            double slack = 1e-6 * (high - low) + 1e-15 * fmax(fabs(low), fabs(high));
            assert_true(t.at[k] >= low - slack && t.at[k] <= high + slack);
            if (k >= 2)
                check_close(t.at[k] - t.at[k - 1], t.at[1] - t.at[0], 1e-3, 1e-9 * fmax(fabs(low), fabs(high)), "spacing");
        }
    }
}

/* ---- text ---- */

static void expect_text(const char *text, const char *html)
{
    ra_buf out = {0};
    ra_buf_adds(&out, "");
    ra_html_text(&out, text);
    assert_string_equal(out.data, html);
    ra_buf_free(&out);
}

static void test_escaping(void **state)
{
    (void)state;
    expect_text("<script>alert('1 & \"2\"')</script>", "&lt;script&gt;alert(&#39;1 &amp; &quot;2&quot;&#39;)&lt;/script&gt;");
    expect_text("caf\u00e9 \u65e5\u672c \U0001f600\ttab\nline", "caf\u00e9 \u65e5\u672c \U0001f600\ttab\nline");
    expect_text("a\x01\x1b"
                "b\x7f",
                "a\ufffd\ufffd"
                "b\ufffd");
    expect_text("\xff\xc0\xaf|\xed\xa0\x80|\xf4\x90\x80\x80|\xe2\x82",
                "\ufffd\ufffd\ufffd|\ufffd\ufffd\ufffd|\ufffd\ufffd\ufffd\ufffd|\ufffd\ufffd");
    expect_text("\xc2\x85|", "\ufffd|");
    expect_text(NULL, "");
}

static void expect_real(double value, int digits, const char *html)
{
    ra_buf out = {0};
    ra_html_real(&out, value, digits);
    assert_string_equal(out.data, html);
    ra_buf_free(&out);
}

static void test_numbers(void **state)
{
    (void)state;
    expect_real(0.0, 3, "0");
    expect_real(-0.0042, 2, "\u22120.0042");
    expect_real(14.2149, 4, "14.21");
    expect_real(3.1e-6, 2, "3.1\u00d710<sup>\u22126</sup>");
    expect_real(12345.6, 3, "12346");
    expect_real(-2.5e9, 3, "\u22122.5\u00d710<sup>9</sup>");
    expect_real(NAN, 3, "\u2013");
    expect_real(-INFINITY, 3, "\u2013");
    ra_buf out = {0};
    const int64_t counts[] = {0, 999, 1000, 1234567, -45678, INT64_MIN};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        ra_html_count(&out, counts[i]);
        ra_buf_adds(&out, " ");
    }
    assert_string_equal(out.data, "0 999 1,000 1,234,567 \u221245,678 \u22129,223,372,036,854,775,808 ");
    ra_buf_free(&out);
}

/* ---- statistics ---- */

/* R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3. */
static void test_wilson(void **state)
{
    (void)state;
    static const struct {
        int yes, n;
        double low, high;
    } known[] = {{81, 263, 0.2553, 0.3662}, {15, 148, 0.0624, 0.1605}, {0, 20, 0.0, 0.1611}, {1, 29, 0.0061, 0.1718}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        ra_interval v = ra_interval_share(known[i].yes, known[i].n);
        check_close(v.low, known[i].low, 0, 5e-5, "low");
        check_close(v.high, known[i].high, 0, 5e-5, "high");
        ra_interval other = ra_interval_share(known[i].n - known[i].yes, known[i].n);
        check_close(other.low, 1.0 - v.high, 1e-12, 1e-15, "mirrored");
    }
    assert_true(isnan(ra_interval_share(0, 0).value) && isnan(ra_interval_share(0, 0).low));
    assert_true(ra_interval_share(7, 7).high == 1.0 && ra_interval_share(0, 7).low == 0.0);
}

static void test_correlation(void **state)
{
    (void)state;
    const double x[] = {1, 2, NAN, 3, 4, 5, 6}, y[] = {2, 1, 9, 4, 3, INFINITY, 5}, flat[] = {7, 7, 7, 7, 7, 7, 7};
    /* over (1,2) (2,1) (3,4) (4,3) (6,5): sxy 10.0, sxx 14.8, syy 10 */
    check_close(ra_correlation(x, y, 7), 10.0 / sqrt(148.0), 1e-14, 0, "correlation");
    double far_x[4], far_y[4] = {1, 2, 3, 4};
    for (int i = 0; i < 4; i++) far_x[i] = 1e9 - i;
    check_close(ra_correlation(far_x, far_y, 4), -1.0, 1e-12, 0, "far from 0");
    assert_true(isnan(ra_correlation(x, flat, 7)) && isnan(ra_correlation(x, y, 2)));
}

/* ---- tables ---- */

static void test_table(void **state)
{
    (void)state;
    char *dir = test_dir_make(), *path = ra_path_join(dir, "t.tsv");
    static const char text[] = "step\tloss\tname\n1\t0.5\ta\n\n2\tnan\n3\t1e-3x\tb\tmore\r\n4\t0.25";
    CHECK_OK(ra_file_write(path, text, sizeof text - 1));
    ra_table t;
    CHECK_OK(ra_table_read(path, &t));
    assert_int_equal(t.rows, 3); /* the last line has no end */
    double *loss = ra_table_reals(&t, "loss");
    check_close(loss[0], 0.5, 0, 0, "loss");
    assert_true(isnan(loss[1]) && isnan(loss[2]));
    assert_null(ra_table_reals(&t, "kl"));
    assert_string_equal(ra_table_cell(&t, 1, "name"), "");
    assert_string_equal(ra_table_cell(&t, 2, "name"), "b");
    assert_string_equal(ra_table_cell(&t, 9, "name"), "");
    ra_free(loss);
    ra_table_free(&t);
    CHECK_OK(ra_file_write(path, "a\0b\n", 4));
    check_fails(ra_table_read(path, &t), RA_ERR_FORMAT, "t.tsv", "columns", NULL);
    unlink(path);
    check_fails(ra_table_read(path, &t), RA_ERR_IO, "t.tsv", NULL);
    free(path);
    test_dir_remove(dir);
}

/* ---- SVG ---- */

static void expect_svg(ra_buf *out, const char *part)
{
    const char *problem = test_xml_problem(out->data);
    if (problem) fail_msg("%s in %.3000s", problem, out->data);
    assert_in(out->data, "<title>");
    assert_in(out->data, part);
    ra_buf_clear(out);
}

static void test_svg(void **state)
{
    (void)state;
    enum { N = 20000 };
    double *x = ra_alloc(N, sizeof *x), *y = ra_alloc(N, sizeof *y);
    for (int i = 0; i < N; i++) {
        x[i] = i;
        y[i] = i % 50 == 7 ? NAN : i % 5000 == 1 ? INFINITY : sin(i * 0.001) - 0.5;
    }
    ra_buf out = {0};
    ra_plot plot = {.title = "A < B & \"C\"", .description = "it's", .x_label = "x", .y_label = "y", .unit = "%"};
    ra_series s[2] = {{.name = "one", .n = N, .x = x, .y = y}, {.name = "<two>", .n = 200, .x = x, .y = y, .dashed = true}};
    ra_plot_lines(&out, &plot, s, 2);
    assert_in_range(out.length, 1000, 60000); /* 20,000 points are thinned to the pixels */
    expect_svg(&out, "<polyline");
    ra_plot_scatter(&out, &plot, s, 2);
    expect_svg(&out, "&lt;two&gt;");
    ra_plot_histogram(&out, &plot, s, 2);
    expect_svg(&out, "<rect");
    ra_plot log_plot = plot;
    log_plot.x_log = log_plot.y_log = true;
    ra_plot_lines(&out, &log_plot, s, 2);
    expect_svg(&out, "<polyline");
    for (int64_t n = 0; n < 3; n++) { /* nothing, one point, two */
        ra_series few = {.n = n, .x = x, .y = y};
        ra_plot_lines(&out, &plot, &few, 1);
        expect_svg(&out, "A &lt; B");
        ra_plot_scatter(&out, &log_plot, &few, 1);
        expect_svg(&out, "A &lt; B");
        ra_plot_histogram(&out, &plot, &few, 1);
        expect_svg(&out, "A &lt; B");
    }
    ra_series void_series = {.n = 3, .x = x, .y = (const double[]){NAN, NAN, NAN}};
    ra_plot_lines(&out, &plot, &void_series, 1);
    expect_svg(&out, "A &lt; B");
    ra_interval v[3] = {{40, 30, 50}, {NAN, NAN, NAN}, {-5, NAN, NAN}};
    ra_plot_bars(&out, &plot, (const char *const[]){"a & b", "a very long label that does not fit at all in its place", ""}, 3,
                 &(ra_bars){"bars", RA_COLOUR_BLUE, v}, 1);
    expect_svg(&out, "a very long label that does not f\u2026");
    ra_plot_bars(&out, &plot, NULL, 0, NULL, 0);
    expect_svg(&out, "A &lt; B");
    const ra_flow_node node[] = {{0, "Rows", 1000000, RA_COLOUR_INK},
                                 {1, "Used", 999999, RA_COLOUR_SKY},
                                 {1, "Lost & gone", 1, RA_COLOUR_GREY},
                                 {1, "None", 0, RA_COLOUR_GREY}};
    const ra_flow_link link[] = {{0, 1, 999999}, {0, 2, 1}, {0, 3, 0}};
    ra_plot_flow(&out, &plot, node, 4, link, 3);
    assert_null(strstr(out.data, ">None<"));
    expect_svg(&out, "Lost &amp; gone");
    ra_plot_flow(&out, &plot, node + 3, 1, NULL, 0);
    expect_svg(&out, "A &lt; B");
    ra_buf_free(&out);
    ra_free(x);
    ra_free(y);
}

static int count_of(const char *text, const char *part)
{
    int n = 0;
    for (; (text = strstr(text, part)); text++) n++;
    return n;
}

/* A value that is none parts a curve; what then stands alone is a dot; few points are marked, many are not. */
static void test_gaps(void **state)
{
    (void)state;
    enum { N = 50 };
    double x[N], y[N];
    for (int i = 0; i < N; i++) {
        x[i] = i;
        y[i] = i == 20 || i == 22 ? NAN : i;
    }
    ra_buf out = {0};
    ra_plot_lines(&out, &(ra_plot){.title = "t"}, &(ra_series){.n = N, .x = x, .y = y}, 1);
    assert_int_equal(count_of(out.data, "<polyline"), 2);
    assert_int_equal(count_of(out.data, "<circle"), 1);
    ra_buf_clear(&out);
    ra_plot_lines(&out, &(ra_plot){.title = "t"}, &(ra_series){.n = 10, .x = x, .y = y}, 1);
    assert_int_equal(count_of(out.data, "<polyline"), 1);
    assert_int_equal(count_of(out.data, "<circle"), 10);
    ra_buf_free(&out);
}

/* Every value lands in one bin; counts have ticks at whole numbers. */
static void test_bins(void **state)
{
    (void)state;
    const double x[] = {0.0, 0.1, 0.1, 0.25, 0.5, 0.75, 1.0, NAN};
    ra_buf out = {0};
    ra_plot_histogram(&out, &(ra_plot){.title = "t"}, &(ra_series){.n = 8, .x = x}, 1);
    int sum = 0;
    for (const char *p = out.data; (p = strstr(p, "<rect")); p++) {
        int count = 0;
        assert_int_equal(sscanf(strstr(p, "<title>"), "<title>%*f to %*f: %d", &count), 1);
        sum += count;
    }
    assert_int_equal(sum, 7);
    assert_null(strstr(out.data, ">0.5</text>\n<line class=\"p-grid\""));
    ra_buf_free(&out);
}

/* One bar of each of two series ends where its value is: the axis goes from 0 to 100 over the same pixels. */
static void test_bar_lengths(void **state)
{
    (void)state;
    const ra_interval v[2] = {{25, NAN, NAN}, {50, NAN, NAN}};
    ra_buf out = {0};
    ra_plot_bars(&out, &(ra_plot){.title = "t", .low = 0, .high = 100}, (const char *const[]){"a", "b"}, 2,
                 &(ra_bars){NULL, RA_COLOUR_BLUE, v}, 1);
    double width[2] = {0};
    const char *p = out.data;
    for (int i = 0; i < 2; i++) {
        p = strstr(p, "<rect");
        assert_non_null(p);
        assert_int_equal(sscanf(strstr(p, " width=\""), " width=\"%lf", &width[i]), 1);
        p++;
    }
    check_close(width[1], 2.0 * width[0], 0, 0.2, "bar of twice the value");
    ra_buf_free(&out);
}

/* ---- whole pages ---- */

static char *page_of(const char *dir)
{
    CHECK_OK(ra_report_write(dir, 5));
    char *path = ra_path_join(dir, "report.html");
    ra_buf html = {0};
    CHECK_OK(ra_file_read(path, &html));
    free(path);
    assert_null(strstr(html.data, "<script"));
    assert_null(strstr(html.data, "src="));
    return html.data;
}

static void put(const char *dir, const char *name, const char *text)
{
    char *path = ra_path_join(dir, name);
    CHECK_OK(ra_file_write(path, text, strlen(text)));
    free(path);
}

static void test_empty_run(void **state)
{
    (void)state;
    char *dir = test_dir_make(), *html = page_of(dir);
    static const char *const parts[] = {"NO VERDICT",
                                        "triage.h5 is not in the run directory",
                                        "weights.h5 is not in the run directory",
                                        "evaluate.h5 is not in the run directory",
                                        "steps.tsv is not in the run directory",
                                        "timers.tsv is not in the run directory",
                                        "generations-before.jsonl is not in",
                                        "used.yaml is not in",
                                        "store.h5 is not in"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) assert_in(html, parts[i]);
    free(html);
    test_dir_remove(dir);
    check_fails(ra_report_write("/no/such/run", 5), RA_ERR_IO, "/no/such/run", NULL);
}

static void test_damaged_run(void **state)
{
    (void)state;
    char *dir = test_dir_make();
    put(dir, "triage.h5", "this is no HDF5 file");
    put(dir, "weights.h5", "");
    put(dir, "verdict.json", "{\"valid\": \"yes\"}");
    put(dir, "steps.tsv", "step\tloss\n");
    put(dir, "timers.tsv", "");
    put(dir, "used.yaml", "a: [1, 2\n b: <x>");
    put(dir, "generations-before.jsonl",
        "{\"id\": 3, \"prompt\": \"<p>\", \"response\": \"<r>\", \"verdict\": 0}\n{\"id\": 4}\n");
    char *html = page_of(dir);
    static const char *const parts[] = {"triage.h5 cannot be used",
                                        "weights.h5 cannot be used",
                                        "&quot;valid&quot; is not true or false",
                                        "holds no step yet",
                                        "timers.tsv: not a table",
                                        "b: &lt;x&gt;",
                                        "generations-before.jsonl, line 2",
                                        "&lt;p&gt;",
                                        "&lt;r&gt;"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) assert_in(html, parts[i]);
    free(html);
    test_dir_remove(dir);
}

static void test_valid_run(void **state)
{
    (void)state;
    char *dir = test_dir_make();
    put(dir, "verdict.json", "{\"valid\": true, \"reasons\": []}");
    put(dir, "steps.tsv", "step\tloss\tkl\n1\t0.7\tnan\n2\t0.5\tnan\n");
    char *html = page_of(dir);
    assert_in(html, "<strong>VALID</strong>All stages");
    assert_in(html, "Loss of a step");
    assert_null(strstr(html, "KL to the reference")); /* no number in that column */
    free(html);
    test_dir_remove(dir);
}

int main(void)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ticks),     cmocka_unit_test(test_escaping),    cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_wilson),    cmocka_unit_test(test_correlation), cmocka_unit_test(test_table),
        cmocka_unit_test(test_svg),       cmocka_unit_test(test_bar_lengths), cmocka_unit_test(test_gaps),
        cmocka_unit_test(test_bins),      cmocka_unit_test(test_empty_run),   cmocka_unit_test(test_damaged_run),
        cmocka_unit_test(test_valid_run),
    };
    return cmocka_run_group_tests_name("report", tests, NULL, NULL);
}
