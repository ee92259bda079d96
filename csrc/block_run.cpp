#include "block_run.h"

#include <algorithm>
#include <cmath>

#include "parallel.h"

namespace fastce {

namespace {

// Rows that go through a layer's matrix products together: few enough that all that lies between two products stays in
// the L2 cache, and for wide layers, whose weights may come from memory each time, enough to use those well. Multiples
// of the tallest tiles.
std::size_t chunk_rows_for(const EncoderSpec& spec) { return spec.intermediate_size <= 2048 ? 24 : 48; }

}  // namespace

BlockRun::BlockRun(const Encoder& encoder, const Batch& batch, std::size_t num_threads)
    : encoder_(encoder),
      batch_(batch),
      num_threads_(num_threads),
      chunk_rows_(chunk_rows_for(encoder.encoder_)),
      slots_(num_threads) {
  const std::size_t hidden = encoder.encoder_.hidden_size;
  const std::size_t inner = encoder.encoder_.intermediate_size;
  for (Slot& slot : slots_) {
    slot.wide = Rows(chunk_rows_, std::max({inner, 3 * hidden, encoder.encoder_.embedding_size}));
    slot.narrow = Rows(chunk_rows_, std::max(hidden, encoder.head_.num_labels));
    if (encoder.format_ == Format::fp32) continue;
    slot.input = OperandRows(encoder.format_, chunk_rows_, hidden);
    slot.inner = OperandRows(encoder.format_, chunk_rows_, inner);
  }
}

void BlockRun::reserve(std::size_t tokens, std::size_t pairs, std::size_t longest) {
  const EncoderSpec& spec = encoder_.encoder_;
  const std::size_t hidden = spec.hidden_size;
  if (tokens > reserved_tokens_) {
    hidden_ = Rows(tokens, hidden);
    context_ = Rows(tokens, hidden);
    if (encoder_.attention_format_ == Format::fp32) {
      projected_ = Rows(tokens, 3 * hidden);
    } else {
      projected_bf16_ = OperandRows(Format::bf16, tokens, 3 * hidden);
    }
    reserved_tokens_ = tokens;
  }
  if (pairs > reserved_pairs_) {
    first_ = Rows(pairs, hidden);
    first_context_ = Rows(pairs, hidden);
    folded_queries_ = Rows(pairs * spec.num_heads, hidden);
    folded_contexts_ = Rows(pairs * spec.num_heads, hidden);
    reserved_pairs_ = pairs;
  }
  const std::size_t words = std::max(attention_scratch_words(encoder_.attention_format_, spec.head_dim(), longest),
                                     attention_scratch_words(Format::fp32, hidden, longest));
  for (Slot& slot : slots_) {
    if (words <= slot.attention_words) continue;
    slot.attention = AlignedBuffer<std::uint32_t>(words);
    slot.attention_words = words;
  }
}

void BlockRun::run(const Block& block, float* logits) {
  block_ = block;
  const std::size_t pairs = block.end - block.first;
  const std::size_t tokens = start(pairs);
  std::size_t longest = 0;
  for (std::size_t pair = 0; pair < pairs; ++pair) longest = std::max(longest, length(pair));
  reserve(tokens, pairs, longest);

  const std::vector<Layer>& layers = encoder_.layers_;
  const std::size_t heads = encoder_.encoder_.num_heads;
  for_rows(tokens, [&](Slot& slot, std::size_t row, std::size_t rows) {
    embed(slot, row, rows);
    if (layers.size() > 1) project(slot, layers.front(), row, rows);
  });
  for (std::size_t i = 0; i + 1 < layers.size(); ++i) {
    parallel_for(pairs * heads, num_threads_,
                 [&](std::size_t task, std::size_t slot) { attend(slots_[slot], task / heads, task % heads); });
    for_rows(tokens, [&](Slot& slot, std::size_t row, std::size_t rows) {
      finish_layer(slot, layers[i], context_, hidden_, row, rows);
      if (i + 2 < layers.size()) project(slot, layers[i + 1], row, rows);
    });
  }
  for_rows(pairs, [&](Slot& slot, std::size_t pair, std::size_t count) { query_last_layer(slot, pair, count); });
  parallel_for(pairs, num_threads_, [&](std::size_t pair, std::size_t slot) { attend_last_layer(slots_[slot], pair); });
  for_rows(pairs, [&](Slot& slot, std::size_t pair, std::size_t count) {
    classify(slot, pair, count, logits + block_.first * encoder_.head_.num_labels);
  });
}

// Calls step(slot, first row, number of rows) for chunks as equal as can be.
template <class Step>
void BlockRun::for_rows(std::size_t rows, const Step& step) {
  const std::size_t fewest = (rows + chunk_rows_ - 1) / chunk_rows_;
  const std::size_t chunks = std::min(rows, round_up(fewest, num_threads_));
  parallel_for(chunks, num_threads_, [&](std::size_t chunk, std::size_t slot) {
    const std::size_t begin = rows * chunk / chunks;
    step(slots_[slot], begin, rows * (chunk + 1) / chunks - begin);
  });
}

void BlockRun::embed(Slot& slot, std::size_t row, std::size_t rows) {
  const EncoderSpec& spec = encoder_.encoder_;
  const bool has_projection = spec.embedding_size != spec.hidden_size;
  const std::size_t token = static_cast<std::size_t>(batch_.cu_seqlens[block_.first]) + row;
  const Rows& target = has_projection ? slot.wide : hidden_;
  const std::size_t target_row = has_projection ? 0 : row;
  EmbeddingCall call{};
  call.tokens = rows;
  call.columns = spec.embedding_size;
  call.num_tables = encoder_.tables_.size();
  std::copy(encoder_.tables_.begin(), encoder_.tables_.end(), call.tables);
  call.ids[0] = batch_.input_ids + token;
  call.ids[1] = batch_.position_ids + token;
  call.ids[2] = batch_.token_type_ids + token;
  call.norm = encoder_.embedding_norm_;
  call.output = target.row(target_row);
  call.output_stride = target.stride();
  encoder_.kernels_.embed(call);
  if (has_projection) {
    LinearCall projection{};
    projection.rows = rows;
    projection.input = slot.wide.operand(0);
    projection.weight = &encoder_.embedding_projection_.weight();
    projection.output = hidden_.row(row);
    projection.output_stride = hidden_.stride();
    encoder_.kernels_.linear(projection);
  }
}

// Rows as the operand of a layer's product: themselves in fp32, else a converted copy in the slot.
Operand BlockRun::convert(Slot& slot, const Rows& rows, std::size_t row, std::size_t count) {
  if (encoder_.format_ == Format::fp32) return rows.operand(row);
  const Operand output = slot.input.operand(0);
  const std::size_t hidden = encoder_.encoder_.hidden_size;
  encoder_.kernels_.convert({encoder_.format_, count, hidden, rows.row(row), rows.stride(), output});
  return output;
}

// Query, key and value of some rows of hidden_.
void BlockRun::project(Slot& slot, const Layer& layer, std::size_t row, std::size_t rows) {
  LinearCall call{};
  call.rows = rows;
  call.input = convert(slot, hidden_, row, rows);
  call.weight = &layer.projection.weight();
  if (encoder_.attention_format_ == Format::fp32) {
    call.output = projected_.row(row);
    call.output_stride = projected_.stride();
  } else {
    call.output = slot.wide.row(0);
    call.output_stride = slot.wide.stride();
    call.converted = projected_bf16_.operand(row);
    call.converted_format = Format::bf16;
  }
  encoder_.kernels_.linear(call);
}

// All of a layer after the attention, for some rows: hidden = LayerNorm(hidden + W context), then the same with the
// feed-forward network.
void BlockRun::finish_layer(Slot& slot, const Layer& layer, const Rows& context, const Rows& hidden, std::size_t row,
                            std::size_t rows) {
  const bool is_fp32 = encoder_.format_ == Format::fp32;
  LinearCall call{};
  call.rows = rows;
  call.converted_format = encoder_.format_;

  call.input = convert(slot, context, row, rows);
  call.weight = &layer.attention_output.weight();
  call.output = slot.narrow.row(0);
  call.output_stride = slot.narrow.stride();
  call.residual = hidden.row(row);
  call.residual_stride = hidden.stride();
  call.norm = &layer.attention_norm;
  call.converted = is_fp32 ? Operand{} : slot.input.operand(0);
  encoder_.kernels_.linear(call);

  LinearCall inner = call;
  inner.input = is_fp32 ? hidden.operand(row) : slot.input.operand(0);
  inner.weight = &layer.intermediate.weight();
  inner.activation = encoder_.encoder_.activation;
  inner.output = slot.wide.row(0);
  inner.output_stride = slot.wide.stride();
  inner.residual = nullptr;
  inner.norm = nullptr;
  inner.converted = is_fp32 ? Operand{} : slot.inner.operand(0);
  encoder_.kernels_.linear(inner);

  call.input = is_fp32 ? slot.wide.operand(0) : slot.inner.operand(0);
  call.weight = &layer.output.weight();
  call.norm = &layer.output_norm;
  call.converted = Operand{};
  encoder_.kernels_.linear(call);
}

void BlockRun::attend(Slot& slot, std::size_t pair, std::size_t head) {
  const EncoderSpec& spec = encoder_.encoder_;
  const Format format = encoder_.attention_format_;
  const Operand projected =
      format == Format::fp32 ? projected_.operand(start(pair)) : projected_bf16_.operand(start(pair));
  const std::size_t third = words_for(format, spec.hidden_size);
  AttentionCall call{};
  call.format = format;
  call.dim = spec.head_dim();
  call.queries = call.keys = length(pair);
  call.query = projected.words + head * words_for(format, call.dim);
  call.key = call.query + third;
  call.value = call.key + third;
  call.query_stride = call.key_stride = projected.stride;
  call.scale = 1.0f / std::sqrt(static_cast<float>(call.dim));
  call.output = context_.row(start(pair)) + head * call.dim;
  call.output_stride = context_.stride();
  call.scratch = slot.attention.data();
  encoder_.kernels_.attention(call);
}

// First tokens of some pairs, their queries, and those times each head's key projection.
void BlockRun::query_last_layer(Slot& slot, std::size_t pair, std::size_t pairs) {
  const EncoderSpec& spec = encoder_.encoder_;
  for (std::size_t i = pair; i < pair + pairs; ++i) {
    std::copy_n(hidden_.row(start(i)), hidden_.stride(), first_.row(i));
  }
  LinearCall call{};
  call.rows = pairs;
  call.input = convert(slot, first_, pair, pairs);
  call.weight = &encoder_.layers_.back().projection.weight();
  call.output = slot.narrow.row(0);
  call.output_stride = slot.narrow.stride();
  encoder_.kernels_.linear(call);
  for (std::size_t head = 0; head < spec.num_heads; ++head) {
    call.input = slot.narrow.operand(0);
    call.input.words += head * spec.head_dim();
    call.weight = &encoder_.last_keys_[head].weight();
    call.output = folded_queries_.row(pair * spec.num_heads + head);
    call.output_stride = spec.num_heads * folded_queries_.stride();
    encoder_.kernels_.linear(call);
  }
}

// The first token's attention over the hidden states themselves, a query for each head.
void BlockRun::attend_last_layer(Slot& slot, std::size_t pair) {
  const EncoderSpec& spec = encoder_.encoder_;
  const Operand queries = folded_queries_.operand(pair * spec.num_heads);
  const Operand hidden = hidden_.operand(start(pair));
  AttentionCall call{};
  call.format = Format::fp32;
  call.dim = spec.hidden_size;
  call.queries = spec.num_heads;
  call.keys = length(pair);
  call.query = queries.words;
  call.query_stride = queries.stride;
  call.key = call.value = hidden.words;
  call.key_stride = hidden.stride;
  call.scale = 1.0f / std::sqrt(static_cast<float>(spec.head_dim()));
  call.output = folded_contexts_.row(pair * spec.num_heads);
  call.output_stride = folded_contexts_.stride();
  call.scratch = slot.attention.data();
  encoder_.kernels_.attention(call);
}

// The rest of the last layer for some pairs' first tokens, and the head. `logits` starts with the block's first pair.
void BlockRun::classify(Slot& slot, std::size_t pair, std::size_t pairs, float* logits) {
  const EncoderSpec& spec = encoder_.encoder_;
  const std::size_t dim = spec.head_dim();
  LinearCall call{};
  call.rows = pairs;
  call.output = slot.narrow.row(0);
  call.output_stride = slot.narrow.stride();
  for (std::size_t head = 0; head < spec.num_heads; ++head) {
    call.input = folded_contexts_.operand(pair * spec.num_heads + head);
    call.input.stride *= spec.num_heads;
    call.weight = &encoder_.last_values_[head].weight();
    encoder_.kernels_.linear(call);
    for (std::size_t i = 0; i < pairs; ++i) {
      std::copy_n(slot.narrow.row(i), dim, first_context_.row(pair + i) + head * dim);
    }
  }
  finish_layer(slot, encoder_.layers_.back(), first_context_, first_, pair, pairs);
  call.input = first_.operand(pair);
  call.weight = &encoder_.head_dense_.weight();
  call.activation = encoder_.head_.activation;
  call.output = slot.wide.row(0);
  call.output_stride = slot.wide.stride();
  encoder_.kernels_.linear(call);
  call.input = slot.wide.operand(0);
  call.weight = &encoder_.head_output_.weight();
  call.activation = Activation::none;
  call.output = slot.narrow.row(0);
  call.output_stride = slot.narrow.stride();
  encoder_.kernels_.linear(call);
  const std::size_t labels = encoder_.head_.num_labels;
  for (std::size_t i = 0; i < pairs; ++i) std::copy_n(slot.narrow.row(i), labels, logits + (pair + i) * labels);
}

std::size_t BlockRun::start(std::size_t pair) const {
  return static_cast<std::size_t>(batch_.cu_seqlens[block_.first + pair] - batch_.cu_seqlens[block_.first]);
}

std::size_t BlockRun::length(std::size_t pair) const { return start(pair + 1) - start(pair); }

}  // namespace fastce
