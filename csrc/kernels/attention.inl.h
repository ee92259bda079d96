// Attention over one sequence (https://arxiv.org/abs/1706.03762, equation 1): both products are those of
// multiply.inl.h, with keys and values packed into panels first.
#pragma once

#include "kernels.h"
#include "kernels/convert.inl.h"
#include "kernels/elementary.inl.h"
#include "kernels/multiply.inl.h"
#include "kernels/relative.inl.h"

namespace fastce {
namespace {

// Rows of which the first `split` lie in one place and the others in another.
struct SplitRows {
  std::size_t split;
  const std::uint32_t* before;
  std::size_t before_stride;
  const std::uint32_t* behind;
  std::size_t stride;

  const std::uint32_t* row(std::size_t index) const {
    return index < split ? before + index * before_stride : behind + (index - split) * stride;
  }
  bool are_apart(std::size_t first, std::size_t end) const { return first < split && split < end; }
};

inline SplitRows rows_in_one_place(const std::uint32_t* rows, std::size_t stride) {
  return {0, nullptr, 0, rows, stride};
}

inline SplitRows keys_of(const AttentionCall& call) {
  return {call.prefix.count, call.prefix.key, call.prefix.stride, call.own.key, call.own.stride};
}

inline SplitRows values_of(const AttentionCall& call) {
  return {call.prefix.count, call.prefix.value, call.prefix.stride, call.own.value, call.own.stride};
}

// panels[keys / kPanel][depth][kPanel] = the transpose of the keys from `begin` to before `end`, zero beyond the last
inline void pack_keys(std::size_t begin, std::size_t end, std::size_t depth, const SplitRows& keys,
                      std::uint32_t* panels) {
  for (std::size_t first = begin; first < end; first += kPanel, panels += depth * kPanel) {
    const std::size_t count = end - first < kPanel ? end - first : kPanel;
    if (count < kPanel) __builtin_memset(panels, 0, depth * kPanel * sizeof(*panels));
    for (std::size_t j = 0; j < count; j += kLanes) {
      const std::size_t key = first + j;
      const bool is_square = j + kLanes <= count && !keys.are_apart(key, key + kLanes);
      const std::size_t stride = key < keys.split ? keys.before_stride : keys.stride;
      for (std::size_t k = 0; k < depth; k += kLanes) {
        if (is_square && k + kLanes <= depth) {
          transpose_square(keys.row(key) + k, stride, panels + k * kPanel + j, kPanel);
        } else {
          for (std::size_t row = 0; row < kLanes && j + row < count; ++row) {
            for (std::size_t i = k; i < depth && i < k + kLanes; ++i)
              panels[i * kPanel + j + row] = keys.row(key + row)[i];
          }
        }
      }
    }
  }
}

// panels[dim / kPanel][words_for(end - begin)][kPanel]: values of one key (fp32) or two keys (bf16) in a word, zero
// beyond the last
inline void pack_values(Format format, std::size_t begin, std::size_t end, std::size_t dim, const SplitRows& values,
                        std::uint32_t* panels) {
  const std::size_t depth = words_for(format, end - begin);
  for (std::size_t first = 0; first < dim; first += kPanel, panels += depth * kPanel) {
    const std::size_t count = dim - first < kPanel ? dim - first : kPanel;
    if (count < kPanel) __builtin_memset(panels, 0, depth * kPanel * sizeof(*panels));
    if (format == Format::fp32) {
      for (std::size_t k = 0; k < depth; ++k) {
        __builtin_memcpy(panels + k * kPanel, values.row(begin + k) + first, count * sizeof(*panels));
      }
      continue;
    }
    for (std::size_t k = 0; k < depth; ++k) {
      const std::size_t key = begin + 2 * k;
      const bool is_last = key + 1 == end;
      const std::uint16_t* even = reinterpret_cast<const std::uint16_t*>(values.row(key)) + first;
      const std::uint16_t* odd = is_last ? even : reinterpret_cast<const std::uint16_t*>(values.row(key + 1)) + first;
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

inline KeyRange visible_keys(const AttentionCall& call, std::size_t query) {
  const std::size_t position = call.first_query + query;
  const bool has_end = call.after < num_keys(call) && position + call.after + 1 < num_keys(call);
  return {position > call.before ? position - call.before : 0, has_end ? position + call.after + 1 : num_keys(call)};
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

// The keys and values that any query sees, packed, and what is free behind them.
struct PackedKeys {
  KeyRange range;
  std::size_t depth;
  std::size_t value_depth;
  std::uint32_t* keys;
  std::uint32_t* values;
  std::uint32_t* scratch;
};

inline PackedKeys pack(const AttentionCall& call) {
  const KeyRange range = visible_panels(call, 0, call.queries - 1);
  const std::size_t count = range.end - range.begin;
  PackedKeys packed{};
  packed.range = range;
  packed.depth = words_for(call.format, call.dim);
  packed.value_depth = words_for(call.format, count);
  packed.keys = call.scratch;
  packed.values = packed.keys + round_up(count, kPanel) * packed.depth;
  packed.scratch = packed.values + round_up(call.dim, kPanel) * packed.value_depth;
  pack_keys(range.begin, range.end, packed.depth, keys_of(call), packed.keys);
  pack_values(call.format, range.begin, range.end, call.dim, values_of(call), packed.values);
  return packed;
}

// One head. Calls each_row(query, range of the keys, softmax, weights before the division by their sum) on the way.
template <class EachRow>
inline void attend(const AttentionCall& call, const PackedKeys& packed, std::size_t head, const EachRow& each_row) {
  const std::uint32_t* queries = call.query + head * packed.depth;
  const std::size_t context_stride = round_up(call.dim, kPanel);
  std::uint32_t* contexts = packed.scratch;
  std::uint32_t* scores = contexts + kQueryChunk * context_stride;
  const bool sees_all = call.before >= num_keys(call) && call.after >= num_keys(call);
  RelativeAdder relative(call, head, reinterpret_cast<float*>(scores + kQueryChunk * padded_stride(num_keys(call))));
  for (std::size_t first = 0; first < call.queries; first += kQueryChunk) {
    const std::size_t rows = call.queries - first < kQueryChunk ? call.queries - first : kQueryChunk;
    const KeyRange range = visible_panels(call, first, first + rows - 1);
    const std::size_t width = range.end - range.begin;
    const std::size_t skipped = range.begin - packed.range.begin;
    const std::size_t stride = padded_stride(width);
    float sums[kQueryChunk];
    const std::uint32_t* chunk = queries + first * call.query_stride;
    multiply(call.format, rows, chunk, call.query_stride, packed.keys + skipped * packed.depth, packed.depth, width,
             scores, stride);
    if (call.relative != nullptr) relative.add(chunk, first, rows, range, reinterpret_cast<float*>(scores), stride);
    for (std::size_t row = 0; row < rows; ++row) {
      float* row_scores = reinterpret_cast<float*>(scores + row * stride);
      if (!sees_all) hide_keys(visible_keys(call, first + row), range, row_scores);
      const Softmax softmax = exponentiate_row(call.format, width, call.scale, row_scores);
      sums[row] = softmax.sum;
      each_row(first + row, range, softmax, row_scores);
    }
    multiply(call.format, rows, scores, stride, packed.values + words_for(call.format, skipped) * kPanel,
             packed.value_depth * kPanel, words_for(call.format, width), call.dim, contexts, context_stride);
    for (std::size_t row = 0; row < rows; ++row) {
      const float* context = reinterpret_cast<const float*>(contexts + row * context_stride);
      float* output = call.output.data + (first + row) * call.output.stride + head * call.dim;
      const Vec inverse = broadcast(1.0f / sums[row]);
      std::size_t j = 0;
      for (; j + kLanes <= call.dim; j += kLanes) store(output + j, load(context + j) * inverse);
      if (j < call.dim) store_first(output + j, load(context + j) * inverse, call.dim - j);
    }
  }
}

void attention(const AttentionCall& call) {
  const PackedKeys packed = pack(call);
  for (std::size_t head = 0; head < call.heads; ++head) {
    attend(call, packed, head, [](std::size_t, KeyRange, Softmax, float*) {});
  }
}

}  // namespace
}  // namespace fastce
