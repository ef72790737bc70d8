/* The cpu backend with activations in F32. */
#include "cpu.h"
#include "math.h"

#include <realign/mem.h>

#include <omp.h>

#define A float
#define LOAD cpu_load_f32
#define STORE cpu_store_f32
#define LOAD32 cpu_load32_f32
#define STORE32 cpu_store32_f32
#define TABLE ra_cpu_ops_f32
#include "a_rows.h"
#include "a_attention.h"
#include "a_table.h"
