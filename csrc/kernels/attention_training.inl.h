// Attention of one head over one sequence with dropout, and its gradients, in fp32 whatever the tensors' type. The
// weights are computed again in the backward pass (https://arxiv.org/abs/2205.14135, section 3).
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

// One sequence of the batch.
struct Sequence {
  std::size_t first_query;
  std::size_t queries;
  std::size_t first_key;
  std::size_t keys;
  std::size_t position;  // of the first query

  Sequence(const VarlenAttention& call, std::size_t number)
      : first_query(static_cast<std::size_t>(call.cu_queries[number])),
        queries(static_cast<std::size_t>(call.cu_queries[number + 1]) - first_query),
        first_key(static_cast<std::size_t>(call.cu_keys[number])),
        keys(static_cast<std::size_t>(call.cu_keys[number + 1]) - first_key),
        position(call.queries_are_last ? keys - queries : 0) {}
};

inline AttentionCall attention_call(const VarlenAttention& call, const Sequence& sequence) {
  AttentionCall attention{};
  attention.format = Format::fp32;
  attention.dim = call.dim;
  attention.heads = 1;
  attention.queries = sequence.queries;
  attention.own.count = sequence.keys;
  attention.first_query = sequence.position;
  attention.before = call.before;
  attention.after = call.after;
  attention.scale = call.scale;
  return attention;
}

void varlen_attention_forward(const VarlenAttention& call, const VarlenForward& results, std::size_t number,
                              std::size_t kv_head, float* buffer) {
  const Sequence sequence(call, number);
  Scratch scratch(buffer);
  HeadRows key(call, scratch, sequence.keys);
  HeadRows value(call, scratch, sequence.keys);
  HeadRows query(call, scratch, sequence.queries);
  HeadRows context(call, scratch, sequence.queries);
  key.read(call.key, kv_head, sequence.first_key, sequence.keys);
  key.rotate(0, sequence.keys, 1.0f);
  value.read(call.value, kv_head, sequence.first_key, sequence.keys);
  AttentionCall attention = attention_call(call, sequence);
  attention.query = query.words();
  attention.query_stride = query.stride();
  attention.own = {key.words(), value.words(), key.stride(), sequence.keys};
  attention.output = {context.row(0), context.stride()};
  attention.scratch = words_of(scratch.take(0));
  const PackedKeys packed = pack(attention);
  const std::size_t group = call.heads / call.kv_heads;
  for (std::size_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    query.read(call.query, head, sequence.first_query, sequence.queries);
    query.rotate(sequence.position, sequence.queries, 1.0f);
    attend(attention, packed, 0, [&](std::size_t row, KeyRange range, Softmax softmax, float* weights) {
      const std::size_t place = (sequence.first_query + row) * call.heads + head;
      results.softmax[2 * place] = softmax.largest;
      results.softmax[2 * place + 1] = 1.0f / softmax.sum;
      const DropoutRow dropout(call.dropout, place);
      if (!dropout.is_active()) return;
      for (std::size_t j = range.begin; j < range.end; j += kLanes) {
        float* some = weights + j - range.begin;
        store(some, dropout.apply(load(some), j));
      }
    });
    context.write(results.output, head, sequence.first_query, sequence.queries, 1.0f);
  }
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

// Scores to dropped-out weights, and the gradients of these (in place) to those of the scores: with weights w and their
// gradients g, w (g - sum(w g)). `weights` is scratch.
inline void softmax_backward_row(const VarlenAttention& call, const float* softmax, std::size_t place, KeyRange range,
                                 float* weights, float* scores, float* gradients) {
  const DropoutRow dropout(call.dropout, place);
  const Vec largest = broadcast(softmax[2 * place]);
  const Vec inverse = broadcast(softmax[2 * place + 1]);
  const Vec factor = broadcast(call.scale * 1.44269504f);
  const std::size_t width = range.end - range.begin;
  Vec sum = broadcast(0.0f);
  for (std::size_t j = 0; j < width; j += kLanes) {
    const Vec exponent = maximum((load(scores + j) - largest) * factor, broadcast(-127.0f));
    Vec weight = exp2(exponent) * inverse;
    if (width - j < kLanes) weight = keep_first(weight, width - j, broadcast(0.0f));
    const Vec dropped = dropout.apply(weight, range.begin + j);
    const Vec gradient = dropped * load(gradients + j);
    sum = sum + gradient;
    store(weights + j, weight);
    store(scores + j, dropped);
    store(gradients + j, gradient);
  }
  const Vec slope = broadcast(-reduce_sum(sum));
  for (std::size_t j = 0; j < width; j += kLanes) {
    store(gradients + j, multiply_add(load(weights + j), slope, load(gradients + j)));
  }
}

void varlen_attention_backward(const VarlenAttention& call, const VarlenBackward& tensors, std::size_t number,
                               std::size_t kv_head, float* buffer) {
  const Sequence sequence(call, number);
  const AttentionCall attention = attention_call(call, sequence);
  const std::size_t keys = sequence.keys;
  const std::size_t dim = call.dim;
  Scratch scratch(buffer);
  HeadRows key_gradient(call, scratch, keys);
  HeadRows value_gradient(call, scratch, keys);
  __builtin_memset(key_gradient.row(0), 0, keys * key_gradient.stride() * sizeof(float));
  __builtin_memset(value_gradient.row(0), 0, keys * value_gradient.stride() * sizeof(float));
  HeadRows rows(call, scratch, keys);
  rows.read(call.value, kv_head, sequence.first_key, keys);
  const std::uint32_t* transposed_values = transposed_panels(rows, keys, dim, scratch);
  rows.read(call.key, kv_head, sequence.first_key, keys);
  rows.rotate(0, keys, 1.0f);
  const std::uint32_t* transposed_keys = transposed_panels(rows, keys, dim, scratch);
  const std::uint32_t* key_panels = panels_of(rows, keys, dim, scratch);
  HeadRows query(call, scratch, kQueryChunk);
  HeadRows context_gradient(call, scratch, kQueryChunk);
  float* scores = scratch.take(kQueryChunk * padded_stride(keys));
  float* score_gradients = scratch.take(kQueryChunk * padded_stride(keys));
  float* weights = scratch.take(padded_stride(keys));
  const std::size_t chunks = (sequence.queries + kQueryChunk - 1) / kQueryChunk;
  const std::size_t group = call.heads / call.kv_heads;
  for (std::size_t task = 0; task < group * chunks; ++task) {
    const std::size_t head = kv_head * group + task / chunks;
    const std::size_t first = task % chunks * kQueryChunk;
    const std::size_t count = sequence.queries - first < kQueryChunk ? sequence.queries - first : kQueryChunk;
    const std::size_t first_row = sequence.first_query + first;
    const KeyRange range = visible_panels(attention, first, first + count - 1);
    const std::size_t width = range.end - range.begin;
    const std::size_t stride = padded_stride(width);
    query.read(call.query, head, first_row, count);
    query.rotate(sequence.position + first, count, 1.0f);
    context_gradient.read(tensors.output_gradient, head, first_row, count);
    multiply(Format::fp32, count, query.words(), query.stride(), transposed_keys + range.begin * dim, dim, width,
             words_of(scores), stride);
    multiply(Format::fp32, count, context_gradient.words(), context_gradient.stride(),
             transposed_values + range.begin * dim, dim, width, words_of(score_gradients), stride);
    for (std::size_t i = 0; i < count; ++i) {
      hide_keys(visible_keys(attention, first + i), range, scores + i * stride);
      softmax_backward_row(call, tensors.softmax, (first_row + i) * call.heads + head, range, weights,
                           scores + i * stride, score_gradients + i * stride);
    }
    add_transposed_product(scores, stride, width, context_gradient, count, dim, value_gradient, range.begin, scratch);
    add_transposed_product(score_gradients, stride, width, query, count, dim, key_gradient, range.begin, scratch);
    multiply(Format::fp32, count, words_of(score_gradients), stride, key_panels + range.begin * kPanel, keys * kPanel,
             width, dim, query.words(), query.stride());
    query.rotate(sequence.position + first, count, -1.0f);
    query.write(tensors.query_gradient, head, first_row, count, call.scale);
  }
  key_gradient.rotate(0, keys, -1.0f);
  key_gradient.write(tensors.key_gradient, kv_head, sequence.first_key, keys, call.scale);
  value_gradient.write(tensors.value_gradient, kv_head, sequence.first_key, keys, 1.0f);
}

}  // namespace
}  // namespace fastce
