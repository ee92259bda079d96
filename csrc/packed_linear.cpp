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

}  // namespace

PackedLinear::PackedLinear(Format format, const std::vector<LinearParameters>& parts) {
  std::size_t columns = 0;
  for (const LinearParameters& part : parts) columns += part.weight.rows;
  const std::size_t padded = round_up(columns, kPanel);
  const std::size_t depth = words_for(format, parts.front().weight.columns);
  words_ = AlignedBuffer<std::uint32_t>::zeros(padded * depth);
  bias_ = AlignedBuffer<float>::zeros(padded);
  if (format == Format::int8) {
    scales_ = AlignedBuffer<float>::zeros(padded);
    sums_ = AlignedBuffer<std::int32_t>::zeros(padded);
  }
  weight_ = {format, columns, depth, words_.data(), bias_.data(), scales_.data(), sums_.data()};
  std::size_t first_column = 0;
  for (const LinearParameters& part : parts) {
    pack(part, first_column);
    first_column += part.weight.rows;
  }
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
