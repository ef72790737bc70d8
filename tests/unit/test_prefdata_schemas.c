/* Preference data in the schemas people publish: ShareGPT, message lists, Alpaca, StackExchange, KTO, dialogues with a system turn; columns under other names;
 * keys that fit two schemas or none. */
#include "support/support.h"

#include <realign/mem.h>
#include <realign/prefdata.h>
#include <support/textfile.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A row as "role: content | role: content => chosen / rejected", or the reason why it cannot be used. */
static void describe(const ra_row *row, ra_row_status status, ra_buf *out)
{
    if (status != RA_ROW_OK) ra_buf_addf(out, "%s: %s", ra_row_problem_name(row->problem), row->why);
    for (int i = 0; i < row->n_prompt && status == RA_ROW_OK; i++)
        ra_buf_addf(out, "%s%s: %s", i ? " | " : "", row->prompt[i].role, row->prompt[i].content);
    if (status == RA_ROW_OK) ra_buf_addf(out, " => %s / %s", row->chosen, row->rejected);
}

/* Opens `text` with `columns` ("a=b,c=d"), checks the schema and what every row says (NULL-terminated). */
static void check_rows_of(const char *file, int line, const char *columns, const char *schema, const char *text, ...)
{
    char *path = textfile_write_text("rows.jsonl", text);
    ra_settings *s = ra_settings_new();
    ra_prefdata *data = NULL;
    CHECK_OK(ra_set_put(s, "data.path", path));
    CHECK_OK(ra_set_put(s, "data.columns", columns));
    check_ok_at(ra_prefdata_open_settings(s, &data), "opening", file, line);
    if (strcmp(ra_prefdata_schema(data), schema) != 0) print_error("schema %s\n", ra_prefdata_schema(data)), _fail(file, line);
    va_list wanted;
    va_start(wanted, text);
    for (;;) {
        const ra_row *row;
        ra_row_status status;
        bool more;
        check_ok_at(ra_prefdata_next(data, 0, 1, 1, &row, &status, &more), "reading", file, line);
        const char *want = va_arg(wanted, const char *);
        ra_buf got = {0};
        if (more) describe(row, status, &got);
        if (!want && !more) break;
        if (!want || !more || !strstr(got.data, want)) {
            print_error("got:  %s\nwant: %s\n", more ? got.data : "(no more rows)", want ? want : "(no more rows)");
            _fail(file, line);
        }
        ra_buf_free(&got);
    }
    va_end(wanted);
    ra_prefdata_close(data);
    ra_settings_free(s);
    free(path);
}
#define check_rows(...) check_rows_of(__FILE__, __LINE__, "", __VA_ARGS__, NULL)
#define check_renamed(...) check_rows_of(__FILE__, __LINE__, __VA_ARGS__, NULL)

static void refused(const char *columns, const char *text, ra_err code, const char *words, const char *more)
{
    char *path = textfile_write_text("bad.jsonl", text);
    ra_settings *s = ra_settings_new();
    ra_prefdata *data = NULL;
    CHECK_OK(ra_set_put(s, "data.path", path));
    CHECK_OK(ra_set_put(s, "data.columns", columns));
    check_fails(ra_prefdata_open_settings(s, &data), code, words, more, NULL);
    assert_null(data);
    ra_settings_free(s);
    free(path);
}

#define G(from, value) "{\"from\": \"" from "\", \"value\": \"" value "\"}"
#define M(role, content) "{\"role\": \"" role "\", \"content\": \"" content "\"}"
#define PAIR "\"chosen\": \"a\", \"rejected\": \"b\""

static void test_sharegpt(void **state)
{
    (void)state;
    check_rows(
        "sharegpt",
        "{\"conversations\": [" G("human", "q") "], \"chosen\": " G("gpt", "a") ", \"rejected\": " G(
            "gpt",
            "b") "}\n"
                 "{\"conversations\": [" G("system", "s") "," G("human", "q") "," G("gpt", "r") "," G(
                     "human",
                     "t") "], \"chosen\": \"a\", "
                          "\"rejected\": [" G(
                              "gpt",
                              "b") "]}\n"
                                   "{\"conversations\": [" G(
                                       "human",
                                       "q") "], \"system\": \"be kind\", " PAIR "}\n"
                                            "{\"conversations\": [" G("human", "q") "," G(
                                                "gpt",
                                                "r") "], " PAIR "}\n"
                                                     "{\"conversations\": [" G("human", "q") "," G(
                                                         "function_call",
                                                         "f") "], " PAIR "}\n"
                                                              "{\"conversations\": [" G("human", "q") "," G(
                                                                  "nobody",
                                                                  "f") "], " PAIR "}\n"
                                                                       "{\"conversations\": [" G(
                                                                           "human",
                                                                           "q") "], \"chosen\": " G("human",
                                                                                                    "a") ", \"rejected\": "
                                                                                                         "\"b\"}\n"
                                                                                                         "{\"conversations\": "
                                                                                                         "\"q\", " PAIR "}\n"
                                                                                                         "{\"conversations\": "
                                                                                                         "[{\"from\": "
                                                                                                         "\"human\"}], " PAIR
                                                                                                         "}\n",
        "user: q => a / b", "system: s | user: q | assistant: r | user: t => a / b", "system: be kind | user: q => a / b",
        "unusable dialogue: the prompt does not end with a user turn",
        "unusable dialogue: `conversations[1]` has the role 'function_call'",
        "malformed: `conversations[1]` has the role 'nobody'; expected system, user (human) or assistant (gpt)",
        "unusable dialogue: `chosen` does not end with an assistant message",
        "malformed: `conversations` is a string; expected a list of messages",
        "malformed: `conversations[0]` is an object without them; expected {\"role\"");
    check_rows("sharegpt", "{\"messages\": [" M("user", "q") "], " PAIR "}\n", "user: q => a / b");
}

#define USER(text) M("user", text) ","
#define ANSWER(text) M("assistant", text)
#define LISTS(begin, chosen, rejected, end) "{" begin "\"chosen\": [" chosen "], \"rejected\": [" rejected "]" end "}\n"

static void test_message_lists(void **state)
{
    (void)state;
    static const char parts[] =
        "{\"chosen\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"q\"}, {\"type\": \"text\", "
        "\"text\": \"r\"}]}, " ANSWER("a") "], \"rejected\": [" USER("q\\nr") ANSWER("b") "]}\n";
    static const char image[] =
        "{\"chosen\": [{\"role\": \"user\", \"content\": [{\"type\": \"image\"}]}, " ANSWER("a") "], \"rejected\": [" USER("q")
            ANSWER("b") "]}\n";
    static const char ultrafeedback[] =
        LISTS("\"prompt\": \"q\", \"prompt_id\": \"x\", ", USER("q") ANSWER("a"), USER("q") ANSWER("b"),
              ", \"messages\": [" USER("q") ANSWER("a") "], \"score_chosen\": 8.5");
    check_rows("pairs", ultrafeedback, "user: q => a / b");
    check_rows("pairs", LISTS("", M("system", "s") "," USER("q") ANSWER("a"), M("system", "s") "," USER("q") ANSWER("b"), ""),
               "system: s | user: q => a / b");
    check_rows("pairs", LISTS("\"system\": \"s\", ", USER("q") ANSWER("a"), USER("q") ANSWER("b"), ""),
               "system: s | user: q => a / b");
    /* an extra key in a message makes no other dialogue */
    check_rows("pairs",
               LISTS("", USER("q") ANSWER("a"), "{\"role\": \"user\", \"content\": \"q\", \"name\": \"n\"}, " ANSWER("b"), ""),
               "user: q => a / b");
    check_rows("pairs", parts, "user: q\nr => a / b");
    check_rows("pairs", image, "unusable dialogue: `chosen[0]` has a part of type 'image'; only text can be used");
    check_rows("pairs", LISTS("", USER("q") ANSWER("a"), ANSWER("b"), ""), "the dialogues diverge before the last turn");
    check_rows("pairs", LISTS("", USER("q") ANSWER("a"), USER("q") ANSWER("x") "," USER("q") ANSWER("b"), ""),
               "the dialogues diverge before the last turn");
}

static void test_questions(void **state)
{
    (void)state;
    check_rows(
        "stackexchange",
        "{\"question\": \"q\", \"response_j\": \"a\", \"response_k\": \"b\"}\n{\"question\": \"q\", \"response_j\": \"a\"}\n"
        "{\"question\": \"q\", \"response_j\": \"a\", \"response_k\": \" \"}\n",
        "user: q => a / b", "malformed: `response_k` is missing", "empty: the rejected response is empty");
    check_rows("pairs", "{\"system\": \"s\", \"question\": \"q\", " PAIR "}\n{\"system\": \"\", \"question\": \"q\", " PAIR "}\n",
               "system: s | user: q => a / b", "user: q => a / b");
    check_rows("pairs",
               "{\"instruction\": \"do\", \"input\": \"this\", " PAIR "}\n{\"instruction\": \"do\", \"input\": \"\", " PAIR "}\n"
               "{\"instruction\": \"do\", \"input\": \"it\", \"system\": \"s\", \"history\": [[\"x\", \"y\"]], " PAIR "}\n"
               "{\"instruction\": \"do\", \"history\": [[\"x\"]], " PAIR "}\n",
               "user: do\nthis => a / b", "user: do => a / b", "system: s | user: x | assistant: y | user: do\nit => a / b",
               "malformed: `history` is a list; expected a list of [question, answer]");
    check_rows("pairs", "{\"instruction\": [], \"input\": \"it\", " PAIR "}\n",
               "dialogue: the prompt does not end with a user turn");
    /* whole dialogues as texts beside their prompt */
    check_rows("pairs",
               "{\"prompt\": \"q\", \"chosen\": \"\\n\\nHuman: q\\n\\nAssistant: a\", \"rejected\": \"\\n\\nHuman: "
               "q\\n\\nAssistant: b\"}\n",
               "user: q => a / b");
}

/* A single labelled response is no pair, but it is read: it stands on the side that its label says. */
static void test_labelled(void **state)
{
    (void)state;
    const char *text = "{\"prompt\": \"q\", \"completion\": \"a\", \"label\": true}\n{\"prompt\": \"q\", \"completion\": \"b\", "
                       "\"label\": false}\n"
                       "{\"prompt\": [" M("user", "q") "], \"completion\": [" M(
                           "assistant", "c") "], \"label\": 0}\n"
                                             "{\"prompt\": \"q\", \"completion\": \" \", \"label\": true}\n{\"prompt\": \"q\", "
                                             "\"completion\": \"a\", \"label\": 2}\n";
    check_rows("labelled", text, "unpaired: a single response labelled good; trace and dpo learn from pairs",
               "unpaired: a single response labelled bad", "unpaired: a single response labelled bad",
               "empty: the chosen response is empty", "malformed: `label` is a number; expected true or false");
    check_rows("labelled", "{\"messages\": [" M("user", "q") "," M("assistant", "a") "], \"label\": false}\n", "labelled bad");
    char *path = textfile_write_text("kto.jsonl", text);
    const char *paths[] = {path};
    ra_prefdata *data;
    CHECK_OK(ra_prefdata_open(paths, 1, "auto", 10, &data));
    const char *chosen[] = {"a", NULL, NULL}, *rejected[] = {NULL, "b", "c"};
    for (int i = 0; i < 3; i++) {
        const ra_row *row;
        ra_row_status status;
        bool more;
        CHECK_OK(ra_prefdata_next(data, 0, 1, 1, &row, &status, &more));
        assert_int_equal(row->problem, RA_PROBLEM_UNPAIRED);
        assert_string_equal(row->prompt_text, "q");
        assert_true(chosen[i] ? row->chosen && strcmp(row->chosen, chosen[i]) == 0 : !row->chosen);
        assert_true(rejected[i] ? row->rejected && strcmp(row->rejected, rejected[i]) == 0 : !row->rejected);
    }
    ra_prefdata_close(data);
    free(path);
}

static void test_dialogues_with_system(void **state)
{
    (void)state;
#define HH(begin) "{\"chosen\": \"" begin "q\\n\\nAssistant: a\", \"rejected\": \"" begin "q\\n\\nAssistant: b\"}\n"
    check_rows("hh", HH("Be kind.\\n\\nHuman: ") HH("\\n\\nSystem: Be kind.\\n\\nHuman: ") HH("Human: ") HH("\\n\\nHuman:"),
               "system: Be kind. | user: q => a / b", "system: Be kind. | user: q => a / b", "user: q => a / b",
               "user: q => a / b");
    check_rows("pairs",
               "{\"prompt\": \"Be kind.\\n\\nHuman: q\\n\\nAssistant:\", " PAIR "}\n{\"prompt\": \"Human: q\", " PAIR "}\n",
               "system: Be kind. | user: q => a / b", "user: Human: q => a / b");
}

static void test_pku_without_flags(void **state)
{
    (void)state;
    check_rows("pku",
               "{\"prompt\": \"q\", \"response_0\": \"b\", \"response_1\": \"a\", \"better_response_id\": 1}\n"
               "{\"prompt\": \"q\", \"response_0\": \"b\", \"response_1\": \"a\"}\n",
               "user: q => a / b",
               "malformed: `safer_response_id` is missing; expected 0 or 1, as there is no is_response_0_safe");
    /* as tables write what a row has not; what is not needed is not read */
    check_rows("pku",
               "{\"prompt\": \"q\", \"response_0\": \"b\", \"response_1\": \"a\", \"is_response_0_safe\": null, "
               "\"is_response_1_safe\": null, "
               "\"safer_response_id\": 1, \"better_response_id\": -1}\n",
               "user: q => a / b");
}

static void test_columns(void **state)
{
    (void)state;
    check_renamed("prompt=ask,chosen=best,rejected=worst", "pairs",
                  "{\"ask\": \"q\", \"best\": \"a\", \"worst\": \"b\", \"prompt\": \"no\"}\n{\"ask\": \"q\", \"best\": \"a\"}\n",
                  "user: q => a / b", "malformed: `worst` is missing");
    check_renamed("label=ok,completion=text", "labelled", "{\"prompt\": \"q\", \"text\": \"a\", \"ok\": true}\n",
                  "labelled good");
    check_renamed("category=topic", "hh", HH("\\n\\nHuman: "), "user: q => a / b");
    refused("query=ask", "{}", RA_ERR_ARG, "data.columns: 'query' is no column that realign reads; it reads prompt, question",
            "category");
    refused("prompt=nothing", "{\"prompt\": \"q\", \"better\": \"a\"}", RA_ERR_FORMAT, "from the keys: prompt, better;",
            "data.columns");
    ra_settings *s = ra_settings_new();
    check_fails(ra_set_put(s, "data.columns", "prompt"), RA_ERR_ARG, "data.columns", "a map {name: value, ...}", NULL);
    char *path = textfile_write_text("columns.yaml", "data: {columns: {prompt: 'ask, me', chosen: best}, path: x}\n");
    CHECK_OK(ra_settings_read_file(s, path));
    const char *const *items;
    assert_int_equal(ra_set_list(s, "data.columns", &items), 2);
    assert_string_equal(items[0], "prompt=ask, me");
    ra_buf yaml = {0}; /* what used.yaml says reads back as the same */
    ra_settings_write_yaml(s, &yaml);
    char *used = textfile_write("used.yaml", yaml.data, yaml.length);
    ra_settings *again = ra_settings_new();
    CHECK_OK(ra_settings_read_file(again, used));
    assert_int_equal(ra_set_list(again, "data.columns", &items), 2);
    assert_string_equal(items[0], "prompt=ask, me");
    ra_settings_free(again);
    ra_settings_free(s);
    ra_buf_free(&yaml);
    free(used);
    free(path);
}

static void test_keys_refused(void **state)
{
    (void)state;
    refused("", "{\"prompt\": \"secret\", " PAIR ", \"response_0\": \"a\", \"response_1\": \"b\"}", RA_ERR_FORMAT,
            "bad.jsonl:1: the keys fit the schemas pairs and pku; say which with data.schema (keys: prompt, chosen, rejected, "
            "response_0",
            "");
    assert_null(strstr(ra_error_message(), "secret"));
    refused("", "\n{\"text\": \"secret\", \"score\": 2}", RA_ERR_FORMAT,
            "bad.jsonl:2: the schema is not recognised from the keys: text, score; known schemas:",
            "sharegpt {conversations, chosen, rejected}");
    refused("", "{\"system\": \"s\", \"input\": \"secret\", " PAIR "}", RA_ERR_FORMAT,
            "the schema is not recognised from the keys: system, input", "known schemas:");
    assert_null(strstr(ra_error_message(), "secret"));
}

static void check_shared(const char *name, const char *schema, int64_t rows, int most_turns)
{
    char *path = test_shared_path(name);
    const char *paths[] = {path};
    ra_prefdata *data;
    int turns = 0;
    CHECK_OK(ra_prefdata_open(paths, 1, "auto", 0, &data));
    for (;;) {
        const ra_row *row;
        ra_row_status status;
        bool more;
        CHECK_OK(ra_prefdata_next(data, 0, 1, 1, &row, &status, &more));
        if (!more) break;
        assert_int_equal(status, RA_ROW_OK);
        if (row->n_prompt > turns) turns = row->n_prompt;
    }
    assert_string_equal(ra_prefdata_schema(data), schema);
    assert_string_equal(ra_prefdata_form(data), "a JSON array");
    assert_int_equal(ra_prefdata_counts(data)->used, rows);
    assert_int_equal(turns, most_turns);
    ra_prefdata_close(data);
    free(path);
}

static void test_shared_sharegpt(void **state)
{
    (void)state;
    check_shared("data/preference/llama-factory/dpo_en_demo.json", "sharegpt", 300, 13);
}

static void test_shared_stackexchange(void **state)
{
    (void)state;
    check_shared("data/preference/torchtune/stack_exchange_paired_tiny.json", "stackexchange", 25, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sharegpt),
        cmocka_unit_test(test_message_lists),
        cmocka_unit_test(test_questions),
        cmocka_unit_test(test_labelled),
        cmocka_unit_test(test_dialogues_with_system),
        cmocka_unit_test(test_pku_without_flags),
        cmocka_unit_test(test_columns),
        cmocka_unit_test(test_keys_refused),
        cmocka_unit_test(test_shared_sharegpt),
        cmocka_unit_test(test_shared_stackexchange),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, textfile_cleanup);
}
