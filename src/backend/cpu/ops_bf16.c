/* The cpu backend with activations in BF16. */
#include "cpu.h"
#include "math.h"

#include <realign/mem.h>

#include <omp.h>

#define A ra_bf16
#define LOAD cpu_load_bf16
#define STORE cpu_store_bf16
#define LOAD32 cpu_load32_bf16
#define STORE32 cpu_store32_bf16
#define TABLE ra_cpu_ops_bf16
#include "a_rows.h"
#include "a_attention.h"
#include "a_table.h"
