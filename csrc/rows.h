// Activations: rows in fp32 and as operands of matrix products.
#pragma once

#include "aligned_buffer.h"
#include "kernels.h"

namespace fastce {

// fp32 rows as an operand.
inline Operand operand_of(FloatRows rows) {
  return {reinterpret_cast<std::uint32_t*>(rows.data), rows.stride, nullptr, nullptr};
}

// fp32 rows, padded to whole panels.
class Rows {
 public:
  Rows() = default;
  Rows(std::size_t rows, std::size_t columns)
      : stride_(padded_stride(columns)), data_(AlignedBuffer<float>::zeros(rows * stride_)) {}

  float* row(std::size_t index) const { return data_.data() + index * stride_; }
  std::size_t stride() const { return stride_; }

  FloatRows from(std::size_t first) const { return {row(first), stride_}; }

  // The rows from `first` on as an operand.
  Operand operand(std::size_t first) const { return operand_of(from(first)); }

 private:
  std::size_t stride_ = 0;
  AlignedBuffer<float> data_;
};

// Rows converted for a matrix product.
class OperandRows {
 public:
  OperandRows() = default;
  OperandRows(Format format, std::size_t rows, std::size_t columns)
      : stride_(padded_stride(words_for(format, round_up(columns, kPanel)))),
        words_(AlignedBuffer<std::uint32_t>::zeros(rows * stride_)),
        scales_(format == Format::int8 ? rows : 0),
        zero_points_(format == Format::int8 ? rows : 0) {}

  Operand operand(std::size_t first) const {
    const bool is_int8 = scales_.data() != nullptr;
    return {words_.data() + first * stride_, stride_, is_int8 ? scales_.data() + first : nullptr,
            is_int8 ? zero_points_.data() + first : nullptr};
  }

 private:
  std::size_t stride_ = 0;
  AlignedBuffer<std::uint32_t> words_;
  AlignedBuffer<float> scales_;
  AlignedBuffer<std::int32_t> zero_points_;
};

}  // namespace fastce
