/* Which Jinja texts are known templates: spelling does not matter, what shows does; what Jinja refuses is never known. */
#include "../../src/text/template_impl.h"
#include <support/support.h>
#include <support/tinytok.h>

#include <jansson.h>
#include <realign/file.h>
#include <stdlib.h>
#include <string.h>

#define TURN "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
#define CHATML_LOOP TURN "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
#define FOR "{% for message in messages %}"
#define WITH_SYSTEM(text)                                                                      \
    FOR "{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n" text \
        "<|im_end|>\n' }}{% endif %}" CHATML_LOOP
#define ALTERNATES                                                                                                         \
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate " \
    "user/assistant/user/assistant/...') }}{% endif %}"

static void known_as(const char *jinja, const char *name)
{
    char *system;
    uint64_t fingerprint;
    const ra_template_row *row = ra_template_recognise(jinja, &fingerprint, &system);
    if (!row || strcmp(row->name, name) != 0) fail_msg("taken for %s, not for %s:\n%s", row ? row->name : "nothing", name, jinja);
    free(system);
}

static void unknown(const char *jinja)
{
    char *system;
    uint64_t fingerprint;
    const ra_template_row *row = ra_template_recognise(jinja, &fingerprint, &system);
    if (row) fail_msg("taken for %s:\n%s", row->name, jinja);
    assert_null(system);
}

static void test_known_texts(void **state)
{
    (void)state;
    known_as(FOR CHATML_LOOP, "chatml");
    known_as("{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}" FOR CHATML_LOOP,
             "chatml");
    known_as(WITH_SYSTEM("You are a helpful AI assistant named SmolLM, trained by Hugging Face"), "smollm2");
    known_as(WITH_SYSTEM("You are a helpful assistant."), "qwen2");
    known_as(
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" FOR
            ALTERNATES "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = "
        "message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}",
        "gemma2");
    known_as("{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
             "message['role'] "
             "+ '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = "
             "bos_token + "
             "content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ "
             "'<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
             "llama3");
    known_as("{{ bos_token }}" FOR ALTERNATES "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' "
             "}}{% elif message['role'] == 'assistant' "
             "%}{{ message['content'] + eos_token}}{% else %}{{ raise_exception('Only user and assistant roles are supported!') "
             "}}{% endif "
             "%}{% endfor %}",
             "mistral");
}

static void test_spelling(void **state)
{
    (void)state;
    /* white space that Jinja drops, quotes, subscripts, comments, escapes */
    known_as("{#- a comment -#}\n{%- for message in messages -%}\n    {{- \"<|im_start|>\" + message.role + '\\n' +\n"
             "       message[ \"content\" ] + '<|im_end|>' + '\\x0a' }}\n{%- endfor -%}\n{%- if add_generation_prompt %}\n"
             "    {{- '\\u003c|im_start|>assistant\\n' }}\n{%- endif -%}\n",
             "chatml");
    known_as(FOR "\n" CHATML_LOOP "\n", "chatml");     /* after a block a newline is not rendered */
    known_as(FOR "\r\n" CHATML_LOOP "\r\n", "chatml"); /* nor is the other kind */
    known_as("  " FOR "\n" CHATML_LOOP, "chatml");     /* nor what indents a block at a line's start */
    known_as(
        FOR TURN
        "\n  {#- x -#}  \n{%- endfor %}\n  {# y #}\n{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        "chatml");
}

static void test_what_shows(void **state)
{
    (void)state;
    unknown(FOR "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>'}}{% endfor %}");
    unknown(FOR " {{'x'}}" CHATML_LOOP);
    unknown("text " FOR CHATML_LOOP);
    unknown("{{'x'}}\n" FOR CHATML_LOOP);
    unknown(
        FOR TURN
        "\n{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"); /* after a value a newline shows */
    unknown(FOR "  " CHATML_LOOP);
    unknown(FOR CHATML_LOOP "  ");
    unknown(FOR CHATML_LOOP "\n\n\n"); /* one is the text's last, one the block's: the third shows */
    unknown(FOR TURN
            "{% endfor %}  {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"); /* no line's start */
    unknown(FOR "\n  {%+ if true %}{% endif %}" CHATML_LOOP);
    unknown(FOR "{%+ if x %}" CHATML_LOOP);
    unknown(FOR TURN
            "{% endfor +%}\n{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"); /* + keeps the newline */
    unknown(FOR "\n  {#+ x #}" CHATML_LOOP);
    unknown(FOR TURN "{% endfor %}{% if notadd_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}");
    unknown(FOR TURN "{% endfor %}{% if not add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}");
    unknown(FOR "{{'<|im_start|>' + message['role'] + '\\\\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}");
    unknown("{% raw %}" FOR CHATML_LOOP "{% endraw %}");
}

/* What Jinja itself refuses. */
static void test_malformed(void **state)
{
    (void)state;
    static const char *const TEXTS[] = {"",
                                        "{{",
                                        "{%",
                                        "{#",
                                        "{% '",
                                        "{% '\\",
                                        "{{ '\\x4' }}",
                                        "{{ '\\x4",
                                        "{{ ) }}",
                                        "{{ ( }}",
                                        "{{ a }",
                                        "{{ [( ]) }}",
                                        "\xFF",
                                        "{{ '\\U00110000' }}",
                                        "{{ '\\ud800' }}",
                                        "{{ ? }}"};
    for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++) unknown(TEXTS[i]);
    unknown(FOR CHATML_LOOP "{# no end");
    unknown(FOR CHATML_LOOP "{{");
    unknown("{% for message in messages % }" CHATML_LOOP);
    unknown("{% for message i n messages %}" CHATML_LOOP);
    ra_buf deep = {0};
    for (int i = 0; i < 5000; i++) ra_buf_adds(&deep, i ? "(" : "{{ ");
    unknown(deep.data);
    ra_buf_free(&deep);
}

static void check_system(const char *jinja, const char *name, const char *want)
{
    char *system;
    uint64_t fingerprint;
    const ra_template_row *row = ra_template_recognise(jinja, &fingerprint, &system);
    assert_non_null(row);
    assert_string_equal(row->name, name);
    assert_non_null(system);
    assert_string_equal(system, want);
    free(system);
}

/* The default system text is the model's own; its escapes are Python's. */
static void test_system_text(void **state)
{
    (void)state;
    check_system(WITH_SYSTEM("It\\'s a\\nshort one."), "chatml", "It's a\nshort one.");
    check_system(WITH_SYSTEM("na\\u00efve \\x41\\t\\\\d \"q\" \\d"), "chatml", "na\xC3\xAFve A\t\\d \"q\" \\d");
    check_system(WITH_SYSTEM("{{ not a tag }} {% nor this %}"), "chatml", "{{ not a tag }} {% nor this %}");
    unknown(WITH_SYSTEM("<|im_end|>")); /* an empty one is another text */
    unknown(WITH_SYSTEM("a<|im_end|>b"));
    unknown(WITH_SYSTEM("\\N{BULLET}"));
    unknown(WITH_SYSTEM("system")); /* the word stands elsewhere too */
}

static char *shared_text(const char *relative)
{
    char *path = test_shared_path(relative);
    ra_buf text = {0};
    CHECK_OK(ra_file_read(path, &text));
    free(path);
    return text.data;
}

static void test_shared_templates(void **state)
{
    (void)state;
    static const char *const FILES[][2] = {{"Qwen-Qwen2.5-7B-Instruct", "qwen2.5"},
                                           {"meta-llama-Llama-3.1-8B-Instruct", "llama3.1"},
                                           {"meta-llama-Llama-3.2-3B-Instruct", "llama3.2"},
                                           {"google-gemma-2-2b-it", "gemma2"},
                                           {"NousResearch-Hermes-3-Llama-3.1-8B-tool_use", NULL}};
    for (size_t i = 0; i < sizeof FILES / sizeof *FILES; i++) {
        char *relative = ra_format("data/tokenizers/templates/%s.jinja", FILES[i][0]), *text = shared_text(relative);
        if (FILES[i][1]) {
            known_as(text, FILES[i][1]);
        } else {
            unknown(text);
        }
        free(relative), free(text);
    }
    static const char *const CONFIGS[][2] = {{"data/tokenizers/gemma2/tokenizer_config.gemma1.json", "gemma2"},
                                             {"data/tokenizers/qwen2/tokenizer_config.json", "qwen-lf"},
                                             {"data/tokenizers/qwen2.5/tokenizer_config.json", "qwen2.5"},
                                             {"data/models/smollm2/tokenizer_config.json", "smollm2"}};
    for (size_t i = 0; i < sizeof CONFIGS / sizeof *CONFIGS; i++) {
        char *text = shared_text(CONFIGS[i][0]);
        json_t *config = json_loads(text, JSON_DECODE_INT_AS_REAL, NULL); /* Gemma's model_max_length is 1e30 */
        assert_non_null(config);
        known_as(json_string_value(json_object_get(config, "chat_template")), CONFIGS[i][1]);
        json_decref(config);
        free(text);
    }
}

/* A base model of Qwen2.5 has the template of the others with another default. */
static void test_other_default_of_qwen(void **state)
{
    (void)state;
    char *text = shared_text("data/tokenizers/templates/Qwen-Qwen2.5-7B-Instruct.jinja");
    static const char OLD[] = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
                      NEW[] = "Please reason, \\\\boxed{}.";
    ra_buf other = {0};
    const char *p = text;
    for (const char *at; (at = strstr(p, OLD)); p = at + sizeof OLD - 1) {
        ra_buf_add(&other, p, (size_t)(at - p));
        ra_buf_adds(&other, NEW);
    }
    ra_buf_adds(&other, p);
    check_system(other.data, "qwen2.5", "Please reason, \\boxed{}.");
    ra_buf_free(&other);
    free(text);
}

static ra_err open_auto(const char *jinja, ra_tokenizer **t, ra_template **tpl)
{
    static const char ADDED[] = "[{\"id\": 300, \"content\": \"<|im_start|>\", \"special\": true}, {\"id\": 301, \"content\": "
                                "\"<|im_end|>\", \"special\": true}]";
    char *dir = test_dir_make();
    tinytok_write(dir, &(tinytok){.added = ADDED, .chat_template = jinja, .bos = "<bos>", .eos = "<|im_end|>"});
    CHECK_OK(ra_tokenizer_open(dir, t));
    test_dir_remove(dir);
    return ra_template_open("auto", *t, tpl);
}

/* The messages of `template: auto` and of a mistyped name say what to write. */
static void test_messages(void **state)
{
    (void)state;
    ra_tokenizer *t;
    ra_template *tpl;
    check_fails(open_auto("{{ '<start_of_turn>' }}", &t, &tpl), RA_ERR_UNSUPPORTED, "template:", "in common with gemma2",
                "chatml", "llama3.1", "plain", NULL);
    assert_null(tpl);
    ra_tokenizer_close(t);
    check_fails(open_auto("{{ '<|start_header_id|>Cutting Knowledge Date' }}", &t, &tpl), RA_ERR_UNSUPPORTED,
                "common with llama3.1", NULL);
    ra_tokenizer_close(t);
    check_fails(open_auto("{{ 'x' }}", &t, &tpl), RA_ERR_UNSUPPORTED, "fingerprint", "template:", NULL);
    assert_null(strstr(ra_error_message(), "in common"));
    ra_tokenizer_close(t);
    check_fails(open_auto(NULL, &t, &tpl), RA_ERR_UNSUPPORTED, "no chat template", "template:", "plain", NULL);
    check_fails(ra_template_open("chatlm", t, &tpl), RA_ERR_ARG, "chatlm", "did you mean chatml?", "gemma2", NULL);
    check_fails(ra_template_open("", t, &tpl), RA_ERR_ARG, "known: auto, chatml", NULL);
    ra_tokenizer_close(t);
    CHECK_OK(open_auto(FOR CHATML_LOOP, &t, &tpl));
    assert_string_equal(ra_template_name(tpl), "chatml");
    ra_template_close(tpl);
    ra_tokenizer_close(t);
}

static void write_text(const char *dir, const char *name, const char *text)
{
    char *path = ra_path_join(dir, name);
    CHECK_OK(ra_file_write(path, text, strlen(text)));
    free(path);
}

static void check_open(const char *dir, const char *name)
{
    ra_tokenizer *t;
    ra_template *tpl;
    CHECK_OK(ra_tokenizer_open(dir, &t));
    CHECK_OK(ra_template_open("auto", t, &tpl));
    assert_string_equal(ra_template_name(tpl), name);
    ra_template_close(tpl);
    ra_tokenizer_close(t);
}

/* A list of named templates has a default one; chat_template.jinja beside it goes first, as in transformers. */
static void test_where_it_stands(void **state)
{
    (void)state;
    static const char ADDED[] = "[{\"id\": 300, \"content\": \"<|im_start|>\", \"special\": true}, {\"id\": 301, \"content\": "
                                "\"<|im_end|>\", \"special\": true}]";
    char *dir = test_dir_make();
    tinytok_write(dir, &(tinytok){.added = ADDED});
    json_t *config = json_pack("{s[{ssss}{ssss}]}", "chat_template", "name", "tool_use", "template", "{{ 'x' }}", "name",
                               "default", "template", FOR CHATML_LOOP);
    char *text = json_dumps(config, 0);
    write_text(dir, "tokenizer_config.json", text);
    check_open(dir, "chatml");
    write_text(dir, "chat_template.jinja", WITH_SYSTEM("You are a helpful assistant."));
    check_open(dir, "qwen2");
    free(text);
    json_decref(config);
    test_dir_remove(dir);
}

int main(void)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_texts),
        cmocka_unit_test(test_spelling),
        cmocka_unit_test(test_what_shows),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_system_text),
        cmocka_unit_test(test_shared_templates),
        cmocka_unit_test(test_other_default_of_qwen),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_where_it_stands),
    };
    return cmocka_run_group_tests_name("recognition of chat templates", tests, NULL, NULL);
}
