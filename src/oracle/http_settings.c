#include <realign/oracle_http.h>
#include <realign/settings.h>

void ra_http_config_read(const ra_settings *s, int rank, int ranks, ra_http_config *out)
{
    int64_t budget = ra_set_int(s, "oracle.http.budget"), share = budget / ranks + (rank < budget % ranks);
    *out = (ra_http_config){
        .chat = {.name = "oracle.http",
                 .url = ra_set_text(s, "oracle.http.url"),
                 .model = ra_set_text(s, "oracle.http.model"),
                 .key_env = ra_set_text(s, "oracle.http.key_env"),
                 .ca_file = ra_set_text(s, "oracle.http.ca_file"),
                 .extra = ra_set_text(s, "oracle.http.extra"),
                 .plain_http = ra_set_bool(s, "oracle.http.plain_http"),
                 .newer_limit = ra_set_bool(s, "oracle.http.newer_limit"),
                 .own_sampling = ra_set_bool(s, "oracle.http.own_sampling"),
                 .concurrency = (int)ra_set_int(s, "oracle.http.concurrency"),
                 .rate = ra_set_real(s, "oracle.http.rate") / ranks,
                 .timeout_s = ra_set_real(s, "oracle.http.timeout"),
                 .retries = (int)ra_set_int(s, "oracle.http.retries"),
                 .backoff_s = ra_set_real(s, "oracle.http.backoff"),
                 .wait_limit_s = ra_set_real(s, "oracle.http.wait_limit"),
                 .budget = budget > 0 && share == 0 ? 1 : share,
                 .answer_limit = ra_set_int(s, "oracle.http.answer_limit"),
                 .seed = (uint64_t)ra_set_int(s, "seed") * 1000003u + (uint64_t)rank},
        .max_tokens = (int)ra_set_int(s, "oracle.http.max_tokens"),
        .top_logprobs = (int)ra_set_int(s, "oracle.http.logprobs"),
        .reminders = (int)ra_set_int(s, "oracle.http.reminders"),
        .price_prompt = ra_set_real(s, "oracle.http.price_prompt"),
        .price_answer = ra_set_real(s, "oracle.http.price_answer"),
        .run_rate = ra_set_real(s, "oracle.http.rate"),
        .run_budget = budget,
    };
}
