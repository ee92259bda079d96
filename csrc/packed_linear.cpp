#include "packed_linear.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace fastce {

namespace {

// The nearest bf16, to even; not-a-numbers stay some.
std::uint32_t to_bf16(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  if (std::isnan(value)) return bits >> 16 | 0x40;
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

std::size_t total_outputs(const std::vector<LinearParameters>& parts) {
  std::size_t outputs = 0;
  for (const LinearParameters& part : parts) outputs += part.weight.rows;
  return outputs;
}

}  // namespace

PackedLinear::PackedLinear(Format format, bool is_gated, std::size_t columns, std::size_t in_features) {
  const std::size_t padded = round_up(columns, kPanel);
  const std::size_t depth = words_for(format, in_features);
  words_ = AlignedBuffer<std::uint32_t>::zeros(padded * depth);
  bias_ = AlignedBuffer<float>::zeros(padded);
  if (format == Format::int8) {
    scales_ = AlignedBuffer<float>::zeros(padded);
    sums_ = AlignedBuffer<std::int32_t>::zeros(padded);
  }
  weight_ = {format, is_gated, columns, depth, words_.data(), bias_.data(), scales_.data(), sums_.data()};
}

PackedLinear::PackedLinear(Format format, const std::vector<LinearParameters>& parts)
    : PackedLinear(format, false, total_outputs(parts), parts.front().weight.columns) {
  std::size_t first_column = 0;
  for (const LinearParameters& part : parts) {
    pack(part, first_column);
    first_column += part.weight.rows;
  }
}

PackedLinear PackedLinear::gated(Format format, const LinearParameters& gate, const LinearParameters& gated) {
  constexpr std::size_t kHalf = kPanel / 2;
  const std::size_t size = gate.weight.rows;
  PackedLinear packed(format, true, 2 * round_up(size, kHalf), gate.weight.columns);
  for (std::size_t first = 0; first < size; first += kHalf) {
    const std::size_t end = std::min(size, first + kHalf);
    packed.pack(gate.outputs(first, end), 2 * first);
    packed.pack(gated.outputs(first, end), 2 * first + kHalf);
  }
  return packed;
}

void PackedLinear::pack(const LinearParameters& part, std::size_t first_column) {
  const MatrixView& matrix = part.weight;
  const std::size_t values = values_per_word(weight_.format);
  for (std::size_t i = 0; i < matrix.rows; ++i) {
    const std::size_t column = first_column + i;
    const float* row = matrix.data + i * matrix.row_stride;
    std::uint32_t* words = words_.data() + column / kPanel * kPanel * weight_.depth + column % kPanel;
    if (part.bias != nullptr) bias_[column] = part.bias[i];
    if (weight_.format == Format::fp32) {
      for (std::size_t j = 0; j < matrix.columns; ++j)
        std::memcpy(words + j * kPanel, row + j * matrix.column_stride, 4);
      continue;
    }
    float inverse = 0.0f;
    if (weight_.format == Format::int8) {
      float largest = 0.0f;
      for (std::size_t j = 0; j < matrix.columns; ++j)
        largest = std::max(largest, std::fabs(row[j * matrix.column_stride]));
      scales_[column] = largest / 127.0f;
      inverse = largest > 0.0f ? 127.0f / largest : 0.0f;
    }
    for (std::size_t j = 0; j < matrix.columns; ++j) {
      const float value = row[j * matrix.column_stride];
      std::uint32_t& word = words[j / values * kPanel];
      if (weight_.format == Format::bf16) {
        word |= to_bf16(value) << j % values * 16;
      } else {
        const auto quantized = static_cast<std::int32_t>(std::nearbyintf(value * inverse));
        word |= static_cast<std::uint32_t>(quantized & 0xff) << j % values * 8;
        sums_[column] += quantized;
      }
    }
  }
}

}  // namespace fastce
