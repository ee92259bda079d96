// Scores by distance, made once of weights alone: a column for each distance.
#pragma once

#include <vector>

#include "aligned_buffer.h"
#include "packed_linear.h"
#include "program.h"
#include "rows.h"

namespace fastce {

// Of each head, and what they point to.
struct RelativePart {
  std::vector<RelativeScores> heads;
  std::vector<AlignedBuffer<float>> biases;
  std::vector<PackedLinear> panels;
};

// `table` is [buckets][heads]. The scale that the scores get later is taken out of the biases.
RelativePart relative_biases(const float* table, const program::RelativeBias& relation, std::size_t heads, float scale);

// The table of relative positions, [2 * span][columns], and its norm or null.
struct PositionTable {
  const float* data;
  std::size_t rows;
  std::size_t columns;
  const Norm* norm;
};

// Projections of the positions; null for the one whose term is not there.
struct PositionProjections {
  const LinearParameters* key;
  const LinearParameters* query;
};

RelativePart relative_positions(const PositionTable& table, const PositionProjections& projections,
                                const program::RowsByDistance& rows, std::size_t head_dim, Format format,
                                const Kernels& kernels);

}  // namespace fastce
