// Norms of single rows: LayerNorm (https://arxiv.org/abs/1607.06450), in two passes as its accuracy asks for, and
// RMSNorm (https://arxiv.org/abs/1910.07467), which is the same around 0 in place of the mean.
#pragma once

#include "kernels.h"

namespace fastce {
namespace {

// What a row is shifted and scaled by before its weights.
struct Statistics {
  Vec mean;
  Vec inverse;
};

// `sum` is the row's sum.
inline Statistics statistics(std::size_t columns, const float* row, float sum, const Norm& norm) {
  const float count = static_cast<float>(columns);
  const Vec mean = broadcast(norm.kind == NormKind::layer ? sum / count : 0.0f);
  Vec squares = broadcast(0.0f);
  std::size_t j = 0;
  for (; j + kLanes <= columns; j += kLanes) {
    const Vec centered = load(row + j) - mean;
    squares = multiply_add(centered, centered, squares);
  }
  if (j < columns) {
    const Vec centered = keep_first(load_first(row + j, columns - j) - mean, columns - j, broadcast(0.0f));
    squares = multiply_add(centered, centered, squares);
  }
  return {mean, broadcast(1.0f / __builtin_sqrtf(reduce_sum(squares) / count + norm.eps))};
}

inline Vec normalized(Vec x, Statistics row, const Norm& norm, std::size_t j) {
  return multiply_add((x - row.mean) * row.inverse, load(norm.weight + j), load(norm.bias + j));
}

// Padding of the row must be finite and becomes 0 in the result, which may take the row's place.
inline void normalize_row(std::size_t columns, const float* row, float sum, const Norm& norm, float* result) {
  const Statistics of_row = statistics(columns, row, sum, norm);
  for (std::size_t j = 0; j < columns; j += kLanes) store(result + j, normalized(load(row + j), of_row, norm, j));
}

inline float sum_of(std::size_t columns, const float* row) {
  Vec sums = broadcast(0.0f);
  std::size_t j = 0;
  for (; j + kLanes <= columns; j += kLanes) sums = sums + load(row + j);
  if (j < columns) sums = sums + load_first(row + j, columns - j);
  return reduce_sum(sums);
}

// Heads in place; nothing beyond them is touched.
inline void normalize_heads(const HeadNorms& norms, float* row) {
  for (std::size_t head = 0; head < norms.queries + norms.keys; ++head, row += norms.dim) {
    const Norm& norm = head < norms.queries ? *norms.query : *norms.key;
    const Statistics of_head = statistics(norms.dim, row, sum_of(norms.dim, row), norm);
    std::size_t j = 0;
    for (; j + kLanes <= norms.dim; j += kLanes) store(row + j, normalized(load(row + j), of_head, norm, j));
    if (j < norms.dim) {
      const std::size_t count = norms.dim - j;
      store_first(row + j, normalized(load_first(row + j, count), of_head, norm, j), count);
    }
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
    normalize_row(call.columns, input, sum_of(call.columns, input), *call.norm,
                  call.output.data + row * call.output.stride);
  }
}

}  // namespace
}  // namespace fastce
