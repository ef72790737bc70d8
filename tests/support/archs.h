/* Shapes of published models, for tests of what depends on shapes alone. */
#ifndef REALIGN_TESTS_ARCHS_H
#define REALIGN_TESTS_ARCHS_H
#include <realign/model.h>

typedef struct {
    const char *name, *config; /* config.json's text */
    int64_t parameters;        /* as published */
} test_arch;

enum { TEST_LLAMA31_8B, TEST_QWEN25_7B, TEST_GEMMA2_9B, TEST_ARCHS };
extern const test_arch test_archs[TEST_ARCHS];
/* Parsed; free with ra_arch_free. */
ra_arch test_arch_parse(int which);

#endif
