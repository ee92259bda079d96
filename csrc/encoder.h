// The whole network over a packed batch: the inference of the backend `cpp`.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "kernels.h"
#include "packed_linear.h"

namespace fastce {

// The same fields as fastce/spec.py, as far as inference needs them.
struct EncoderSpec {
  std::size_t num_layers;
  std::size_t num_heads;
  std::size_t hidden_size;
  std::size_t intermediate_size;
  std::size_t embedding_size;
  std::size_t vocab_size;
  std::size_t max_positions;
  std::size_t token_types;
  Activation activation;
  float layer_norm_eps;

  std::size_t head_dim() const { return hidden_size / num_heads; }
};

struct HeadSpec {
  std::size_t num_labels;
  Activation activation;
};

// An fp32 parameter [rows][columns], contiguous; a vector has one row.
struct Parameter {
  const float* data;
  std::size_t rows;
  std::size_t columns;
};

// Parameters by fastce's own names, such as "layers.0.query.weight".
using Parameters = std::map<std::string, Parameter>;

// Sequences end to end, as fastce/packing.py lays them.
struct Batch {
  std::size_t num_pairs;
  const std::int32_t* input_ids;       // [total_tokens]
  const std::int32_t* token_type_ids;  // [total_tokens]
  const std::int32_t* position_ids;    // [total_tokens]
  const std::int32_t* cu_seqlens;      // [num_pairs + 1], from 0, strictly increasing
};

struct Layer {
  PackedLinear projection;  // query, key and value side by side; the query alone in the last layer
  PackedLinear attention_output;
  PackedLinear intermediate;
  PackedLinear output;
  Norm attention_norm;
  Norm output_norm;
};

class BlockRun;

// Immutable once built: any number of threads may call logits() at once.
class Encoder {
 public:
  // Packs the layers' weights in `format`; the embedding tables are used where they are and must outlive the encoder.
  // Throws std::invalid_argument for a missing parameter or one of another shape.
  Encoder(const EncoderSpec& encoder, const HeadSpec& head, const Parameters& parameters, Format format,
          const Kernels& kernels);

  // Writes logits [num_pairs][num_labels]. A pair's are the same, bit for bit, whatever else is in the batch and
  // however many threads there are. Throws std::invalid_argument for an empty sequence, or an id that has no row in its
  // table.
  void logits(const Batch& batch, std::size_t num_threads, float* logits) const;

 private:
  friend class BlockRun;

  Norm norm(const Parameters& parameters, const std::string& name, std::size_t size);
  void check(const Batch& batch) const;

  EncoderSpec encoder_;
  HeadSpec head_;
  Format format_;
  Format attention_format_;
  const Kernels& kernels_;

  std::vector<const float*> tables_;  // word, position and, where the encoder has them, token types
  Norm embedding_norm_;
  PackedLinear embedding_projection_;  // where the embeddings have another width
  std::vector<Layer> layers_;
  // The last layer attends with one query a head and sequence, so the key and value projections move to that query's
  // side: score_j = (key_weight^T query) . hidden_j (the key bias changes all scores alike), context = value_weight
  // (sum_j p_j hidden_j) + value_bias. One of each a head.
  std::vector<PackedLinear> last_keys_;
  std::vector<PackedLinear> last_values_;
  PackedLinear head_dense_;
  PackedLinear head_output_;
  std::vector<AlignedBuffer<float>> norms_;
};

}  // namespace fastce
