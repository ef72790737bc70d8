#!/usr/bin/env python3
"""Writes tests/support/quant_vectors.h: two random blocks of every quantised ggml type and the float32 bits that the reference
package gguf (PyPI) makes of them. Needs numpy and gguf; run it again only to add a type."""
import numpy as np
from gguf import GGMLQuantizationType as T, GGML_QUANT_SIZES
from gguf.quants import dequantize

# where the f16 scales sit in a block: random bits there would give NaN and infinity
SCALES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
          "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
rng = np.random.default_rng(20240607)
print("/* Made by tests/support/make_quant_vectors.py with the package gguf: random blocks and their float32 bits. */")
print("#ifndef REALIGN_TESTS_QUANT_VECTORS_H\n#define REALIGN_TESTS_QUANT_VECTORS_H\n#include <stdint.h>\n")
print("static const struct {\n    const char *name;\n    uint32_t ggml_type;\n    int elements, bytes;")
print("    uint8_t block[512];\n    uint32_t bits[512];\n} quant_vectors[] = {")
for name, scales in SCALES.items():
    kind = T[name]
    block, size = GGML_QUANT_SIZES[kind]
    data = rng.integers(0, 256, (2, size), dtype=np.uint8)
    for b in range(2):
        for at in scales:
            data[b, at:at + 2] = np.frombuffer(np.float16(rng.normal() * (1e-6 if b and at == scales[0] else 0.05)).tobytes(), np.uint8)
    values = dequantize(data.reshape(-1), kind).astype(np.float32).view(np.uint32).reshape(-1)
    assert values.size == 2 * block
    print(f'    {{"{name}", {int(kind)}, {2 * block}, {2 * size},')
    print("     {" + ", ".join(str(x) for x in data.reshape(-1)) + "},")
    print("     {" + ", ".join(f"0x{x:08x}" for x in values) + "}},")
print("};\n\n#endif")
