// The three ways that attention is computed in a block: for every row, for the pooled one, and for that one folded.
#include <algorithm>
#include <cmath>

#include "block_run.h"
#include "parallel.h"

namespace fastce {

// Of every row: what the attention needs of it.
void BlockRun::project(Slot& slot, const AttentionPart& part, Operand input, std::size_t row, std::size_t rows) {
  const std::int32_t* positions = positions_.data() + row;
  if (const auto* all = std::get_if<AllRows>(&part.rows)) {
    project(slot, part, *all->projection, part.heads + part.kv_heads, positions, input, projected_, row, rows);
  } else if (const auto* pooled = std::get_if<PooledRow>(&part.rows)) {
    project(slot, part, *pooled->key_value, part.kv_heads, positions, input, projected_, row, rows);
  }
}

// A projection whose first `heads` heads turn with their positions, where the attention is rotary.
void BlockRun::project(Slot& slot, const AttentionPart& part, const PackedLinear& linear, std::size_t heads,
                       const std::int32_t* positions, Operand input, const Projected& output, std::size_t row,
                       std::size_t rows) {
  const bool is_fp32 = part.format == Format::fp32;
  LinearCall call = call_for(linear, rows, input, is_fp32 ? output.fp32.from(row) : slot.wide.from(0));
  Rotation rotation;
  if (part.rotary) {
    rotation = rotaries_[*part.rotary].rotation(heads, part.head_dim, positions);
    call.rotation = &rotation;
  }
  if (!is_fp32) {
    call.converted = output.bf16.operand(row);
    call.converted_format = Format::bf16;
  }
  plan_.kernels.linear(call);
}

// One head over the keys and values of one sequence, which begin at `first_key_head` of the projected rows.
AttentionCall BlockRun::call_for(const AttentionPart& part, std::size_t pair, std::size_t head,
                                 std::size_t first_key_head) const {
  const Operand projected = projected_.operand(part.format, start(pair));
  const std::size_t width = words_for(part.format, part.head_dim);
  AttentionCall call{};
  call.format = part.format;
  call.dim = part.head_dim;
  call.keys = length(pair);
  call.before = part.before;
  call.after = part.after;
  call.key = projected.words + (first_key_head + head / (part.heads / part.kv_heads)) * width;
  call.value = call.key + part.kv_heads * width;
  call.key_stride = projected.stride;
  call.scale = 1.0f / std::sqrt(static_cast<float>(part.head_dim));
  return call;
}

void BlockRun::attend(const AllRows&, const AttentionPart& part, std::size_t) {
  const std::size_t width = words_for(part.format, part.head_dim);
  parallel_for((block_.end - block_.first) * part.heads, num_threads_, [&](std::size_t task, std::size_t slot) {
    const std::size_t pair = task / part.heads, head = task % part.heads;
    const Operand projected = projected_.operand(part.format, start(pair));
    AttentionCall call = call_for(part, pair, head, part.heads);
    call.queries = call.keys;
    call.query = projected.words + head * width;
    call.query_stride = projected.stride;
    call.output = {context_.row(start(pair)) + head * part.head_dim, context_.stride()};
    call.scratch = slots_[slot].attention.data();
    plan_.kernels.attention(call);
  });
}

void BlockRun::attend(const PooledRow& rows, const AttentionPart& part, std::size_t sublayer) {
  const std::size_t pairs = block_.end - block_.first;
  const std::size_t width = words_for(part.format, part.head_dim);
  for_rows(pairs, [&](Slot& slot, std::size_t pair, std::size_t count) {
    const Operand input = gather_pooled(slot, sublayer, pair, count);
    project(slot, part, *rows.query, part.heads, pooled_positions_.data() + pair, input, pooled_query_, pair, count);
  });
  parallel_for(pairs * part.heads, num_threads_, [&](std::size_t task, std::size_t slot) {
    const std::size_t pair = task / part.heads, head = task % part.heads;
    const Operand query = pooled_query_.operand(part.format, pair);
    AttentionCall call = call_for(part, pair, head, 0);
    call.queries = 1;
    call.first_query = static_cast<std::size_t>(pooled_positions_[pair]);
    call.query = query.words + head * width;
    call.query_stride = query.stride;
    call.output = {pooled_context_.row(pair) + head * part.head_dim, pooled_context_.stride()};
    call.scratch = slots_[slot].attention.data();
    plan_.kernels.attention(call);
  });
}

void BlockRun::attend(const FoldedRow& rows, const AttentionPart& part, std::size_t sublayer) {
  const std::size_t pairs = block_.end - block_.first;
  const std::size_t group = part.heads / part.kv_heads;
  // Their queries, and those times each head's key projection.
  for_rows(pairs, [&](Slot& slot, std::size_t pair, std::size_t count) {
    const Operand input = gather_pooled(slot, sublayer, pair, count);
    plan_.kernels.linear(call_for(*rows.query, count, input, slot.narrow.from(0)));
    for (std::size_t head = 0; head < part.heads; ++head) {
      Operand query = slot.narrow.operand(0);
      query.words += head * part.head_dim;
      const FloatRows output = {folded_queries_.row(pair * part.heads + head), part.heads * folded_queries_.stride()};
      plan_.kernels.linear(call_for(*rows.keys[head / group], count, query, output));
    }
  });
  // Attention over the rows themselves, a query for each head.
  const Rows& read = rows_before(sublayer, tokens_);
  parallel_for(pairs, num_threads_, [&](std::size_t pair, std::size_t slot) {
    AttentionCall call{};
    call.format = Format::fp32;
    call.dim = plan_.hidden_size;
    call.queries = part.heads;
    call.keys = length(pair);
    call.before = call.after = kAnyDistance;
    call.query = folded_queries_.operand(pair * part.heads).words;
    call.query_stride = folded_queries_.stride();
    call.key = call.value = read.operand(start(pair)).words;
    call.key_stride = read.stride();
    call.scale = 1.0f / std::sqrt(static_cast<float>(part.head_dim));
    call.output = folded_contexts_.from(pair * part.heads);
    call.scratch = slots_[slot].attention.data();
    plan_.kernels.attention(call);
  });
  for_rows(pairs, [&](Slot& slot, std::size_t pair, std::size_t count) {
    for (std::size_t head = 0; head < part.heads; ++head) {
      Operand input = folded_contexts_.operand(pair * part.heads + head);
      input.stride *= part.heads;
      plan_.kernels.linear(call_for(*rows.values[head / group], count, input, slot.narrow.from(0)));
      for (std::size_t i = 0; i < count; ++i) {
        std::copy_n(slot.narrow.row(i), part.head_dim, pooled_context_.row(pair + i) + head * part.head_dim);
      }
    }
  });
}

// The rows that the head reads, of some pairs, to pooled_; returns what the attention reads of them.
Operand BlockRun::gather_pooled(Slot& slot, std::size_t sublayer, std::size_t pair, std::size_t pairs) {
  const Rows& read = rows_before(sublayer, pooled_);
  for (std::size_t i = pair; i < pair + pairs; ++i) {
    const std::size_t row = start(i) + static_cast<std::size_t>(pooled_positions_[i]);
    std::copy_n(tokens_.rows.row(row), tokens_.rows.stride(), pooled_.rows.row(i));
    if (&read == &pooled_.normed) std::copy_n(tokens_.normed.row(row), tokens_.normed.stride(), read.row(i));
  }
  return convert(slot, read.from(pair), plan_.hidden_size, pairs);
}

}  // namespace fastce
