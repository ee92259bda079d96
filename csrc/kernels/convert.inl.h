// fp32 rows to the operands of matrix products.
#pragma once

#include "kernels.h"

namespace fastce {
namespace {

#if !defined(FASTCE_NATIVE_BF16)
// Rounds to the nearest bf16, to even. Finite values only.
inline void store_bf16(std::uint16_t* to, Vec x) {
  const IntVec bits = bits_of(x);
  const IntVec odd = shift_right<16>(bits) & broadcast(1);
  store_low16(to, shift_right<16>(bits + broadcast(0x7fff) + odd));
}
#endif

inline void convert_row_bf16(std::size_t columns, const float* from, std::uint32_t* to) {
  std::uint16_t* values = reinterpret_cast<std::uint16_t*>(to);
  for (std::size_t j = 0; j < columns; j += kLanes) store_bf16(values + j, load(from + j));
}

// Asymmetric: the range of the row and 0 fall on 256 steps. A little less than 255 steps and a zero point rounded a
// little upwards keep all values inside 0..255 whatever the rounding. No operation here may be fused into another, so
// that all ISA levels agree bit for bit.
inline void quantize_row(std::size_t columns, const float* from, std::uint32_t* to, float* scale,
                         std::int32_t* zero_point) {
  constexpr float kSteps = 254.99f;
  Vec low = broadcast(0.0f);
  Vec high = low;
  std::size_t j = 0;
  for (; j + kLanes <= columns; j += kLanes) {
    low = minimum(low, load(from + j));
    high = maximum(high, load(from + j));
  }
  if (j < columns) {
    const Vec last = keep_first(load(from + j), columns - j, broadcast(0.0f));
    low = minimum(low, last);
    high = maximum(high, last);
  }
  const float smallest = reduce_min(low);
  const float range = reduce_max(high) - smallest;
  const float steps = range > 0.0f ? kSteps / range : 0.0f;
  const std::int32_t zero = static_cast<std::int32_t>(0.501f - smallest * steps);
  *scale = range / kSteps;
  *zero_point = zero;
  std::uint8_t* values = reinterpret_cast<std::uint8_t*>(to);
  for (j = 0; j < columns; j += kLanes) {
    const Vec position = load(from + j) * broadcast(steps) + broadcast(static_cast<float>(zero));
    store_low8(values + j, to_nearest_int(position));
  }
}

inline void convert_row(Format format, std::size_t columns, const float* from, const Operand& to, std::size_t row) {
  std::uint32_t* words = to.words + row * to.stride;
  if (format == Format::bf16) {
    convert_row_bf16(columns, from, words);
  } else if (format == Format::int8) {
    quantize_row(columns, from, words, to.scales + row, to.zero_points + row);
  } else {
    __builtin_memcpy(words, from, columns * sizeof(float));
  }
}

void convert(const ConvertCall& call) {
  for (std::size_t row = 0; row < call.rows; ++row) {
    convert_row(call.format, call.columns, call.input.data + row * call.input.stride, call.output, row);
  }
}

}  // namespace
}  // namespace fastce
