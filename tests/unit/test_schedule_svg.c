/* Pictures of pipeline schedules: well-formed, a box a slot and in its place, numbers beside the rows and in the caption. */
#include "support/support.h"
#include "support/xml.h"

#include <realign/file.h>
#include <realign/report.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const ra_schedule_costs costs = {.forward = 1.0, .backward = 2.0, .backward_input = 1.0, .backward_weight = 1.0};

static int count_of(const char *text, const char *part)
{
    int n = 0;
    for (; (text = strstr(text, part)); text++) n++;
    return n;
}

static void expect_in(const char *text, const char *part)
{
    if (!strstr(text, part)) fail_msg("'%s' is not in %.2000s", part, text);
}

/* The boxes of the picture: their number, and that together they are as wide as the ranks are busy. */
static void check_boxes(const char *svg, const ra_schedule *s, const ra_schedule_timing *t)
{
    int slots = 0, boxes = 0;
    double busy = 0.0, wide = 0.0, row = 0.0;
    for (int32_t r = 0; r < s->ranks; r++) {
        slots += s->rank[r].slots;
        busy += t->busy[r];
    }
    assert_int_equal(count_of(svg, "<rect class=\"p-slot "), slots);
    const char *idle = strstr(strstr(svg, "rank 0</text>"), "<rect class=\"p-idle\"");
    assert_int_equal(sscanf(strstr(idle, " width="), " width=\"%lf\"", &row), 1);
    for (const char *p = svg; (p = strstr(p, "<rect class=\"p-slot ")); p++, boxes++) {
        double width = 0.0, from = 0.0, to = 0.0;
        assert_int_equal(sscanf(strstr(p, " width="), " width=\"%lf\"", &width), 1);
        const char *times = strstr(p, "</title>");
        while (*times != ',') times--;
        assert_int_equal(sscanf(times, ", %lf to %lf", &from, &to), 2);
        check_close(width + 0.6, (to - from) * row / t->makespan, 0, 0.011, "width of a box");
        wide += width + 0.6;
    }
    assert_int_equal(boxes, slots);
    check_close(wide, busy * row / t->makespan, 1e-3, 0, "width of all boxes");
    for (int32_t r = 0; r < s->ranks; r++) {
        char text[64];
        snprintf(text, sizeof text, ">rank %d</text>", r);
        assert_int_equal(count_of(svg, text), 1);
    }
}

static void every_kind(void **state)
{
    (void)state;
    for (int kind = 0; kind < RA_PIPELINE_KINDS; kind++) {
        for (int32_t v = 1; v <= (kind == RA_PIPELINE_INTERLEAVED || kind == RA_PIPELINE_FORWARD ? 3 : 1); v++) {
            ra_schedule s;
            ra_schedule_timing t;
            ra_buf out = {0};
            CHECK_OK(ra_schedule_make((ra_pipeline_kind)kind, 4, 7, v, &s));
            CHECK_OK(ra_schedule_time(&s, &costs, &t));
            ra_plot_schedule(&out, &(ra_plot){.x_label = "t < 1 & more"}, &s, &t);
            const char *problem = test_xml_problem(out.data);
            if (problem) fail_msg("%s in %.2000s", problem, out.data);
            check_boxes(out.data, &s, &t);
            expect_in(out.data, "t &lt; 1 &amp; more");
            assert_int_equal(count_of(out.data, ">chunk 2</text>"), v == 3);
            assert_int_equal(count_of(out.data, ">backward, gradient of the weights</text>"), kind == RA_PIPELINE_ZERO_BUBBLE);
            assert_int_equal(count_of(out.data, "<style>"), 0);
            ra_buf_free(&out);
            ra_schedule_timing_free(&t);
            ra_schedule_free(&s);
        }
    }
}

/* What the caption says are the numbers of theory: (8 + 3) passes of 1 + 2, 3 of them idle. */
static void caption(void **state)
{
    (void)state;
    ra_schedule s;
    ra_schedule_timing t;
    ra_buf out = {0};
    CHECK_OK(ra_schedule_make(RA_PIPELINE_1F1B, 4, 8, 1, &s));
    CHECK_OK(ra_schedule_time(&s, &costs, &t));
    ra_plot_schedule(&out, &(ra_plot){0}, &s, &t);
    expect_in(out.data, "<title>1f1b: 4 ranks, 8 micro-batches</title>");
    expect_in(out.data, "makespan 33 \u00b7 bubble 27.27 % \u00b7 peak 4 on rank 0");
    assert_int_equal(count_of(out.data, ">27.3 %</text>"), 4);
    expect_in(out.data, "<title>rank 3: backward, micro-batch 7, 25 to 27</title>");
    ra_buf_free(&out);
    ra_schedule_timing_free(&t);
    ra_schedule_free(&s);
}

/* The file stands alone, the largest schedule of the tests too, and every forward box has its number. */
static void file(void **state)
{
    (void)state;
    ra_schedule s;
    ra_buf text = {0};
    char *dir = test_dir_make(), *path = ra_path_join(dir, "schedule.svg"), *nowhere = ra_path_join(dir, "none/schedule.svg");
    CHECK_OK(ra_schedule_make(RA_PIPELINE_1F1B, 16, 64, 1, &s));
    CHECK_OK(ra_report_write_schedule(path, &s, &costs, NULL));
    CHECK_OK(ra_file_read(path, &text));
    assert_null(test_xml_problem(text.data));
    assert_int_equal(count_of(text.data, "<rect class=\"p-slot "), 16 * 64 * 2);
    assert_int_equal(count_of(text.data, "class=\"p-slot-text\""), 16 * 64 * 2);
    expect_in(text.data, "--page:");
    check_fails(ra_report_write_schedule(nowhere, &s, &costs, NULL), RA_ERR_IO, "schedule.svg", NULL);
    s.rank[15].slot[0].receive.chunk = 0; /* its own stage: never there */
    s.rank[15].slot[0].receive.rank = 15;
    check_fails(ra_report_write_schedule(path, &s, &costs, NULL), RA_ERR_DATA, "rank", "waits for ever", NULL);
    ra_schedule_free(&s);
    ra_buf_free(&text);
    free(path);
    free(nowhere);
    test_dir_remove(dir);
}

int main(void)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_kind), cmocka_unit_test(caption), cmocka_unit_test(file)};
    return cmocka_run_group_tests_name("schedule_svg", tests, NULL, NULL);
}
