// What the kernels of training are called with: plain data, like kernels.h. All tensors are whole; a kernel gets the
// rows, or the sequence and head, that it is to work on.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastce {

// A matrix of fp32 or bf16 values in memory, whose rows need no padding.
struct Values {
  bool is_bf16;
  void* data;          // [rows][stride], null for none
  std::size_t stride;  // values
};

// Zeroes elements and scales the others up by 1 / (1 - probability). Which ones follows from the seed and the element's
// row and column alone, so that a backward pass finds them again.
struct Dropout {
  std::uint64_t seed;
  float probability;  // 0: none
};

// Rows that a parameter's gradient is summed over at a time; sums of these blocks are added in order, so that a
// gradient depends on no number of threads.
static constexpr std::size_t kGradientRows = 64;

// output = dropout(LayerNorm(dropout(x + bias) + residual))
struct NormForwardCall {
  std::size_t columns;
  Values x;                // without data: the residual alone is normalized
  const float* bias;       // [columns]
  const float* residual;   // [rows][columns]
  Dropout input_dropout;   // of x + bias
  const float* weight;     // [columns]
  const float* norm_bias;  // [columns]
  float eps;
  Dropout output_dropout;
  float* normalized;  // [rows][columns]: (value - mean) / deviation, for the backward pass
  float* inverse;     // [rows]: 1 / deviation, likewise
  float* output;      // [rows][columns]
};

struct NormBackwardCall {
  std::size_t columns;
  const float* output_gradient;  // [rows][columns]
  const float* normalized;
  const float* inverse;
  const float* weight;
  Dropout input_dropout;
  Dropout output_dropout;
  float* residual_gradient;  // [rows][columns]
  Values x_gradient;         // without data: there was no x
};

// Sums of one block of rows.
struct NormGradients {
  float* weight;     // [columns]
  float* norm_bias;  // [columns]
  float* bias;       // [columns]; unused, and perhaps null, where there was no x
};

// output = GELU(x + bias)
struct GeluForwardCall {
  std::size_t columns;
  Values x;
  const float* bias;
  Values output;
};

struct GeluBackwardCall {
  std::size_t columns;
  Values x;
  const float* bias;
  Values output_gradient;
  Values x_gradient;
};

// Attention of all heads over sequences that lie end to end, queries and keys counted apart.
struct VarlenAttention {
  std::size_t num_heads;
  std::size_t dim;
  const std::int32_t* cu_queries;  // [sequences + 1]
  const std::int32_t* cu_keys;     // [sequences + 1]
  Values query;                    // [queries][num_heads * dim]
  Values key;                      // [keys][num_heads * dim]
  Values value;
  float scale;
  Dropout dropout;  // of the attention weights: row query * num_heads + head, column key of the sequence
  Values output;    // [queries][num_heads * dim]
  float* softmax;   // [queries][num_heads][2]: largest score, and 1 / sum of exp(scale * (score - largest))
};

struct VarlenAttentionGradients {
  Values output;
  Values query;
  Values key;
  Values value;
};

}  // namespace fastce
