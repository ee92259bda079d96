// A network as the list of what is to be computed: the same classes and fields as fastce/steps.py and fastce/spec.py,
// as far as inference needs them.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "kernels.h"

namespace fastce::program {

struct Norm {
  NormKind kind;
  float eps;
  bool has_bias;
};

struct RotaryEmbedding {
  std::vector<float> frequencies;
  float scale;

  bool operator==(const RotaryEmbedding& other) const {
    return frequencies == other.frequencies && scale == other.scale;
  }
};

// A table's row for each distance from a query on to a key, from -n to n; an odd number of them.
using RowsByDistance = std::vector<std::size_t>;

struct RelativeBias {
  std::size_t buckets;
  RowsByDistance rows;
};

struct DisentangledAttention {
  std::size_t span;
  RowsByDistance rows;
  bool has_content_to_position;
  bool has_position_to_content;
  bool has_shared_projections;
  std::optional<Norm> norm;
};

using Relation = std::variant<std::monostate, RotaryEmbedding, RelativeBias, DisentangledAttention>;

struct Attention {
  std::size_t heads;
  std::size_t head_dim;
  std::size_t kv_heads;
  bool has_bias;
  bool has_output_bias;
  Relation relation;
  std::optional<std::size_t> window;
  bool is_causal;
  std::optional<Norm> qk_norm;
};

struct FeedForward {
  std::size_t size;
  Activation activation;
  bool is_gated;
  bool has_bias;
  bool has_output_bias;
};

// The end of a sublayer: its result is added to the stream, and the next one reads the sum normed.
struct AddNorm {
  std::optional<Norm> norm;
  std::string name;
  bool keeps_sum;  // the stream is the sum, not the normed sum
};

struct Attend {
  std::string name;
  Attention attention;
  AddNorm end;
  bool is_pooled;  // only the row that the head reads is asked for
};

struct Feed {
  std::string name;
  FeedForward feed_forward;
  AddNorm end;
};

using Step = std::variant<Attend, Feed>;

struct Embeddings {
  std::size_t vocab_size;
  std::size_t size;
  std::optional<Norm> norm;
  std::size_t token_types;  // 0: none
  std::optional<std::size_t> position_rows;
};

enum class Pooling { first, last, mean };

struct Dense {
  std::size_t size;
  Activation activation;
  bool has_bias;
};

// Dropout is none: it does nothing here.
struct HeadStep {
  std::string name;
  std::variant<Dense, Norm> part;
};

struct Head {
  Pooling pooling;
  std::vector<HeadStep> steps;
};

struct Program {
  std::size_t hidden_size;
  Embeddings embeddings;
  AddNorm first;  // what follows the embeddings
  std::vector<Step> steps;
  Head head;
};

}  // namespace fastce::program
