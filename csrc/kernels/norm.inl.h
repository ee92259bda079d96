// Norms of single rows: LayerNorm (https://arxiv.org/abs/1607.06450), in two passes as its accuracy asks for, and
// RMSNorm (https://arxiv.org/abs/1910.07467), which is the same around 0 in place of the mean.
#pragma once

#include "kernels.h"

namespace fastce {
namespace {

// `sum` is the row's sum. Padding of the row must be finite and becomes 0 in the result, which may take the row's
// place.
inline void normalize_row(std::size_t columns, const float* row, float sum, const Norm& norm, float* result) {
  const float count = static_cast<float>(columns);
  const Vec mean = broadcast(norm.kind == NormKind::layer ? sum / count : 0.0f);
  Vec squares = broadcast(0.0f);
  std::size_t j = 0;
  for (; j + kLanes <= columns; j += kLanes) {
    const Vec centered = load(row + j) - mean;
    squares = multiply_add(centered, centered, squares);
  }
  if (j < columns) {
    const Vec centered = keep_first(load(row + j) - mean, columns - j, broadcast(0.0f));
    squares = multiply_add(centered, centered, squares);
  }
  const Vec inverse = broadcast(1.0f / __builtin_sqrtf(reduce_sum(squares) / count + norm.eps));
  for (j = 0; j < columns; j += kLanes) {
    store(result + j, multiply_add((load(row + j) - mean) * inverse, load(norm.weight + j), load(norm.bias + j)));
  }
}

// stream = stream + x; returns the sum of all. The padding of both must be 0.
inline float add_to_stream(std::size_t columns, const float* x, float* stream) {
  Vec sums = broadcast(0.0f);
  for (std::size_t j = 0; j < columns; j += kLanes) {
    const Vec sum = load(x + j) + load(stream + j);
    sums = sums + sum;
    store(stream + j, sum);
  }
  return reduce_sum(sums);
}

void normalize(const NormalizeCall& call) {
  for (std::size_t row = 0; row < call.rows; ++row) {
    const float* input = call.input.data + row * call.input.stride;
    Vec sums = broadcast(0.0f);
    std::size_t j = 0;
    for (; j + kLanes <= call.columns; j += kLanes) sums = sums + load(input + j);
    if (j < call.columns) sums = sums + load_first(input + j, call.columns - j);
    normalize_row(call.columns, input, reduce_sum(sums), *call.norm, call.output.data + row * call.output.stride);
  }
}

}  // namespace
}  // namespace fastce
