// Scores by the distance between a query and a key: T5's biases (https://arxiv.org/abs/1910.10683, section 2.1) and the
// products of contents with positions of DeBERTa (https://arxiv.org/abs/2006.03654, equation 4).
//
// Products with positions have a column for each distance, so that what a query adds to its scores of neighbouring keys
// is a part of one row, the next query's the same shifted by one.
#pragma once

#include "kernels.h"
#include "kernels/multiply.inl.h"

namespace fastce {
namespace {

struct KeyRange {
  std::size_t begin;
  std::size_t end;
};

using Distance = std::ptrdiff_t;

// The columns that some neighbouring distances have: those from whole panels on that cover them.
struct ColumnRange {
  std::size_t begin;
  std::size_t end;

  ColumnRange(std::size_t reach, Distance first, Distance last)
      : begin(column_of(reach, first) / kPanel * kPanel), end(column_of(reach, last) + 1) {}

  static std::size_t column_of(std::size_t reach, Distance distance) {
    const auto most = static_cast<Distance>(reach);
    const Distance clamped = distance < -most ? -most : distance > most ? most : distance;
    return static_cast<std::size_t>(clamped + most);
  }
};

// Calls write(j, values) for vectors of `count` values of neighbouring distances, the first `distance`; `row` has those
// of the columns from `begin` on. Reads up to a vector beyond the last column.
template <class Write>
inline void spread_row(const float* row, std::size_t begin, std::size_t reach, Distance distance, std::size_t count,
                       const Write& write) {
  const auto most = static_cast<Distance>(reach);
  const float* columns = row + most - static_cast<Distance>(begin);  // [distance]
  for (std::size_t j = 0; j < count; j += kLanes) {
    const Distance first = distance + static_cast<Distance>(j);
    const Distance last = first + static_cast<Distance>(kLanes) - 1;
    if (first >= -most && last <= most) {
      write(j, load(columns + first));
    } else {
      float values[kLanes];
      for (std::size_t lane = 0; lane < kLanes; ++lane) {
        const Distance wanted = first + static_cast<Distance>(lane);
        const bool is_asked = j + lane < count;
        values[lane] = is_asked ? columns[wanted < -most ? -most : wanted > most ? most : wanted] : 0.0f;
      }
      write(j, load(values));
    }
  }
}

// Adds one head's scores by distance to those of chunks of queries, chunk after chunk.
class RelativeAdder {
 public:
  // `scratch` has relative_scratch_words(...) where the call has such scores.
  RelativeAdder(const AttentionCall& call, std::size_t head, float* scratch)
      : call_(call), positions_(call.relative == nullptr ? RelativeScores{} : call.relative[head]), products_(scratch) {
    product_stride_ = padded_stride(relative_columns(num_keys(call)));
    transposed_ = products_ + kQueryChunk * product_stride_;
    by_key_ = transposed_ + kRelativeKeys * padded_stride(kRelativeQueries);
    by_key_stride_ = padded_stride(num_keys(call) + kRelativeKeys);
  }

  // To scores[rows][stride] of queries[rows][query_stride], the first of which is `first`, and keys in `range`.
  void add(const std::uint32_t* queries, std::size_t first, std::size_t rows, KeyRange range, float* scores,
           std::size_t stride) {
    const Distance distance = static_cast<Distance>(range.begin) - position(first);
    const std::size_t width = range.end - range.begin;
    const auto add_row = [&](std::size_t row, const float* values, std::size_t begin) {
      float* sums = scores + row * stride;
      spread_row(values, begin, positions_.reach, distance - static_cast<Distance>(row), width,
                 [&](std::size_t j, Vec x) { store(sums + j, load(sums + j) + x); });
    };
    if (positions_.bias != nullptr) {
      for (std::size_t row = 0; row < rows; ++row) add_row(row, positions_.bias, 0);
    }
    if (positions_.keys != nullptr) {
      const ColumnRange columns(positions_.reach, distance - static_cast<Distance>(rows) + 1,
                                distance + static_cast<Distance>(width) - 1);
      multiply_positions(rows, queries, call_.query_stride, positions_.keys, columns);
      for (std::size_t row = 0; row < rows; ++row) {
        add_row(row, products_ + row * product_stride_, columns.begin);
      }
    }
    if (positions_.queries != nullptr) {
      if (first % kRelativeQueries == 0) multiply_keys(first);
      for (std::size_t row = 0; row < rows; ++row) {
        const float* values = by_key_ + (first % kRelativeQueries + row) * by_key_stride_ + range.begin;
        float* sums = scores + row * stride;
        for (std::size_t j = 0; j < width; j += kLanes) store(sums + j, load(sums + j) + load(values + j));
      }
    }
  }

 private:
  Distance position(std::size_t query) const { return static_cast<Distance>(call_.first_query + query); }

  void multiply_positions(std::size_t rows, const std::uint32_t* x, std::size_t stride, const std::uint32_t* panels,
                          ColumnRange columns) {
    const std::size_t depth = words_for(call_.format, call_.dim);
    multiply(call_.format, rows, x, stride, panels + columns.begin * depth, depth, columns.end - columns.begin,
             reinterpret_cast<std::uint32_t*>(products_), product_stride_);
  }

  // What keys and the positions of queries from `first` on make of each other, turned into rows of queries.
  void multiply_keys(std::size_t first) {
    const std::size_t queries = call_.queries - first < kRelativeQueries ? call_.queries - first : kRelativeQueries;
    const std::size_t stride = padded_stride(kRelativeQueries);
    for (std::size_t key = 0; key < num_keys(call_); key += kRelativeKeys) {
      const std::size_t keys = num_keys(call_) - key < kRelativeKeys ? num_keys(call_) - key : kRelativeKeys;
      const Distance distance = position(first) - static_cast<Distance>(key);  // from the key on to the query
      const ColumnRange columns(positions_.reach, distance - static_cast<Distance>(keys) + 1,
                                distance + static_cast<Distance>(queries) - 1);
      multiply_positions(keys, call_.own.key + key * call_.own.stride, call_.own.stride, positions_.queries, columns);
      for (std::size_t row = 0; row < keys; ++row) {
        spread_row(products_ + row * product_stride_, columns.begin, positions_.reach,
                   distance - static_cast<Distance>(row), queries,
                   [&](std::size_t i, Vec x) { store(transposed_ + row * stride + i, x); });
      }
      for (std::size_t row = 0; row < kRelativeKeys; row += kLanes) {
        for (std::size_t i = 0; i < queries; i += kLanes) {
          transpose_square(reinterpret_cast<const std::uint32_t*>(transposed_) + row * stride + i, stride,
                           reinterpret_cast<std::uint32_t*>(by_key_) + i * by_key_stride_ + key + row, by_key_stride_);
        }
      }
    }
  }

  const AttentionCall& call_;
  const RelativeScores positions_;
  float* products_;  // [kQueryChunk][product_stride_]
  std::size_t product_stride_;
  float* transposed_;  // [kRelativeKeys][padded_stride(kRelativeQueries)]
  float* by_key_;      // [kRelativeQueries][by_key_stride_]
  std::size_t by_key_stride_;
};

}  // namespace
}  // namespace fastce
