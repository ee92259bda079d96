// Attention of one head over one sequence (https://arxiv.org/abs/1706.03762, equation 1): both products are those of
// multiply.inl.h, with keys and values packed into panels first.
#pragma once

#include "kernels.h"
#include "kernels/convert.inl.h"
#include "kernels/elementary.inl.h"
#include "kernels/multiply.inl.h"

namespace fastce {
namespace {

// panels[keys / kPanel][depth][kPanel] = the transpose of key[keys][stride], zero beyond the last key
inline void pack_keys(std::size_t keys, std::size_t depth, const std::uint32_t* key, std::size_t stride,
                      std::uint32_t* panels) {
  for (std::size_t first = 0; first < keys; first += kPanel, panels += depth * kPanel) {
    const std::size_t count = keys - first < kPanel ? keys - first : kPanel;
    if (count < kPanel) __builtin_memset(panels, 0, depth * kPanel * sizeof(*panels));
    for (std::size_t j = 0; j < count; j += kLanes) {
      const std::uint32_t* rows = key + (first + j) * stride;
      const bool is_whole = j + kLanes <= count;
      for (std::size_t k = 0; k < depth; k += kLanes) {
        if (is_whole && k + kLanes <= depth) {
          transpose_square(rows + k, stride, panels + k * kPanel + j, kPanel);
        } else {
          for (std::size_t row = 0; row < kLanes && j + row < count; ++row) {
            for (std::size_t i = k; i < depth && i < k + kLanes; ++i)
              panels[i * kPanel + j + row] = rows[row * stride + i];
          }
        }
      }
    }
  }
}

// panels[dim / kPanel][words_for(keys)][kPanel]: values of one key (fp32) or two keys (bf16) in a word, zero beyond the
// last
inline void pack_values(Format format, std::size_t keys, std::size_t dim, const std::uint32_t* value,
                        std::size_t stride, std::uint32_t* panels) {
  const std::size_t depth = words_for(format, keys);
  for (std::size_t first = 0; first < dim; first += kPanel, panels += depth * kPanel) {
    const std::size_t count = dim - first < kPanel ? dim - first : kPanel;
    if (count < kPanel) __builtin_memset(panels, 0, depth * kPanel * sizeof(*panels));
    if (format == Format::fp32) {
      for (std::size_t k = 0; k < depth; ++k) {
        __builtin_memcpy(panels + k * kPanel, value + k * stride + first, count * sizeof(*panels));
      }
      continue;
    }
    for (std::size_t k = 0; k < depth; ++k) {
      const std::uint16_t* even = reinterpret_cast<const std::uint16_t*>(value + 2 * k * stride) + first;
      const std::uint16_t* odd = reinterpret_cast<const std::uint16_t*>(value + (2 * k + 1) * stride) + first;
      const bool is_last = 2 * k + 1 == keys;
      for (std::size_t j = 0; j < count; ++j) {
        const std::uint32_t high = is_last ? 0 : odd[j];
        panels[k * kPanel + j] = even[j] | high << 16;
      }
    }
  }
}

struct Softmax {
  float largest;  // score
  float sum;      // of exp(scale * (score - largest))
};

// Scores to exp(scale * (score - largest)) in `format`, in place.
inline Softmax exponentiate_row(Format format, std::size_t keys, float scale, float* scores) {
  const Vec infinity = broadcast(__builtin_inff());
  Vec largest = broadcast(0.0f) - infinity;
  const std::size_t whole = keys / kLanes * kLanes;
  if (whole < keys) {
    store(scores + whole, keep_first(load(scores + whole), keys - whole, largest));
  }
  for (std::size_t j = 0; j < keys; j += kLanes) largest = maximum(largest, load(scores + j));
  const float most_score = reduce_max(largest);
  const Vec most = broadcast(most_score);
  const Vec factor = broadcast(scale * 1.44269504f);
  Vec sums = broadcast(0.0f);
  for (std::size_t j = 0; j < keys; j += kLanes) {
    const Vec weight = exp2(maximum((load(scores + j) - most) * factor, broadcast(-127.0f)));
    sums = sums + weight;
    if (format == Format::fp32) {
      store(scores + j, weight);
    } else {
      store_bf16(reinterpret_cast<std::uint16_t*>(scores) + j, weight);  // behind what is still to be read
    }
  }
  return {most_score, reduce_sum(sums)};
}

struct KeyRange {
  std::size_t begin;
  std::size_t end;
};

inline KeyRange visible_keys(const AttentionCall& call, std::size_t query) {
  const std::size_t position = call.first_query + query;
  const bool has_end = call.after < call.keys && position + call.after + 1 < call.keys;
  return {position > call.before ? position - call.before : 0, has_end ? position + call.after + 1 : call.keys};
}

// The keys that any query from `first` to `last` sees, from the beginning of a panel on: whatever the queries beside
// it, a query then meets a key in the same lane.
inline KeyRange visible_panels(const AttentionCall& call, std::size_t first, std::size_t last) {
  return {visible_keys(call, first).begin / kPanel * kPanel, visible_keys(call, last).end};
}

// Takes the keys that a query doesn't see out of its scores of the keys in `range`.
inline void hide_keys(KeyRange visible, KeyRange range, float* scores) {
  for (std::size_t j = range.begin; j < visible.begin; ++j) scores[j - range.begin] = -__builtin_inff();
  for (std::size_t j = visible.end; j < range.end; ++j) scores[j - range.begin] = -__builtin_inff();
}

// Calls each_row(query, range of the keys, softmax, weights before the division by their sum) on the way.
template <class EachRow>
inline void attend(const AttentionCall& call, const EachRow& each_row) {
  const KeyRange packed = visible_panels(call, 0, call.queries - 1);
  const std::size_t count = packed.end - packed.begin;
  const std::size_t depth = words_for(call.format, call.dim);
  const std::size_t value_depth = words_for(call.format, count);
  const std::size_t context_stride = round_up(call.dim, kPanel);
  std::uint32_t* keys = call.scratch;
  std::uint32_t* values = keys + round_up(count, kPanel) * depth;
  std::uint32_t* scores = values + context_stride * value_depth;
  std::uint32_t* contexts = scores + kQueryChunk * padded_stride(count);
  const bool sees_all = call.before >= call.keys && call.after >= call.keys;
  pack_keys(count, depth, call.key + packed.begin * call.key_stride, call.key_stride, keys);
  pack_values(call.format, count, call.dim, call.value + packed.begin * call.key_stride, call.key_stride, values);
  for (std::size_t first = 0; first < call.queries; first += kQueryChunk) {
    const std::size_t rows = call.queries - first < kQueryChunk ? call.queries - first : kQueryChunk;
    const KeyRange range = visible_panels(call, first, first + rows - 1);
    const std::size_t width = range.end - range.begin;
    const std::size_t skipped = range.begin - packed.begin;
    const std::size_t stride = padded_stride(width);
    float sums[kQueryChunk];
    multiply(call.format, rows, call.query + first * call.query_stride, call.query_stride, keys + skipped * depth,
             depth, width, scores, stride);
    for (std::size_t row = 0; row < rows; ++row) {
      float* row_scores = reinterpret_cast<float*>(scores + row * stride);
      if (!sees_all) hide_keys(visible_keys(call, first + row), range, row_scores);
      const Softmax softmax = exponentiate_row(call.format, width, call.scale, row_scores);
      sums[row] = softmax.sum;
      each_row(first + row, range, softmax, row_scores);
    }
    multiply(call.format, rows, scores, stride, values + words_for(call.format, skipped) * kPanel, value_depth * kPanel,
             words_for(call.format, width), call.dim, contexts, context_stride);
    for (std::size_t row = 0; row < rows; ++row) {
      const float* context = reinterpret_cast<const float*>(contexts + row * context_stride);
      float* output = call.output.data + (first + row) * call.output.stride;
      const Vec inverse = broadcast(1.0f / sums[row]);
      std::size_t j = 0;
      for (; j + kLanes <= call.dim; j += kLanes) store(output + j, load(context + j) * inverse);
      if (j < call.dim) store_first(output + j, load(context + j) * inverse, call.dim - j);
    }
  }
}

void attention(const AttentionCall& call) {
  attend(call, [](std::size_t, KeyRange, Softmax, float*) {});
}

}  // namespace
}  // namespace fastce
