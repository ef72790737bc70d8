#include <realign/error.h>
#include <realign/gold.h>
#include <realign/mem.h>
#include <realign/rng.h>

#include <string.h>

typedef struct {
    int64_t *id;
    int64_t count;
} id_list;

static id_list list_of(const ra_store *store, const int8_t *action, int8_t wanted)
{
    int64_t n = ra_store_count(store);
    id_list l = {ra_alloc((size_t)n, sizeof *l.id), 0};
    for (int64_t i = 0; i < n; i++) {
        if (action[i] == wanted) l.id[l.count++] = i;
    }
    return l;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t ra_gold_draw(const ra_store *store, const int8_t *action, int64_t size, uint64_t seed, ra_gold_pair *pair)
{
    enum { INVERT, PUNISH, RETAIN };
    id_list invert = list_of(store, action, INVERT), punish = list_of(store, action, PUNISH),
            retain = list_of(store, action, RETAIN);
    ra_rng rng = ra_rng_make(seed, RA_STREAM_GOLD);
    ra_rng_shuffle(&rng, retain.id, (size_t)retain.count);
    ra_rng_shuffle(&rng, invert.id, (size_t)invert.count);
    ra_rng_shuffle(&rng, punish.id, (size_t)punish.count);
    int64_t from_retain = smaller(retain.count, size / 3), from_invert = smaller(invert.count, size / 3), n = 0;
    int64_t donors = retain.count + invert.count, from_punish = smaller(punish.count, size - from_retain - from_invert);
    for (int64_t i = 0; i < from_retain; i++) pair[n++] = (ra_gold_pair){retain.id[i], RA_REJECTED, retain.id[i], RA_CHOSEN};
    for (int64_t i = 0; i < from_invert; i++) pair[n++] = (ra_gold_pair){invert.id[i], RA_CHOSEN, invert.id[i], RA_REJECTED};
    for (int64_t i = 0; i < from_punish; i++) {
        ra_sample s = ra_store_get(store, punish.id[i]);
        if (s.response[RA_CORRECTION].count > 0) {
            pair[n++] = (ra_gold_pair){s.id, RA_CHOSEN, s.id, RA_CORRECTION};
        } else if (donors > 0) {
            int64_t j = (int64_t)ra_rng_below(&rng, (uint64_t)donors);
            bool kept = j < retain.count;
            pair[n++] = (ra_gold_pair){s.id, RA_CHOSEN, kept ? retain.id[j] : invert.id[j - retain.count],
                                       kept ? RA_CHOSEN : RA_REJECTED};
        }
    }
    ra_free(invert.id);
    ra_free(punish.id);
    ra_free(retain.id);
    return n;
}

ra_sample ra_gold_sample(const ra_store *store, const ra_gold_pair *pair, int32_t *joined, int32_t capacity)
{
    ra_sample own = ra_store_get(store, pair->sample), donor = ra_store_get(store, pair->donor), s = own;
    memset(s.response, 0, sizeof s.response);
    s.response[RA_REJECTED] = own.response[pair->worse];
    if (pair->donor == pair->sample) {
        s.response[RA_CHOSEN] = own.response[pair->better];
        return s;
    }
    /* another sample's response behind this prompt: what of the prompt stands in the own branch comes first */
    int32_t skip = own.response[pair->worse].skip, take = donor.response[pair->better].count - donor.response[pair->better].skip;
    const int32_t *tokens = donor.response[pair->better].token + donor.response[pair->better].skip;
    s.response[RA_CHOSEN].count = skip + take;
    s.response[RA_CHOSEN].skip = skip;
    s.response[RA_CHOSEN].token = tokens;
    if (skip > 0) {
        if (skip + take > capacity) ra_die("gold batch: a response of %d tokens does not fit", skip + take);
        memcpy(joined, own.response[pair->worse].token, (size_t)skip * sizeof *joined);
        memcpy(joined + skip, tokens, (size_t)take * sizeof *joined);
        s.response[RA_CHOSEN].token = joined;
    }
    return s;
}
