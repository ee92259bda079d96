// Rotary embeddings as tables of sines and cosines.
#pragma once

#include "aligned_buffer.h"
#include "program.h"

namespace fastce {

class RotaryTable {
 public:
  // For positions from 0 to before `positions`.
  RotaryTable(const program::RotaryEmbedding& rotary, std::size_t positions);

  // The rotation of rows at the given positions, their first `heads` heads of width `dim`.
  Rotation rotation(std::size_t heads, std::size_t dim, const std::int32_t* positions) const {
    return {heads, dim, pairs_, cosines_.data(), sines_.data(), positions};
  }

 private:
  std::size_t pairs_;
  AlignedBuffer<float> cosines_;
  AlignedBuffer<float> sines_;
};

}  // namespace fastce
