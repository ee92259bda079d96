// Norms with what surrounds them in a transformer, and their gradients: LayerNorm (https://arxiv.org/abs/1607.06450)
// and RMSNorm (https://arxiv.org/abs/1910.07467), which is the same around 0 in place of the mean.
#pragma once

#include "kernels/values.inl.h"

namespace fastce {
namespace {

// dropout(x + bias) + residual to `sums`; returns the sum of all.
template <class T>
inline float add_residual(const NormForwardCall& call, const T* x, std::size_t row, float* sums) {
  const DropoutRow dropout(call.input_dropout, row);
  const float* residual = call.residual + row * call.columns;
  Vec total = broadcast(0.0f);
  for (std::size_t j = 0; j < call.columns; j += kLanes) {
    const std::size_t count = call.columns - j;
    Vec sum = load_values(residual + j, count);
    if (x != nullptr) {
      sum = sum + dropout.apply(load_values(x + j, count) + load_bias(call.bias, j, count), j);
    }
    if (call.sum != nullptr) store_values(call.sum + row * call.columns + j, sum, count);
    total = total + sum;
    store_values(sums + j, sum, count);
  }
  return reduce_sum(total);
}

template <class T>
inline void norm_forward_row(const NormForwardCall& call, const T* x, std::size_t row) {
  float* normalized = call.normalized + row * call.columns;
  float* output = call.output + row * call.columns;
  const float size = static_cast<float>(call.columns);
  const float sum = add_residual(call, x, row, normalized);
  const Vec mean = broadcast(call.kind == NormKind::layer ? sum / size : 0.0f);
  Vec squares = broadcast(0.0f);
  for (std::size_t j = 0; j < call.columns; j += kLanes) {
    const std::size_t count = call.columns - j;
    Vec centered = load_values(normalized + j, count) - mean;
    if (count < kLanes) centered = keep_first(centered, count, broadcast(0.0f));
    squares = multiply_add(centered, centered, squares);
  }
  const float inverse = 1.0f / __builtin_sqrtf(reduce_sum(squares) / size + call.eps);
  call.inverse[row] = inverse;
  const DropoutRow dropout(call.output_dropout, row);
  for (std::size_t j = 0; j < call.columns; j += kLanes) {
    const std::size_t count = call.columns - j;
    const Vec value = (load_values(normalized + j, count) - mean) * broadcast(inverse);
    store_values(normalized + j, value, count);
    const Vec result = multiply_add(value, load_values(call.weight + j, count), load_bias(call.norm_bias, j, count));
    store_values(output + j, dropout.apply(result, j), count);
  }
}

void norm_forward(const NormForwardCall& call, std::size_t begin, std::size_t end) {
  with_type(call.x, [&](const auto* x) {
    for (std::size_t row = begin; row < end; ++row) {
      norm_forward_row(call, x == nullptr ? nullptr : x + row * call.x.stride, row);
    }
  });
}

// With g = weight * output gradient and n = normalized: residual gradient = (g - mean(g) - n mean(g n)) / deviation +
// sum gradient, without mean(g) for RMSNorm.
template <class T>
inline void norm_backward_row(const NormBackwardCall& call, T* x_gradient, std::size_t row,
                              const NormGradients& gradients) {
  const DropoutRow output_dropout(call.output_dropout, row);
  const DropoutRow input_dropout(call.input_dropout, row);
  const float* output_gradient = call.output_gradient + row * call.columns;
  const float* sum_gradient = call.sum_gradient == nullptr ? nullptr : call.sum_gradient + row * call.columns;
  const float* normalized = call.normalized + row * call.columns;
  float* residual_gradient = call.residual_gradient + row * call.columns;
  Vec sum = broadcast(0.0f);
  Vec product = sum;
  for (std::size_t j = 0; j < call.columns; j += kLanes) {
    const std::size_t count = call.columns - j;
    const Vec gradient = output_dropout.apply(load_values(output_gradient + j, count), j);
    const Vec value = load_values(normalized + j, count);
    add_to(gradients.norm_bias + j, gradient, count);
    add_to(gradients.weight + j, gradient * value, count);
    const Vec weighted = gradient * load_values(call.weight + j, count);
    sum = sum + weighted;
    product = multiply_add(weighted, value, product);
    store_values(residual_gradient + j, weighted, count);
  }
  const float size = static_cast<float>(call.columns);
  const Vec mean = broadcast(call.kind == NormKind::layer ? reduce_sum(sum) / size : 0.0f);
  const Vec slope = broadcast(reduce_sum(product) / size);
  const Vec inverse = broadcast(call.inverse[row]);
  for (std::size_t j = 0; j < call.columns; j += kLanes) {
    const std::size_t count = call.columns - j;
    const Vec value = load_values(normalized + j, count);
    Vec gradient = (load_values(residual_gradient + j, count) - mean - value * slope) * inverse;
    if (sum_gradient != nullptr) gradient = gradient + load_values(sum_gradient + j, count);
    store_values(residual_gradient + j, gradient, count);
    if (x_gradient == nullptr) continue;
    const Vec dropped = input_dropout.apply(gradient, j);
    store_values(x_gradient + j, dropped, count);
    add_to(gradients.bias + j, dropped, count);
  }
}

void norm_backward(const NormBackwardCall& call, std::size_t begin, std::size_t end, const NormGradients& gradients) {
  with_type(call.x_gradient, [&](auto* x_gradient) {
    for (std::size_t row = begin; row < end; ++row) {
      norm_backward_row(call, x_gradient == nullptr ? nullptr : x_gradient + row * call.x_gradient.stride, row,
                        gradients);
    }
  });
}

}  // namespace
}  // namespace fastce
