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
};

// The parameters of a linear layer: weight [out_features][in_features], and bias [out_features] or null for none.
struct LinearParameters {
  MatrixView weight;
  const float* bias;
};

class PackedLinear {
 public:
  PackedLinear() = default;

  // Stacks layers with the same input into one. int8 scales each output so that its largest weight becomes 127.
  PackedLinear(Format format, const std::vector<LinearParameters>& parts);

  const Weight& weight() const { return weight_; }

 private:
  void pack(const LinearParameters& part, std::size_t first_column);

  Weight weight_{};
  AlignedBuffer<std::uint32_t> words_;
  AlignedBuffer<float> bias_;
  AlignedBuffer<float> scales_;
  AlignedBuffer<std::int32_t> sums_;
};

}  // namespace fastce
