// Attention of one head over one sequence with dropout, and its gradients, in fp32 whatever the tensors' type. The
// weights are computed again in the backward pass (https://arxiv.org/abs/2205.14135, section 3).
#pragma once

#include "kernels/attention.inl.h"
#include "kernels/head_rows.inl.h"
#include "kernels/relative_training.inl.h"

namespace fastce {
namespace {

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
  attention.scratch = words_of(
      scratch.take(attention_scratch_words(Format::fp32, call.dim, sequence.keys, is_relative(call.relative))));
  const PackedKeys packed = pack(attention);
  const std::size_t group = call.heads / call.kv_heads;
  for (std::size_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    Scratch of_head = scratch;
    const HeadTables tables(call, head, of_head);
    attention.relative = tables.scores();
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
  AttentionCall attention = attention_call(call, sequence);
  const std::size_t keys = sequence.keys;
  const std::size_t dim = call.dim;
  Scratch scratch(buffer);
  HeadRows key_gradient(call, scratch, keys);
  HeadRows value_gradient(call, scratch, keys);
  key_gradient.clear(keys);
  value_gradient.clear(keys);
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
  attention.own = {rows.words(), rows.words(), rows.stride(), keys};
  attention.query_stride = query.stride();
  const std::size_t group = call.heads / call.kv_heads;
  for (std::size_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    Scratch of_head = scratch;
    const HeadTables tables(call, head, of_head);
    attention.relative = tables.scores();
    RelativeAdder relative(attention, 0, of_head.take(tables.scores() == nullptr ? 0 : relative_scratch_words(keys)));
    RelativeGradients gradients(attention, tables, tensors, head, call, of_head);
    for (std::size_t first = 0; first < sequence.queries; first += kQueryChunk) {
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
      if (attention.relative != nullptr) relative.add(query.words(), first, count, range, scores, stride);
      multiply(Format::fp32, count, context_gradient.words(), context_gradient.stride(),
               transposed_values + range.begin * dim, dim, width, words_of(score_gradients), stride);
      for (std::size_t i = 0; i < count; ++i) {
        hide_keys(visible_keys(attention, first + i), range, scores + i * stride);
        softmax_backward_row(call, tensors.softmax, (first_row + i) * call.heads + head, range, weights,
                             scores + i * stride, score_gradients + i * stride);
      }
      add_transposed_product(scores, stride, width, context_gradient, count, dim, value_gradient, range.begin, of_head);
      add_transposed_product(score_gradients, stride, width, query, count, dim, key_gradient, range.begin, of_head);
      const float* position_gradient =
          gradients.add({first, count, range}, query, rows, score_gradients, stride, key_gradient, of_head);
      multiply(Format::fp32, count, words_of(score_gradients), stride, key_panels + range.begin * kPanel, keys * kPanel,
               width, dim, query.words(), query.stride());
      if (position_gradient != nullptr) query.add(position_gradient, count);
      query.rotate(sequence.position + first, count, -1.0f);
      query.write(tensors.query_gradient, head, first_row, count, call.scale);
    }
    gradients.write();
  }
  key_gradient.rotate(0, keys, -1.0f);
  key_gradient.write(tensors.key_gradient, kv_head, sequence.first_key, keys, call.scale);
  value_gradient.write(tensors.value_gradient, kv_head, sequence.first_key, keys, 1.0f);
}

}  // namespace
}  // namespace fastce
