/* Where the key comes from, where it may go, and that it is never shown. */
#include "chat_impl.h"

#include <realign/settings.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

ra_err ra_chat_secret_load(ra_chat_secret *secret, const ra_chat_config *config)
{
    *secret = (ra_chat_secret){0};
    if (config->key_env && *config->key_env) {
        if (!ra_set_is_variable_name(config->key_env)) { /* whoever puts the key itself there must not find it in a message */
            return ra_fail(
                RA_ERR_ARG,
                "%s.key_env holds something that is not the name of an environment variable (capitals, digits, _; not shown "
                "here); give the name of the variable, and the key in that variable",
                config->name);
        }
        const char *key = getenv(config->key_env);
        if (!key || !*key) {
            return ra_fail(
                RA_ERR_ARG,
                "the environment variable %s, which %s.key_env names, is %s on this rank; set it before the start (mpirun on "
                "several hosts: -x %s)",
                config->key_env, config->name, key ? "empty" : "not set", config->key_env);
        }
        for (const char *c = key; *c; c++) {
            if ((unsigned char)*c <= 0x20 || (unsigned char)*c >= 0x7f) {
                return ra_fail(
                    RA_ERR_ARG,
                    "the key in the environment variable %s holds white space or characters beyond ASCII; a key is one word",
                    config->key_env);
            }
        }
        secret->key = ra_strdup(key);
    }
    struct curl_slist *list = curl_slist_append(NULL, "Content-Type: application/json");
    list = curl_slist_append(list, "Accept: application/json");
    list = curl_slist_append(list, "Expect:"); /* no waiting for a 100 before the body */
    if (secret->key) {
        char *line = ra_format("Authorization: Bearer %s", secret->key);
        list = curl_slist_append(list, line);
        explicit_bzero(line, strlen(line));
        free(line);
    }
    secret->headers = list;
    return RA_OK;
}

void ra_chat_secret_free(ra_chat_secret *secret)
{
    for (struct curl_slist *at = secret->headers; at; at = at->next) explicit_bzero(at->data, strlen(at->data));
    curl_slist_free_all(secret->headers);
    if (secret->key) explicit_bzero(secret->key, strlen(secret->key));
    free(secret->key);
    *secret = (ra_chat_secret){0};
}

void ra_chat_secret_hide(const ra_chat_secret *secret, char *text)
{
    if (!secret->key) return;
    /* what a message quotes may be cut within the key */
    size_t n = strlen(secret->key), least = n < 12 ? n : 12;
    for (char *at = text; *at; at++) {
        size_t same = 0;
        while (same < n && at[same] == secret->key[same]) same++;
        if (same >= least) memset(at, '*', same);
    }
}

/* Names that cannot lead elsewhere; 127.0.0.1.example.org is another host's. */
static bool is_loopback(const char *host)
{
    struct in_addr address;
    if (strcmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0) return true;
    return inet_pton(AF_INET, host, &address) == 1 && ntohl(address.s_addr) >> 24 == 127;
}

static ra_err check_parts(const ra_chat_config *config, CURLU *url, bool *local)
{
    char *scheme = NULL, *host = NULL, *part = NULL;
    bool credentials = curl_url_get(url, CURLUPART_USER, &part, 0) == CURLUE_OK;
    curl_free(part);
    part = NULL;
    bool password = curl_url_get(url, CURLUPART_PASSWORD, &part, 0) == CURLUE_OK;
    curl_free(part);
    part = NULL;
    bool query = curl_url_get(url, CURLUPART_QUERY, &part, 0) == CURLUE_OK;
    curl_free(part);
    part = NULL;
    bool fragment = curl_url_get(url, CURLUPART_FRAGMENT, &part, 0) == CURLUE_OK;
    curl_free(part);
    curl_url_get(url, CURLUPART_SCHEME, &scheme, 0);
    curl_url_get(url, CURLUPART_HOST, &host, 0);
    *local = host && is_loopback(host);
    ra_err err = RA_OK;
    if (credentials || password) {
        err = ra_fail(
            RA_ERR_ARG,
            "%s.url holds a user name or password (not shown here); give the address alone and the key through %s.key_env",
            config->name, config->name);
    } else if (query || fragment) {
        err = ra_fail(RA_ERR_ARG,
                      "%s.url ends in a query or fragment (not shown here); give the address alone, such as https://host/v1",
                      config->name);
    } else if (!scheme || !host || (strcmp(scheme, "https") != 0 && strcmp(scheme, "http") != 0)) {
        err = ra_fail(RA_ERR_ARG, "%s.url: '%.60s' is no https or http address", config->name, config->url);
    } else if (strcmp(scheme, "http") == 0 && !*local && !config->plain_http) {
        err = ra_fail(
            RA_ERR_ARG,
            "%s.url: %.80s would send key and texts in clear to another host; give https, or %s.plain_http: true where the "
            "network is yours alone",
            config->name, config->url, config->name);
    }
    curl_free(scheme);
    curl_free(host);
    return err;
}

ra_err ra_chat_check_url(const ra_chat_config *config, bool *local, ra_buf *address)
{
    if (!config->url || !*config->url)
        return ra_fail(RA_ERR_ARG, "%s.url is not given; give the address before /chat/completions, such as https://host/v1",
                       config->name);
    CURLU *url = curl_url();
    CURLUcode bad = curl_url_set(url, CURLUPART_URL, config->url, 0);
    ra_err err;
    if (bad == CURLUE_OK) {
        err = check_parts(config, url, local);
    } else if (bad == CURLUE_UNSUPPORTED_SCHEME || bad == CURLUE_BAD_SCHEME || !strstr(config->url, "://")) {
        err =
            ra_fail(RA_ERR_ARG, "%s.url does not begin with https:// or http:// (what stands there is not shown)", config->name);
    } else {
        err = ra_fail(RA_ERR_ARG, "%s.url is no address; give one such as https://host/v1 (what stands there is not shown)",
                      config->name);
    }
    curl_url_cleanup(url);
    if (err != RA_OK) return err;
    size_t n = strlen(config->url);
    while (n && config->url[n - 1] == '/') n--;
    static const char path[] = "/chat/completions";
    ra_buf_add(address, config->url, n);
    if (n < sizeof path - 1 || strncmp(config->url + n - (sizeof path - 1), path, sizeof path - 1) != 0)
        ra_buf_adds(address, path);
    return RA_OK;
}
