#include "encoder.h"

#include <algorithm>
#include <functional>
#include <stdexcept>

#include "block_run.h"
#include "parallel.h"

namespace fastce {

namespace {

// A thread works through all layers on about this many tokens, so that they stay in its L2 cache.
constexpr std::size_t kBlockTokens = 256;

const Parameter& find(const Parameters& parameters, const std::string& name, std::size_t rows, std::size_t columns) {
  const auto found = parameters.find(name);
  if (found == parameters.end()) throw std::invalid_argument("parameter '" + name + "' is missing");
  const Parameter& parameter = found->second;
  if (parameter.rows != rows || parameter.columns != columns) {
    throw std::invalid_argument("parameter '" + name + "': expected shape [" + std::to_string(rows) + ", " +
                                std::to_string(columns) + "], got [" + std::to_string(parameter.rows) + ", " +
                                std::to_string(parameter.columns) + "]");
  }
  return parameter;
}

LinearParameters linear(const Parameters& parameters, const std::string& name, std::size_t out, std::size_t in) {
  const float* weight = find(parameters, name + ".weight", out, in).data;
  return {{weight, out, in, in, 1}, find(parameters, name + ".bias", 1, out).data};
}

// Whole sequences of about the wanted number of tokens; smaller blocks towards the end, so that threads end together.
std::vector<Block> make_blocks(const Batch& batch, std::size_t num_threads) {
  std::vector<Block> blocks;
  const auto total = static_cast<std::size_t>(batch.cu_seqlens[batch.num_pairs]);
  for (std::size_t first = 0; first < batch.num_pairs;) {
    const auto start = static_cast<std::size_t>(batch.cu_seqlens[first]);
    const std::size_t wanted = std::min(kBlockTokens, (total - start) / (2 * num_threads));
    std::size_t end = first + 1;
    while (end < batch.num_pairs && static_cast<std::size_t>(batch.cu_seqlens[end + 1]) - start <= wanted) ++end;
    blocks.push_back({first, end});
    first = end;
  }
  return blocks;
}

// Whether blocks are so few, and so ill divided by the threads, that these do better to share one block and meet after
// each of its steps, which keeps them busy for more than 90% of the time.
bool leaves_threads_idle(std::size_t num_blocks, std::size_t num_threads) {
  if (num_threads == 1 || num_blocks >= 4 * num_threads) return false;
  const std::size_t rounds = (num_blocks + num_threads - 1) / num_threads;
  return 10 * num_blocks < 9 * rounds * num_threads;
}

}  // namespace

Encoder::Encoder(const EncoderSpec& encoder, const HeadSpec& head, const Parameters& parameters, Format format,
                 const Kernels& kernels)
    : encoder_(encoder), head_(head), format_(format), kernels_(kernels), layers_(encoder.num_layers) {
  const std::size_t hidden = encoder.hidden_size;
  const std::size_t width = encoder.embedding_size;
  const std::size_t head_dim = encoder.head_dim();
  attention_format_ = format == Format::fp32 || head_dim % 2 != 0 ? Format::fp32 : kernels.attention_format;

  tables_.push_back(find(parameters, "embeddings.word.weight", encoder.vocab_size, width).data);
  tables_.push_back(find(parameters, "embeddings.position.weight", encoder.max_positions, width).data);
  if (encoder.token_types != 0) {
    tables_.push_back(find(parameters, "embeddings.token_type.weight", encoder.token_types, width).data);
  }
  embedding_norm_ = norm(parameters, "embeddings.norm", width);

  std::vector<std::function<void()>> packings;  // each makes one PackedLinear
  const auto pack = [&](PackedLinear& target, Format target_format, std::vector<LinearParameters> parts) {
    packings.push_back([&target, target_format, parts] { target = PackedLinear(target_format, parts); });
  };
  if (width != hidden) {
    pack(embedding_projection_, Format::fp32, {linear(parameters, "embeddings.projection", hidden, width)});
  }
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const std::string name = "layers." + std::to_string(i);
    const LinearParameters query = linear(parameters, name + ".query", hidden, hidden);
    const LinearParameters key = linear(parameters, name + ".key", hidden, hidden);
    const LinearParameters value = linear(parameters, name + ".value", hidden, hidden);
    const std::size_t inner = encoder.intermediate_size;
    Layer& layer = layers_[i];
    if (i + 1 < layers_.size()) {
      pack(layer.projection, format, {query, key, value});
    } else {
      pack(layer.projection, format, {query});
      last_keys_.resize(encoder.num_heads);
      last_values_.resize(encoder.num_heads);
      for (std::size_t h = 0; h < encoder.num_heads; ++h) {
        const float* key_rows = key.weight.data + h * head_dim * hidden;
        const float* value_rows = value.weight.data + h * head_dim * hidden;
        pack(last_keys_[h], Format::fp32, {{{key_rows, hidden, head_dim, 1, hidden}, nullptr}});
        pack(last_values_[h], Format::fp32, {{{value_rows, head_dim, hidden, hidden, 1}, value.bias + h * head_dim}});
      }
    }
    pack(layer.attention_output, format, {linear(parameters, name + ".attention_output", hidden, hidden)});
    pack(layer.intermediate, format, {linear(parameters, name + ".intermediate", inner, hidden)});
    pack(layer.output, format, {linear(parameters, name + ".output", hidden, inner)});
    layer.attention_norm = norm(parameters, name + ".attention_norm", hidden);
    layer.output_norm = norm(parameters, name + ".output_norm", hidden);
  }
  pack(head_dense_, Format::fp32, {linear(parameters, "head.dense", hidden, hidden)});
  pack(head_output_, Format::fp32, {linear(parameters, "head.output", head.num_labels, hidden)});
  parallel_for(packings.size(), default_num_threads(), [&](std::size_t i, std::size_t) { packings[i](); });
}

Norm Encoder::norm(const Parameters& parameters, const std::string& name, std::size_t size) {
  const auto keep = [&](const std::string& part) {
    const float* values = find(parameters, name + part, 1, size).data;
    norms_.push_back(AlignedBuffer<float>::zeros(round_up(size, kPanel)));
    std::copy_n(values, size, norms_.back().data());
    return norms_.back().data();
  };
  const float* weight = keep(".weight");
  const float* bias = keep(".bias");
  return {weight, bias, encoder_.layer_norm_eps};
}

void Encoder::check(const Batch& batch) const {
  for (std::size_t i = 0; i < batch.num_pairs; ++i) {
    if (batch.cu_seqlens[i + 1] <= batch.cu_seqlens[i]) {
      throw std::invalid_argument("sequence " + std::to_string(i) + " has no tokens");
    }
  }
  const auto total = static_cast<std::size_t>(batch.cu_seqlens[batch.num_pairs]);
  const auto check_ids = [total](const char* name, const std::int32_t* ids, std::size_t rows) {
    for (std::size_t i = 0; i < total; ++i) {
      if (ids[i] < 0 || static_cast<std::size_t>(ids[i]) >= rows) {
        throw std::invalid_argument(std::string(name) + ": " + std::to_string(ids[i]) + " is not below " +
                                    std::to_string(rows));
      }
    }
  };
  check_ids("input_ids", batch.input_ids, encoder_.vocab_size);
  check_ids("position_ids", batch.position_ids, encoder_.max_positions);
  if (encoder_.token_types != 0) check_ids("token_type_ids", batch.token_type_ids, encoder_.token_types);
}

void Encoder::logits(const Batch& batch, std::size_t num_threads, float* logits) const {
  if (batch.num_pairs == 0) return;
  check(batch);
  const std::vector<Block> blocks = make_blocks(batch, num_threads);
  if (leaves_threads_idle(blocks.size(), num_threads)) {
    BlockRun(*this, batch, num_threads).run({0, batch.num_pairs}, logits);
    return;
  }
  std::vector<std::unique_ptr<BlockRun>> runs(std::min(num_threads, blocks.size()));
  parallel_for(blocks.size(), runs.size(), [&](std::size_t i, std::size_t slot) {
    if (runs[slot] == nullptr) runs[slot] = std::make_unique<BlockRun>(*this, batch, 1);
    runs[slot]->run(blocks[i], logits);
  });
}

}  // namespace fastce
