#include "archs.h"

#include "support.h"

const test_arch test_archs[TEST_ARCHS] = {
    [TEST_LLAMA31_8B] =
        {"Llama-3.1-8B",
         "{\"model_type\": \"llama\", \"hidden_size\": 4096, \"intermediate_size\": 14336, \"num_hidden_layers\": 32, "
         "\"num_attention_heads\": 32, \"num_key_value_heads\": 8, \"vocab_size\": 128256, "
         "\"max_position_embeddings\": 131072, \"rms_norm_eps\": 1e-5, \"rope_theta\": 500000.0, "
         "\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1.0, "
         "\"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 8192}, \"tie_word_embeddings\": false}",
         8030261248},
    [TEST_QWEN25_7B] =
        {"Qwen2.5-7B",
         "{\"model_type\": \"qwen2\", \"hidden_size\": 3584, \"intermediate_size\": 18944, \"num_hidden_layers\": 28, "
         "\"num_attention_heads\": 28, \"num_key_value_heads\": 4, \"vocab_size\": 152064, "
         "\"max_position_embeddings\": 131072, \"rms_norm_eps\": 1e-6, \"rope_theta\": 1000000.0, "
         "\"tie_word_embeddings\": false}",
         7615616512},
    [TEST_GEMMA2_9B] =
        {"Gemma-2-9B",
         "{\"model_type\": \"gemma2\", \"hidden_size\": 3584, \"intermediate_size\": 14336, \"num_hidden_layers\": 42, "
         "\"num_attention_heads\": 16, \"num_key_value_heads\": 8, \"head_dim\": 256, \"vocab_size\": 256000, "
         "\"max_position_embeddings\": 8192, \"rms_norm_eps\": 1e-6, \"rope_theta\": 10000.0, "
         "\"sliding_window\": 4096, \"query_pre_attn_scalar\": 256, \"attn_logit_softcapping\": 50.0, "
         "\"final_logit_softcapping\": 30.0, \"hidden_activation\": \"gelu_pytorch_tanh\"}",
         9241705984},
};

ra_arch test_arch_parse(int which)
{
    ra_arch arch;
    check_ok(ra_arch_parse(test_archs[which].config, test_archs[which].name, &arch), test_archs[which].name);
    return arch;
}
