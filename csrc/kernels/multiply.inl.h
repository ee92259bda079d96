// Matrix products of rows with packed panels, written once over the words' products `Dot` of each format.
//
// Every element is one chain of additions over the depth, whatever tile it falls in: a row's result depends on nothing
// but the row.
#pragma once

#include <utility>

#include "kernels.h"

namespace fastce {
namespace {

// A tile of rows x `vectors` accumulators that stay in registers over the whole depth. `cells` counts them; loops over
// them are written as pack expansions, which the compiler unrolls before it decides what lives in registers.
template <class Dot, std::size_t vectors, std::size_t... cells>
inline void multiply_cells(std::index_sequence<cells...>, const std::uint32_t* a, std::size_t a_stride,
                           const std::uint32_t* b, std::size_t depth, std::uint32_t* c, std::size_t c_stride) {
  typename Dot::Accumulator sums[sizeof...(cells)] = {(static_cast<void>(cells), Dot::zero())...};
  for (std::size_t k = 0; k < depth; ++k, ++a, b += kPanel) {
    (Dot::step(sums[cells], Dot::broadcast(a + cells / vectors * a_stride), Dot::load(b + cells % vectors * kLanes)),
     ...);
  }
  (Dot::store(c + cells / vectors * c_stride + cells % vectors * kLanes, sums[cells]), ...);
}

template <class Dot, std::size_t rows, std::size_t vectors>
__attribute__((noinline)) void multiply_tile(const std::uint32_t* a, std::size_t a_stride, const std::uint32_t* b,
                                             std::size_t depth, std::uint32_t* c, std::size_t c_stride) {
  multiply_cells<Dot, vectors>(std::make_index_sequence<rows * vectors>{}, a, a_stride, b, depth, c, c_stride);
}

template <class Dot, std::size_t vectors, std::size_t most_rows = kTileRows>
inline void multiply_tile_of(std::size_t rows, const std::uint32_t* a, std::size_t a_stride, const std::uint32_t* b,
                             std::size_t depth, std::uint32_t* c, std::size_t c_stride) {
  if (rows == most_rows) {
    multiply_tile<Dot, most_rows, vectors>(a, a_stride, b, depth, c, c_stride);
  } else if constexpr (most_rows > 1) {
    multiply_tile_of<Dot, vectors, most_rows - 1>(rows, a, a_stride, b, depth, c, c_stride);
  }
}

// c[rows][c_stride] = a[rows][a_stride] b, for b[ceil(columns / kPanel)][depth][kPanel] whose panels are `panel_stride`
// words apart. Writes 32-bit sums, columns rounded up to whole vectors.
template <class Dot>
void multiply(std::size_t rows, const std::uint32_t* a, std::size_t a_stride, const std::uint32_t* b,
              std::size_t panel_stride, std::size_t depth, std::size_t columns, std::uint32_t* c,
              std::size_t c_stride) {
  constexpr std::size_t kTileColumns = kTileVectors * kLanes;
  static_assert(kPanel % kTileColumns == 0 && kTileVectors == 2);
  const std::size_t tiles = (rows + kTileRows - 1) / kTileRows;
  for (std::size_t column = 0; column < columns; column += kTileColumns) {
    const std::uint32_t* panel = b + column / kPanel * panel_stride + column % kPanel;
    std::size_t row = 0;
    for (std::size_t tile = 0; tile < tiles; ++tile) {
      const std::size_t height = (rows - row) / (tiles - tile);  // tiles as equal as can be
      const std::uint32_t* a_row = a + row * a_stride;
      std::uint32_t* c_tile = c + row * c_stride + column;
      if (columns - column > kLanes) {
        multiply_tile_of<Dot, 2>(height, a_row, a_stride, panel, depth, c_tile, c_stride);
      } else {
        multiply_tile_of<Dot, 1>(height, a_row, a_stride, panel, depth, c_tile, c_stride);
      }
      row += height;
    }
  }
}

inline void multiply(Format format, std::size_t rows, const std::uint32_t* a, std::size_t a_stride,
                     const std::uint32_t* b, std::size_t panel_stride, std::size_t depth, std::size_t columns,
                     std::uint32_t* c, std::size_t c_stride) {
  switch (format) {
    case Format::fp32:
      return multiply<FloatDot>(rows, a, a_stride, b, panel_stride, depth, columns, c, c_stride);
    case Format::bf16:
      return multiply<BFloat16Dot>(rows, a, a_stride, b, panel_stride, depth, columns, c, c_stride);
    case Format::int8:
      return multiply<Int8Dot>(rows, a, a_stride, b, panel_stride, depth, columns, c, c_stride);
  }
}

// The same for a matrix whose panels follow each other.
inline void multiply(Format format, std::size_t rows, const std::uint32_t* a, std::size_t a_stride,
                     const std::uint32_t* b, std::size_t depth, std::size_t columns, std::uint32_t* c,
                     std::size_t c_stride) {
  multiply(format, rows, a, a_stride, b, kPanel * depth, depth, columns, c, c_stride);
}

}  // namespace
}  // namespace fastce
