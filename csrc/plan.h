// A program with its weights, packed for the kernels.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "aligned_buffer.h"
#include "packed_linear.h"
#include "parameters.h"
#include "program.h"
#include "relative.h"

namespace fastce {

// Sequences end to end, as fastce/packing.py lays them: first those that others begin with, then the pairs.
struct Batch {
  std::size_t num_prefixes;
  std::size_t num_pairs;
  const std::int32_t* input_ids;       // [total_tokens]
  const std::int32_t* token_type_ids;  // [total_tokens]
  const std::int32_t* position_ids;    // [total_tokens]
  const std::int32_t* cu_seqlens;      // [num_prefixes + num_pairs + 1], from 0, strictly increasing
  const std::int32_t* prefixes;        // [num_pairs]: which one comes before a pair's own tokens, or -1; null: none

  std::size_t start(std::size_t sequence) const { return static_cast<std::size_t>(cu_seqlens[sequence]); }
  std::size_t length(std::size_t sequence) const { return start(sequence + 1) - start(sequence); }

  // The tokens that come before a sequence's own, and the row of the first of them.
  std::size_t prefix_length(std::size_t sequence) const {
    return has_prefix(sequence) ? length(prefix_of(sequence)) : 0;
  }
  std::size_t prefix_start(std::size_t sequence) const { return has_prefix(sequence) ? start(prefix_of(sequence)) : 0; }

 private:
  bool has_prefix(std::size_t sequence) const {
    return prefixes != nullptr && sequence >= num_prefixes && prefixes[sequence - num_prefixes] >= 0;
  }
  std::size_t prefix_of(std::size_t sequence) const {
    return static_cast<std::size_t>(prefixes[sequence - num_prefixes]);
  }
};

// An embedding table, and the ids that choose its rows.
struct Table {
  const char* ids_name;
  const std::int32_t* Batch::* ids;
  const float* data;
  std::size_t rows;
};

// Where the normed rows of an AddNorm go, which the next sublayer reads.
enum class Normed {
  stream,   // they are the stream; without a norm, the stream is what is read
  kept,     // rows of their own, since more than the next product reads them
  passing,  // nowhere: the next product alone reads them
};

struct End {
  std::optional<Norm> norm;
  Normed normed;
  bool is_operand;  // whether the next product reads them in the model's format
};

// Norms of the heads of queries and keys.
struct QueryKeyNorms {
  Norm query;
  Norm key;
};

// Attention of every row: query, key and value side by side.
struct AllRows {
  const PackedLinear* projection;
};

// Attention of the pooled row alone: its query, and key and value of all.
struct PooledRow {
  const PackedLinear* query;
  const PackedLinear* key_value;
};

// The same where a query sees all keys and positions play no part: with one query a head and sequence, the key and
// value projections move to that query's side: score_j = (key_weight^T query) . x_j (the key bias changes all scores
// alike), context = value_weight (sum_j p_j x_j) + value_bias. One of each a key head.
struct FoldedRow {
  const PackedLinear* query;
  std::vector<const PackedLinear*> keys;
  std::vector<const PackedLinear*> values;
};

using AttendedRows = std::variant<AllRows, PooledRow, FoldedRow>;

struct AttentionPart {
  std::size_t heads;
  std::size_t kv_heads;
  std::size_t head_dim;
  Format format;       // of its own products
  std::size_t before;  // a query sees keys from so many positions before its own, or kAnyDistance,
  std::size_t after;   // to so many behind it
  float scale;
  std::optional<QueryKeyNorms> norms;
  std::optional<std::size_t> rotary;  // of the plan
  const RelativePart* relative;       // or null
  AttendedRows rows;
  const PackedLinear* output;

  bool is_pooled() const { return !std::holds_alternative<AllRows>(rows); }
};

struct FeedForwardPart {
  std::size_t size;
  Activation activation;
  const PackedLinear* up;  // with the gate, where there is one
  const PackedLinear* down;
};

struct Sublayer {
  std::variant<AttentionPart, FeedForwardPart> part;
  End end;
};

struct DensePart {
  const PackedLinear* linear;
  Activation activation;
};

using HeadPart = std::variant<DensePart, Norm>;

// The widest rows of each kind, 0 where there are none.
struct Widths {
  std::size_t product = 0;         // sums of one product, the head's aside
  std::size_t inner = 0;           // inside a feed-forward network
  std::size_t context = 0;         // all heads of an attention
  std::size_t projected_fp32 = 0;  // queries, keys and values
  std::size_t projected_bf16 = 0;
  std::size_t normed = 0;  // Normed::kept
  std::size_t head = 0;    // sums of one product of the head
  std::size_t folded = 0;  // a query that is folded
  std::size_t folded_heads = 0;
};

struct Plan {
  // Packs the layers' weights in `format`, those of steps with one name once; the embedding tables are used where they
  // are and must outlive the plan. Throws std::invalid_argument for a parameter that is missing, of another shape or
  // not of the program, and for attention behind the one that leaves but one row.
  Plan(const program::Program& program, const Parameters& parameters, Format format, const Kernels& kernels);

  Plan(const Plan&) = delete;  // it refers to itself

  Format format;
  Format attention_format;  // of attention's own products, where heads are even
  const Kernels& kernels;
  std::size_t hidden_size;
  std::size_t embedding_size = 0;
  std::vector<Table> tables;
  std::optional<Norm> embedding_norm;
  const PackedLinear* embedding_projection = nullptr;  // or null
  End first{};
  std::vector<Sublayer> sublayers;
  program::Pooling pooling{};
  std::vector<HeadPart> head;
  std::size_t num_labels = 0;
  std::vector<program::RotaryEmbedding> rotaries;  // each once
  bool shares_prefixes = true;                     // whether rows depend on none behind them, and the last is pooled
  std::size_t shared_bytes = 0;                    // of the keys and values of a token in all attentions
  Widths widths;

  // What all of these refer to.
  std::map<std::string, PackedLinear> linears;
  std::map<std::string, RelativePart> relatives;
  std::vector<AlignedBuffer<float>> vectors;
};

}  // namespace fastce
