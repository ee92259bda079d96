// Linear layers, packed once for the kernels.
#pragma once

#include <vector>

#include "aligned_buffer.h"
#include "kernels.h"

namespace fastce {

// A matrix [rows][columns] in memory; its element (i, j) is at data[i * row_stride + j * column_stride].
struct MatrixView {
  const float* data;
  std::size_t rows;
  std::size_t columns;
  std::size_t row_stride;
  std::size_t column_stride;

  MatrixView transposed() const { return {data, columns, rows, column_stride, row_stride}; }
};

// The parameters of a linear layer: weight [out_features][in_features], and bias [out_features] or null for none.
struct LinearParameters {
  MatrixView weight;
  const float* bias;

  // The outputs from `first` to before `end`.
  LinearParameters outputs(std::size_t first, std::size_t end) const {
    MatrixView rows = weight;
    rows.data += first * weight.row_stride;
    rows.rows = end - first;
    return {rows, bias == nullptr ? nullptr : bias + first};
  }
};

class PackedLinear {
 public:
  PackedLinear() = default;

  // Stacks layers with the same input into one. int8 scales each output so that its largest weight becomes 127.
  PackedLinear(Format format, const std::vector<LinearParameters>& parts);

  // A gate and what it gates, two layers of one shape, as `Weight` has them.
  static PackedLinear gated(Format format, const LinearParameters& gate, const LinearParameters& gated);

  const Weight& weight() const { return weight_; }

 private:
  PackedLinear(Format format, bool is_gated, std::size_t columns, std::size_t in_features);
  void pack(const LinearParameters& part, std::size_t first_column);

  Weight weight_{};
  AlignedBuffer<std::uint32_t> words_;
  AlignedBuffer<float> bias_;
  AlignedBuffer<float> scales_;
  AlignedBuffer<std::int32_t> sums_;
};

}  // namespace fastce
