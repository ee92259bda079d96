// One head's rows of training, in fp32 and padded, and the products that they take part in.
#pragma once

#include "kernels/attention.inl.h"
#include "kernels/rotate.inl.h"
#include "kernels/values.inl.h"

namespace fastce {
namespace {

// Hands out parts of a scratch buffer, each on a cache line.
class Scratch {
 public:
  explicit Scratch(float* begin) : next_(begin) {}

  float* take(std::size_t size) {
    float* const taken = next_;
    next_ += round_up(size, kPanel);
    return taken;
  }

 private:
  float* next_;
};

inline std::uint32_t* words_of(float* values) { return reinterpret_cast<std::uint32_t*>(values); }

// One head's part of some rows, padded to whole panels.
class HeadRows {
 public:
  HeadRows(const VarlenAttention& call, Scratch& scratch, std::size_t rows)
      : call_(call), stride_(round_up(call.dim, kPanel)), data_(scratch.take(rows * stride_)) {}

  void read(const Values& source, std::size_t head, std::size_t first, std::size_t rows) {
    with_type(source, [&](const auto* from) {
      for (std::size_t i = 0; i < rows; ++i) {
        for (std::size_t j = 0; j < call_.dim; j += kLanes) {
          const std::size_t count = call_.dim - j;
          Vec x = load_values(from + (first + i) * source.stride + head * call_.dim + j, count);
          if (count < kLanes) x = keep_first(x, count, broadcast(0.0f));
          store(row(i) + j, x);
        }
      }
    });
  }

  void write(const MutableValues& target, std::size_t head, std::size_t first, std::size_t rows, float scale) const {
    with_type(target, [&](auto* to) {
      for (std::size_t i = 0; i < rows; ++i) {
        for (std::size_t j = 0; j < call_.dim; j += kLanes) {
          store_values(to + (first + i) * target.stride + head * call_.dim + j, load(row(i) + j) * broadcast(scale),
                       call_.dim - j);
        }
      }
    });
  }

  // Turns the rows by the angles of their positions; a direction of -1 turns gradients back.
  void rotate(std::size_t first_position, std::size_t rows, float direction) const {
    for (std::size_t i = 0; i < rows; ++i) {
      const std::size_t angles = (first_position + i) * call_.pairs;
      rotate_head(call_.pairs, call_.cosines + angles, call_.sines + angles, direction, row(i));
    }
  }

  // The same rows, from one on.
  HeadRows from(std::size_t first) const {
    HeadRows rows = *this;
    rows.data_ += first * stride_;
    return rows;
  }

  // Adds rows of the same stride.
  void add(const float* values, std::size_t rows) const {
    for (std::size_t i = 0; i < rows * stride_; i += kLanes) store(data_ + i, load(data_ + i) + load(values + i));
  }

  void clear(std::size_t rows) const { __builtin_memset(data_, 0, rows * stride_ * sizeof(float)); }

  float* row(std::size_t index) const { return data_ + index * stride_; }
  std::uint32_t* words() const { return words_of(data_); }
  std::size_t stride() const { return stride_; }

 private:
  const VarlenAttention& call_;
  std::size_t stride_;
  float* data_;
};

// b for products a b^T of rows with `rows`.
inline std::uint32_t* transposed_panels(const HeadRows& rows, std::size_t count, std::size_t dim, Scratch& scratch) {
  std::uint32_t* panels = words_of(scratch.take(round_up(count, kPanel) * dim));
  pack_keys(0, count, dim, rows_in_one_place(rows.words(), rows.stride()), panels);
  return panels;
}

// b for products a b of rows with `rows`.
inline std::uint32_t* panels_of(const HeadRows& rows, std::size_t count, std::size_t dim, Scratch& scratch) {
  std::uint32_t* panels = words_of(scratch.take(round_up(dim, kPanel) * count));
  pack_values(Format::fp32, 0, count, dim, rows_in_one_place(rows.words(), rows.stride()), panels);
  return panels;
}

// to[columns][kQueryChunk] = the transpose of from[kQueryChunk][stride]
inline void transpose(const float* from, std::size_t stride, std::size_t columns, float* to) {
  for (std::size_t j = 0; j < columns; j += kLanes) {
    for (std::size_t i = 0; i < kQueryChunk; i += kLanes) {
      transpose_square(reinterpret_cast<const std::uint32_t*>(from) + i * stride + j, stride,
                       words_of(to) + j * kQueryChunk + i, kQueryChunk);
    }
  }
}

// sums, from row `first` on, += the transpose of weights[kQueryChunk][stride], times `rows`
inline void add_transposed_product(const float* weights, std::size_t stride, std::size_t columns, const HeadRows& rows,
                                   std::size_t count, std::size_t dim, const HeadRows& sums, std::size_t first,
                                   Scratch scratch) {
  const std::uint32_t* panels = panels_of(rows, count, dim, scratch);
  float* transposed = scratch.take(round_up(columns, kLanes) * kQueryChunk);
  transpose(weights, stride, columns, transposed);
  float* product = scratch.take(columns * sums.stride());
  multiply(Format::fp32, columns, words_of(transposed), kQueryChunk, panels, count, dim, words_of(product),
           sums.stride());
  for (std::size_t i = 0; i < columns; ++i) {
    float* sum = sums.row(first + i);
    for (std::size_t j = 0; j < dim; j += kLanes) store(sum + j, load(sum + j) + load(product + i * sums.stride() + j));
  }
}

}  // namespace
}  // namespace fastce
