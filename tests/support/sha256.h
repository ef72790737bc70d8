/* SHA-256 (FIPS 180-4), for checksums that shared reference data state. */
#ifndef REALIGN_TESTS_SHA256_H
#define REALIGN_TESTS_SHA256_H
#include <stddef.h>

/* 64 hexadecimal digits and a NUL. */
void sha256_text(const void *bytes, size_t n, char text[65]);

#endif
