// A linear layer with all that follows it up to the next matrix product, row by row while the rows are in the cache.
#pragma once

#include "kernels.h"
#include "kernels/convert.inl.h"
#include "kernels/elementary.inl.h"
#include "kernels/multiply.inl.h"
#include "kernels/norm.inl.h"
#include "kernels/rotate.inl.h"

namespace fastce {
namespace {

// Applies the activation to a row of sums, in place; `sum(j)` are those from column j on.
template <Activation activation, class Sum>
inline void activate_row(Weight weight, float* values, Sum sum) {
  if (!weight.is_gated) {
    for (std::size_t j = 0; j < weight.columns; j += kLanes) store(values + j, activate<activation>(sum(j)));
    return;
  }
  constexpr std::size_t kHalf = kPanel / 2;
  for (std::size_t panel = 0; panel < weight.columns; panel += kPanel) {
    for (std::size_t j = panel; j < panel + kHalf; j += kLanes) {
      store(values + j - panel / 2, activate<activation>(sum(j)) * sum(j + kHalf));  // behind what is still to be read
    }
  }
}

// Accumulators to activation(x weight^T + bias), in place.
template <Activation activation>
inline void finish_row(const LinearCall& call, std::size_t row, float* values) {
  const Weight weight = *call.weight;  // a copy, which no store can change
  if (weight.format != Format::int8) {
    return activate_row<activation>(weight, values,
                                    [=](std::size_t j) { return load(values + j) + load(weight.bias + j); });
  }
  const std::int32_t* sums = reinterpret_cast<const std::int32_t*>(values);
  const IntVec zero_point = broadcast(call.input.zero_points[row]);
  const Vec scale = broadcast(call.input.scales[row]);
  activate_row<activation>(weight, values, [=](std::size_t j) {
    const Vec sum = to_float(load(sums + j) - zero_point * load(weight.sums + j));
    return multiply_add(sum, load(weight.scales + j) * scale, load(weight.bias + j));
  });
}

template <Activation activation>
inline void finish_rows(const LinearCall& call) {
  const std::size_t columns = call.weight->is_gated ? call.weight->columns / 2 : call.weight->columns;
  for (std::size_t row = 0; row < call.rows; ++row) {
    float* result = call.output.data + row * call.output.stride;
    finish_row<activation>(call, row, result);
    if (call.head_norms != nullptr) normalize_heads(*call.head_norms, result);
    if (call.rotation != nullptr) rotate_row(*call.rotation, row, result);
    if (call.stream.data != nullptr) {
      float* stream = call.stream.data + row * call.stream.stride;
      const float sum = add_to_stream(columns, result, stream);
      result = stream;
      if (call.norm != nullptr) {
        result = call.normed.data + row * call.normed.stride;
        normalize_row(columns, stream, sum, *call.norm, result);
      }
    }
    if (call.converted.words != nullptr) convert_row(call.converted_format, columns, result, call.converted, row);
  }
}

void linear(const LinearCall& call) {
  const Weight& weight = *call.weight;
  multiply(weight.format, call.rows, call.input.words, call.input.stride, weight.words, weight.depth, weight.columns,
           reinterpret_cast<std::uint32_t*>(call.output.data), call.output.stride);
  switch (call.activation) {
    case Activation::none:
      return finish_rows<Activation::none>(call);
    case Activation::gelu:
      return finish_rows<Activation::gelu>(call);
    case Activation::gelu_tanh:
      return finish_rows<Activation::gelu_tanh>(call);
    case Activation::relu:
      return finish_rows<Activation::relu>(call);
    case Activation::silu:
      return finish_rows<Activation::silu>(call);
    case Activation::tanh:
      return finish_rows<Activation::tanh>(call);
  }
}

}  // namespace
}  // namespace fastce
