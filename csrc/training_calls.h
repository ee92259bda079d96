// What the kernels of training are called with: plain data, like kernels.h. All tensors are whole; a kernel gets the
// rows, or the sequence and head, that it is to work on.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastce {

enum class Activation;
enum class NormKind;

// A matrix of fp32 or bf16 values in memory, whose rows need no padding.
template <class Void>
struct ValueRows {
  bool is_bf16;
  Void* data;          // [rows][stride], null for none
  std::size_t stride;  // values
};

using Values = ValueRows<const void>;
using MutableValues = ValueRows<void>;

// Zeroes elements and scales the others up by 1 / (1 - probability). Which ones follows from the seed and the element's
// row and column alone, so that a backward pass finds them again.
struct Dropout {
  std::uint64_t seed;
  float probability;  // 0: none
};

// Rows that a parameter's gradient is summed over at a time; sums of these blocks are added in order, so that a
// gradient depends on no number of threads.
static constexpr std::size_t kGradientRows = 64;

// sum = dropout(x + bias) + residual; output = dropout(norm(sum))
struct NormForwardCall {
  std::size_t columns;
  Values x;               // without data: the sum is the residual
  const float* bias;      // [columns] or null
  const float* residual;  // [rows][columns]
  Dropout input_dropout;  // of x + bias
  NormKind kind;
  const float* weight;     // [columns]
  const float* norm_bias;  // [columns] or null
  float eps;
  Dropout output_dropout;
  float* sum;         // [rows][columns], or null where nobody asks for it
  float* normalized;  // [rows][columns]: (sum - mean) / deviation, for the backward pass
  float* inverse;     // [rows]: 1 / deviation, likewise
  float* output;      // [rows][columns]
};

struct NormBackwardCall {
  std::size_t columns;
  const float* output_gradient;  // [rows][columns]
  const float* sum_gradient;     // [rows][columns] or null
  const float* normalized;
  const float* inverse;
  NormKind kind;
  const float* weight;
  Dropout input_dropout;
  Dropout output_dropout;
  float* residual_gradient;  // [rows][columns]
  MutableValues x_gradient;  // without data: there was no x
};

// Sums of one block of rows.
struct NormGradients {
  float* weight;     // [columns]
  float* norm_bias;  // [columns]
  float* bias;       // [columns], of x; unused where there was none
};

// output = activation(x + bias), times factor + factor_bias where there is a factor. All values are of one type.
struct ActivateForwardCall {
  std::size_t columns;
  Activation activation;
  Values x;
  const float* bias;         // [columns] or null
  Values factor;             // without data: none
  const float* factor_bias;  // [columns] or null
  MutableValues output;
};

struct ActivateBackwardCall {
  std::size_t columns;
  Activation activation;
  Values x;
  const float* bias;
  Values factor;
  const float* factor_bias;
  Values output_gradient;
  MutableValues x_gradient;
  MutableValues factor_gradient;
};

// Sums of one block of rows.
struct ActivateGradients {
  float* bias;         // [columns]
  float* factor_bias;  // [columns]; unused without a factor
};

// What scores get by the distance from a query on to a key: a row for each from -reach to reach; farther keys have the
// last one on their side.
struct RelativeTables {
  std::size_t reach;
  const float* bias;  // [2 * reach + 1][heads], behind the scale; or null
  Values keys;        // [2 * reach + 1][heads * dim], which queries are multiplied with; without data: none
  Values queries;     // the same, which keys are multiplied with
};

// Attention of all heads over sequences that lie end to end, queries and keys counted apart. A query sees the keys from
// `before` positions before its own to `after` behind it.
struct VarlenAttention {
  std::size_t heads;
  std::size_t kv_heads;  // each for heads / kv_heads neighbouring heads of the queries
  std::size_t dim;
  const std::int32_t* cu_queries;  // [sequences + 1]
  const std::int32_t* cu_keys;     // [sequences + 1]
  bool queries_are_last;           // of their sequence's tokens, else the first ones
  std::size_t before;              // or kAnyDistance
  std::size_t after;
  std::size_t pairs;     // elements i and i + pairs of a head turn together; 0: no rotation
  const float* cosines;  // [positions][pairs]
  const float* sines;    // [positions][pairs]
  RelativeTables relative;
  float scale;
  Dropout dropout;  // of the attention weights: row query * heads + head, column key of the sequence
  Values query;     // [queries][heads * dim]
  Values key;       // [keys][kv_heads * dim]
  Values value;
};

struct VarlenForward {
  MutableValues output;  // [queries][heads * dim]
  float* softmax;        // [queries][heads][2]: largest score, and 1 / sum of exp(scale * (score - largest))
};

struct VarlenBackward {
  const float* softmax;
  Values output_gradient;
  MutableValues query_gradient;
  MutableValues key_gradient;
  MutableValues value_gradient;
  float* bias_gradient;     // [2 * reach + 1][heads], added to, as are
  float* keys_gradient;     // [2 * reach + 1][heads * dim] and
  float* queries_gradient;  // [2 * reach + 1][heads * dim]; each null where its table is not there
};

static constexpr bool is_relative(const RelativeTables& tables) {
  return tables.bias != nullptr || tables.keys.data != nullptr || tables.queries.data != nullptr;
}

}  // namespace fastce
