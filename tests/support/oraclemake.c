#include "oraclemake.h"

#include "../../src/stage/oracles.h"

#include <realign/hash.h>
#include <realign/mem.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

ra_err test_oracle_open(const char *kind, const char *policy, ra_oracle **out)
{
    const ra_grid alone = ra_grid_alone();
    ra_settings *s = ra_settings_new();
    ra_err err = ra_set_put(s, "policy", policy);
    if (err == RA_OK) err = ra_set_put(s, "oracle.kind", kind);
    if (err == RA_OK) err = ra_oracle_open_settings(s, &alone, NULL, out);
    ra_settings_free(s);
    return err;
}

int test_costly_verdict(const test_costly *costly, const char *response, float *probability)
{
    char *text = ra_format("%d %s", costly->salt, response);
    *probability = (float)((double)(ra_hash_bytes(text, strlen(text)).low >> 11) * 0x1p-53);
    free(text);
    return *probability >= 0.5f;
}

typedef struct {
    ra_oracle_ops ops;
    test_costly *costly;
} opened;

static ra_err judge(void *state, const ra_oracle_item *items, int n, ra_verdict_sink sink, void *context)
{
    test_costly *c = ((opened *)state)->costly;
    c->calls++;
    for (int k = 0; k < n; k++) {
        int i = n - 1 - k; /* any order is allowed */
        if (c->before) c->before();
        if (c->fail_after > 0 && c->asked == c->fail_after) return ra_fail(RA_ERR_IO, "the far end went away");
        c->asked++;
        ra_verdict v = {.compliant = -1, .rule = -1, .probability = 0.5f};
        if (!c->mute || !strstr(items[i].response, c->mute)) {
            v.compliant = (int8_t)test_costly_verdict(c, items[i].response, &v.probability);
            v.margin = logf(v.probability / (1.0f - v.probability));
        }
        sink(context, i, &v);
    }
    return RA_OK;
}

static const char *problem(const void *state)
{
    return ((const opened *)state)->costly->mute ? "the answer was neither yes nor no" : "";
}

ra_oracle_member test_costly_open(test_costly *costly, const char *name)
{
    opened *o = ra_calloc(1, sizeof *o);
    o->costly = costly;
    o->ops = (ra_oracle_ops){.name = name,
                             .judges_text = true,
                             .costly = true,
                             .batch = costly->batch ? costly->batch : 64,
                             .judge = judge,
                             .problem = problem,
                             .close = ra_free};
    return (ra_oracle_member){.ops = &o->ops, .state = o, .identity = ra_format("salt %d", costly->salt), .threshold = 0.5};
}

ra_err test_oracle_of(const char *policy, const ra_oracle_member *member, int n, ra_combine how, const char *cache,
                      ra_oracle **out)
{
    ra_policy *read = NULL;
    ra_err err = ra_policy_read(policy, &read);
    return err == RA_OK ? ra_oracle_new(read, member, n, how, cache, out) : err;
}
