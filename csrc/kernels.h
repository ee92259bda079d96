// The border between the network, compiled for any machine, and the kernels, compiled once per ISA level: plain data
// only. Nothing here may leave a symbol that the linker merges across levels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "training_calls.h"

namespace fastce {

// How the operands of a matrix product are stored. All formats are read as 32-bit words: one fp32 value, two bf16
// values or four int8 values (uint8 in activations, int8 in weights), first value in the lowest bits.
enum class Format { fp32, bf16, int8 };

enum class Activation { none, gelu, gelu_tanh, relu, silu, tanh };

// Columns of a packed matrix that lie together. Rows of fp32 buffers are padded to a multiple of it.
static constexpr std::size_t kPanel = 32;

// Queries that attention takes at a time.
static constexpr std::size_t kQueryChunk = 48;

// More than any distance between a query and a key.
static constexpr std::size_t kAnyDistance = static_cast<std::size_t>(-1);

static constexpr std::size_t round_up(std::size_t value, std::size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

static constexpr std::size_t values_per_word(Format format) {
  return format == Format::fp32 ? 1 : format == Format::bf16 ? 2 : 4;
}

static constexpr std::size_t words_for(Format format, std::size_t values) {
  return (values + values_per_word(format) - 1) / values_per_word(format);
}

// Words between rows of at least `words`: whole cache lines, and no multiple of 4096 bytes, since rows at such
// distances compete for the same lines of the L1 cache.
static constexpr std::size_t padded_stride(std::size_t words) {
  const std::size_t stride = round_up(words, kPanel);
  return stride % 1024 == 0 ? stride + 16 : stride;
}

// Rows of fp32 values, columns padded to a multiple of kPanel.
struct FloatRows {
  float* data;         // [rows][stride], null for none
  std::size_t stride;  // values
};

// Activations as a matrix product reads them. What lies between the last value and the end of its word must be finite.
struct Operand {
  std::uint32_t* words;       // [rows][stride]
  std::size_t stride;         // words
  float* scales;              // [rows], int8 only: value = scale * (uint8 - zero point)
  std::int32_t* zero_points;  // [rows], int8 only
};

// A linear layer's parameters, packed for `Kernels::linear`. Those of a gated pair lie side by side: each panel has
// kPanel / 2 columns of the gate, then the same ones of what it gates.
struct Weight {
  Format format;
  bool is_gated;
  std::size_t columns;         // out_features, with both of a gated pair and what fills up their last panel
  std::size_t depth;           // words that hold in_features values
  const std::uint32_t* words;  // [ceil(columns / kPanel)][depth][kPanel], zero beyond the matrix
  const float* bias;           // [columns], padded with zeros to a multiple of kPanel, as are:
  const float* scales;         // [columns], int8 only: value = scale * int8
  const std::int32_t* sums;    // [columns], int8 only: sums over in_features
};

enum class NormKind { layer, rms };

// A norm's parameters, both padded with zeros to a multiple of kPanel.
struct Norm {
  NormKind kind;
  const float* weight;  // [columns]
  const float* bias;    // [columns], zeros where the norm has none
  float eps;
};

// Rotation of a row's first heads by its position: in each, elements i and i + pairs turn by the angle i.
struct Rotation {
  std::size_t heads;
  std::size_t dim;
  std::size_t pairs;
  const float* cosines;           // [positions][pairs]
  const float* sines;             // [positions][pairs]
  const std::int32_t* positions;  // [rows]
};

// Norms of a row's first heads: the first `queries` have one, the `keys` behind them another.
struct HeadNorms {
  std::size_t queries;
  std::size_t keys;
  std::size_t dim;
  const Norm* query;
  const Norm* key;
};

// output = activation(input weight^T + bias), or activation(gate) * the other, half as wide, where the weight is gated;
// its heads normed and rotated then, where these are given. Where there is a stream, stream = stream + output, and
// where there is a norm too, normed = norm(stream); it may lie in the place of the stream or of the output.
// `converted`, where it has words, receives the last of these in `converted_format`.
struct LinearCall {
  std::size_t rows;
  Operand input;
  const Weight* weight;
  Activation activation;
  const HeadNorms* head_norms;  // or null
  const Rotation* rotation;     // or null
  FloatRows output;             // as wide as both of a gated pair
  FloatRows stream;             // or none
  const Norm* norm;             // or null; null without a stream
  FloatRows normed;             // with a norm only
  Operand converted;
  Format converted_format;
};

// What one head adds to its scores, before their scale, by the distance from a query on to a key: columns for -reach to
// reach; farther keys have the last one on their side.
struct RelativeScores {
  std::size_t reach;
  const float* bias;             // [2 * reach + 1], added as it is; or null
  const std::uint32_t* keys;     // panels of the columns, which queries are multiplied with; or null
  const std::uint32_t* queries;  // panels of the columns in reverse, which keys are multiplied with; or null
};

// Rows [count][stride] of keys or of values, `width` words each.
struct KeyRows {
  const std::uint32_t* key;
  const std::uint32_t* value;
  std::size_t stride;  // words
  std::size_t count;
};

// output = softmax(scale * query key^T) value for some heads of one sequence that share its keys; all three operands in
// `format`. A query sees the keys from `before` positions before its own to `after` behind it.
struct AttentionCall {
  Format format;  // fp32, or bf16 with an even dim
  std::size_t dim;
  std::size_t heads;
  std::size_t queries;
  std::size_t first_query;  // position of the first query among the keys
  std::size_t before;       // or kAnyDistance
  std::size_t after;
  const std::uint32_t* query;  // [queries][query_stride], the heads side by side
  std::size_t query_stride;    // words
  KeyRows prefix;              // the first keys, or none
  KeyRows own;                 // those behind them
  float scale;
  const RelativeScores* relative;  // [heads], or null; without a prefix
  FloatRows output;                // the heads side by side; nothing beyond their columns is touched
  std::uint32_t* scratch;          // attention_scratch_words(...), aligned to 64 bytes
};

static constexpr std::size_t num_keys(const AttentionCall& call) { return call.prefix.count + call.own.count; }

// Queries whose scores by distance are made together, and keys that are multiplied with positions at a time.
static constexpr std::size_t kRelativeQueries = 3 * kQueryChunk;
static constexpr std::size_t kRelativeKeys = kPanel;

// Widest rows of products with positions: the distances of a chunk of queries, or of keys, from whole panels on.
static constexpr std::size_t relative_columns(std::size_t keys) {
  return (keys > kRelativeQueries ? keys : kRelativeQueries) + kQueryChunk + 2 * kPanel;
}

static constexpr std::size_t relative_scratch_words(std::size_t keys) {
  return kQueryChunk * padded_stride(relative_columns(keys)) + kRelativeQueries * padded_stride(keys + kRelativeKeys) +
         kRelativeKeys * padded_stride(kRelativeQueries);
}

static constexpr std::size_t attention_scratch_words(Format format, std::size_t dim, std::size_t keys,
                                                     bool is_relative) {
  return round_up(keys, kPanel) * words_for(format, dim) + round_up(dim, kPanel) * words_for(format, keys) +
         kQueryChunk * (padded_stride(keys) + round_up(dim, kPanel)) + (is_relative ? relative_scratch_words(keys) : 0);
}

// Of varlen_attention_forward and _backward, in fp32 values.
static constexpr std::size_t training_scratch_size(const VarlenAttention& call, std::size_t keys) {
  const std::size_t width = round_up(call.dim, kPanel);
  const std::size_t length = round_up(keys, kPanel);
  const std::size_t size = 7 * length * width + kQueryChunk * (3 * width + length) +
                           (2 * kQueryChunk + 1) * padded_stride(keys) + 16 * kPanel;
  if (!is_relative(call.relative)) return size;
  const std::size_t columns = round_up(2 * call.relative.reach + 1, kPanel);
  const std::size_t some = padded_stride(relative_columns(keys));  // columns of a chunk
  return size + 8 * columns * width + columns + relative_scratch_words(keys) + 2 * kQueryChunk * some +
         some * (width + kQueryChunk) + kQueryChunk * width + 16 * kPanel;
}

// output = norm(sum of one row of each table), for each token.
struct EmbeddingCall {
  static constexpr std::size_t kMaxTables = 3;

  std::size_t tokens;
  std::size_t columns;
  std::size_t num_tables;
  const std::int32_t* ids[kMaxTables];  // [tokens]
  const float* tables[kMaxTables];      // [rows][columns]
  const Norm* norm;                     // null: the sum itself
  FloatRows output;
};

// output = norm(input); both may be the same.
struct NormalizeCall {
  std::size_t rows;
  std::size_t columns;
  const Norm* norm;
  FloatRows input;
  FloatRows output;
};

// fp32 rows to an operand of the given format.
struct ConvertCall {
  Format format;
  std::size_t rows;
  std::size_t columns;
  FloatRows input;  // padded with anything finite
  Operand output;
};

// One row of isa_levels.inc, as code.
struct Kernels {
  Format attention_format;  // the fastest one that attention has at this level
  void (*embed)(const EmbeddingCall&);
  void (*normalize)(const NormalizeCall&);
  void (*convert)(const ConvertCall&);
  void (*linear)(const LinearCall&);
  void (*attention)(const AttentionCall&);
  double (*peak)(Format, std::size_t steps);  // for benchmarks: see kernels/peak.inl.h

  // Of training: rows `begin` to before `end`, or a sequence's heads that share one head of its keys. Backward passes
  // add to parameters' gradients.
  void (*norm_forward)(const NormForwardCall&, std::size_t begin, std::size_t end);
  void (*norm_backward)(const NormBackwardCall&, std::size_t begin, std::size_t end, const NormGradients&);
  void (*activate_forward)(const ActivateForwardCall&, std::size_t begin, std::size_t end);
  void (*activate_backward)(const ActivateBackwardCall&, std::size_t begin, std::size_t end,
                            const ActivateGradients& gradients);
  void (*varlen_attention_forward)(const VarlenAttention&, const VarlenForward&, std::size_t sequence,
                                   std::size_t kv_head, float* scratch);
  void (*varlen_attention_backward)(const VarlenAttention&, const VarlenBackward&, std::size_t sequence,
                                    std::size_t kv_head, float* scratch);
  void (*dropout_factors)(const Dropout&, std::size_t row, std::size_t columns, float* factors);
};

#define FASTCE_ISA_LEVEL(name, architecture, features, flags) extern const Kernels kernels_##name;
#include "isa_levels.inc"
#undef FASTCE_ISA_LEVEL

}  // namespace fastce
