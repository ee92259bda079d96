// Scores by distance in training: one head's tables as attention takes them, and their gradients.
#pragma once

#include "kernels/head_rows.inl.h"
#include "kernels/relative.inl.h"

namespace fastce {
namespace {

// One head's tables. Those that keys are multiplied with lie in reverse, as in `RelativeScores`.
class HeadTables {
 public:
  HeadTables(const VarlenAttention& call, std::size_t head, Scratch& scratch)
      : columns_(is_relative(call.relative) ? 2 * call.relative.reach + 1 : 0),
        keys_(call, scratch, call.relative.keys.data == nullptr ? 0 : columns_),
        queries_(call, scratch, call.relative.queries.data == nullptr ? 0 : columns_) {
    const RelativeTables& tables = call.relative;
    scores_.reach = tables.reach;
    if (tables.bias != nullptr) {
      float* bias = scratch.take(columns_);
      for (std::size_t i = 0; i < columns_; ++i) bias[i] = tables.bias[i * call.heads + head] / call.scale;
      scores_.bias = bias;
    }
    if (tables.keys.data != nullptr) {
      keys_.read(tables.keys, head, 0, columns_);
      scores_.keys = transposed_panels(keys_, columns_, call.dim, scratch);
      key_panels_ = panels_of(keys_, columns_, call.dim, scratch);
    }
    if (tables.queries.data != nullptr) {
      for (std::size_t i = 0; i < columns_; ++i) queries_.from(i).read(tables.queries, head, columns_ - 1 - i, 1);
      scores_.queries = transposed_panels(queries_, columns_, call.dim, scratch);
      query_panels_ = panels_of(queries_, columns_, call.dim, scratch);
    }
  }

  const RelativeScores* scores() const { return columns_ == 0 ? nullptr : &scores_; }
  std::size_t columns() const { return columns_; }

  // b for products a b, [dim / kPanel][columns][kPanel]
  const std::uint32_t* key_panels() const { return key_panels_; }
  const std::uint32_t* query_panels() const { return query_panels_; }

 private:
  std::size_t columns_;
  HeadRows keys_;
  HeadRows queries_;
  RelativeScores scores_{};
  const std::uint32_t* key_panels_ = nullptr;
  const std::uint32_t* query_panels_ = nullptr;
};

// The reverse of spread_row: adds up what the distances from `distance` on have in columns from `begin` to `end`.
inline void gather_row(const float* values, std::size_t reach, Distance distance, std::size_t count,
                       ColumnRange columns, float* sums) {
  __builtin_memset(sums, 0, round_up(columns.end - columns.begin, kLanes) * sizeof(float));
  for (std::size_t j = 0; j < count; ++j) {
    sums[ColumnRange::column_of(reach, distance + static_cast<Distance>(j)) - columns.begin] += values[j];
  }
}

// Some neighbouring queries and the keys that they see.
struct QueryChunk {
  std::size_t first;
  std::size_t count;
  KeyRange range;
};

// The gradients of one head's tables over one sequence.
class RelativeGradients {
 public:
  RelativeGradients(const AttentionCall& call, const HeadTables& tables, const VarlenBackward& tensors,
                    std::size_t head, const VarlenAttention& attention, Scratch& scratch)
      : call_(call),
        attention_(attention),
        tables_(tables),
        tensors_(tensors),
        head_(head),
        keys_(attention, scratch, tables.key_panels() == nullptr ? 0 : tables.columns()),
        queries_(attention, scratch, tables.query_panels() == nullptr ? 0 : tables.columns()),
        products_(attention, scratch, tables.scores() == nullptr ? 0 : kQueryChunk) {
    if (tables.scores() == nullptr) return;
    stride_ = padded_stride(relative_columns(num_keys(call)));
    sums_ = scratch.take(kQueryChunk * stride_);
    transposed_ = scratch.take(round_up(num_keys(call), kPanel) * kQueryChunk);
    if (tables.key_panels() != nullptr) keys_.clear(tables.columns());
    if (tables.query_panels() != nullptr) queries_.clear(tables.columns());
  }

  // Adds what the gradients[count][stride] of a chunk's scores mean for the tables, and for the keys. Returns what they
  // mean for the queries, [count][HeadRows' stride]; null: nothing.
  const float* add(const QueryChunk& chunk, const HeadRows& query, const HeadRows& key, const float* gradients,
                   std::size_t stride, const HeadRows& key_gradient, Scratch scratch) {
    if (tables_.scores() == nullptr) return nullptr;
    if (tensors_.bias_gradient != nullptr) add_to_bias(chunk, gradients, stride);
    if (tables_.query_panels() != nullptr) add_by_key(chunk, key, gradients, stride, key_gradient, scratch);
    return tables_.key_panels() == nullptr ? nullptr : add_by_query(chunk, query, gradients, stride, scratch);
  }

  // Adds the sums to the tensors.
  void write() const {
    for (std::size_t i = 0; i < tables_.columns(); ++i) {
      if (tables_.key_panels() != nullptr) add_row(keys_.row(i), tensors_.keys_gradient, i);
      if (tables_.query_panels() != nullptr)
        add_row(queries_.row(i), tensors_.queries_gradient, tables_.columns() - 1 - i);
    }
  }

 private:
  std::size_t reach() const { return tables_.scores()->reach; }

  Distance first_distance(const QueryChunk& chunk) const {
    return static_cast<Distance>(chunk.range.begin) - static_cast<Distance>(call_.first_query + chunk.first);
  }

  void add_to_bias(const QueryChunk& chunk, const float* gradients, std::size_t stride) const {
    for (std::size_t i = 0; i < chunk.count; ++i) {
      const Distance distance = first_distance(chunk) - static_cast<Distance>(i);
      for (std::size_t j = 0; j < chunk.range.end - chunk.range.begin; ++j) {
        const std::size_t column = ColumnRange::column_of(reach(), distance + static_cast<Distance>(j));
        tensors_.bias_gradient[column * attention_.heads + head_] += gradients[i * stride + j];
      }
    }
  }

  const float* add_by_query(const QueryChunk& chunk, const HeadRows& query, const float* gradients, std::size_t stride,
                            Scratch scratch) const {
    const std::size_t width = chunk.range.end - chunk.range.begin;
    const Distance distance = first_distance(chunk);
    const ColumnRange columns(reach(), distance - static_cast<Distance>(chunk.count) + 1,
                              distance + static_cast<Distance>(width) - 1);
    for (std::size_t i = 0; i < chunk.count; ++i) {
      gather_row(gradients + i * stride, reach(), distance - static_cast<Distance>(i), width, columns,
                 sums_ + i * stride_);
    }
    products_of_sums(chunk.count, columns, tables_.key_panels());
    add_transposed_product(sums_, stride_, columns.end - columns.begin, query, chunk.count, attention_.dim, keys_,
                           columns.begin, scratch);
    return products_.row(0);
  }

  void add_by_key(const QueryChunk& chunk, const HeadRows& key, const float* gradients, std::size_t stride,
                  const HeadRows& key_gradient, Scratch scratch) const {
    const std::size_t width = chunk.range.end - chunk.range.begin;
    transpose(gradients, stride, width, transposed_);
    for (std::size_t first = 0; first < width; first += kQueryChunk) {
      const std::size_t keys = width - first < kQueryChunk ? width - first : kQueryChunk;
      const Distance distance = -first_distance(chunk) - static_cast<Distance>(first);  // from the key to the query
      const ColumnRange columns(reach(), distance - static_cast<Distance>(keys) + 1,
                                distance + static_cast<Distance>(chunk.count) - 1);
      for (std::size_t j = 0; j < keys; ++j) {
        gather_row(transposed_ + (first + j) * kQueryChunk, reach(), distance - static_cast<Distance>(j), chunk.count,
                   columns, sums_ + j * stride_);
      }
      products_of_sums(keys, columns, tables_.query_panels());
      key_gradient.from(chunk.range.begin + first).add(products_.row(0), keys);
      add_transposed_product(sums_, stride_, columns.end - columns.begin, key.from(chunk.range.begin + first), keys,
                             attention_.dim, queries_, columns.begin, scratch);
    }
  }

  void products_of_sums(std::size_t rows, ColumnRange columns, const std::uint32_t* panels) const {
    multiply(Format::fp32, rows, words_of(sums_), stride_, panels + columns.begin * kPanel, tables_.columns() * kPanel,
             columns.end - columns.begin, attention_.dim, products_.words(), products_.stride());
  }

  void add_row(const float* sums, float* gradient, std::size_t column) const {
    float* row = gradient + (column * attention_.heads + head_) * attention_.dim;
    for (std::size_t j = 0; j < attention_.dim; ++j) row[j] += attention_.scale * sums[j];
  }

  const AttentionCall& call_;
  const VarlenAttention& attention_;
  const HeadTables& tables_;
  const VarlenBackward& tensors_;
  std::size_t head_;
  HeadRows keys_;
  HeadRows queries_;
  HeadRows products_;
  std::size_t stride_ = 0;
  float* sums_ = nullptr;        // [kQueryChunk][stride_]
  float* transposed_ = nullptr;  // [keys][kQueryChunk]
};

}  // namespace
}  // namespace fastce
