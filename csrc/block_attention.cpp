// The three ways that attention is computed in a block: for every row, for the pooled one, and for that one folded.
#include <algorithm>

#include "block_run.h"
#include "parallel.h"

namespace fastce {

// Of every row: what the attention needs of it.
void BlockRun::project(Slot& slot, const AttentionPart& part, Operand input, std::size_t row, std::size_t rows) {
  const std::int32_t* positions = positions_.data() + row;
  if (const auto* all = std::get_if<AllRows>(&part.rows)) {
    project(slot, part, *all->projection, {part.heads, part.kv_heads}, positions, input, projected_, row, rows);
  } else if (const auto* pooled = std::get_if<PooledRow>(&part.rows)) {
    project(slot, part, *pooled->key_value, {0, part.kv_heads}, positions, input, projected_, row, rows);
  }
}

// A projection that begins with heads of queries and of keys, which are normed and turn with their positions where the
// attention says so.
void BlockRun::project(Slot& slot, const AttentionPart& part, const PackedLinear& linear, Heads heads,
                       const std::int32_t* positions, Operand input, const Projected& output, std::size_t row,
                       std::size_t rows) {
  const bool is_fp32 = part.format == Format::fp32;
  LinearCall call = call_for(linear, rows, input, is_fp32 ? output.fp32.from(row) : slot.wide.from(0));
  HeadNorms norms;
  if (part.norms) {
    norms = {heads.queries, heads.keys, part.head_dim, &part.norms->query, &part.norms->key};
    call.head_norms = &norms;
  }
  Rotation rotation;
  if (part.rotary) {
    rotation = rotaries_[*part.rotary].rotation(heads.queries + heads.keys, part.head_dim, positions);
    call.rotation = &rotation;
  }
  if (!is_fp32) {
    call.converted = output.bf16.operand(row);
    call.converted_format = Format::bf16;
  }
  plan_.kernels.linear(call);
}

// Heads that share their keys, of one sequence.
AttentionCall BlockRun::call_for(const AttentionPart& part, std::size_t sublayer, std::size_t pair,
                                 HeadGroup group) const {
  const std::size_t width = words_for(part.format, part.head_dim);
  const auto rows_of = [&](Operand rows, std::size_t count) {
    const std::uint32_t* keys = rows.words + group.first / (part.heads / part.kv_heads) * width;
    return KeyRows{keys, keys + part.kv_heads * width, rows.stride, count};
  };
  const std::size_t before = prefix_length(pair);
  AttentionCall call{};
  call.format = part.format;
  call.dim = part.head_dim;
  call.heads = group.count;
  call.before = part.before;
  call.after = part.after;
  if (before > 0) call.prefix = rows_of(prefixes_.operand(sublayer, batch_.prefix_start(block_.first + pair)), before);
  call.own = rows_of(keys_of(part, start(pair)), length(pair));
  call.scale = part.scale;
  if (part.relative != nullptr) call.relative = part.relative->heads.data() + group.first;
  return call;
}

// Projected keys, then values, of the rows from `row` on.
Operand BlockRun::keys_of(const AttentionPart& part, std::size_t row) const {
  Operand rows = projected_.operand(part.format, row);
  if (!part.is_pooled()) rows.words += part.heads * words_for(part.format, part.head_dim);
  return rows;
}

void BlockRun::keep_keys(const AttentionPart& part, std::size_t sublayer) {
  const std::size_t words = 2 * part.kv_heads * words_for(part.format, part.head_dim);
  for_rows(start(block_.end - block_.first), [&](Slot&, std::size_t row, std::size_t rows) {
    const Operand from = keys_of(part, row);
    const Operand to = prefixes_.operand(sublayer, batch_.start(block_.first) + row);
    for (std::size_t i = 0; i < rows; ++i) std::copy_n(from.words + i * from.stride, words, to.words + i * to.stride);
  });
}

// Calls attend(pair, heads that share their keys, slot) for all heads; where there are fewer such groups than threads,
// for each head by itself.
template <class Attend>
void BlockRun::for_heads(const AttentionPart& part, const Attend& attend) {
  const std::size_t pairs = block_.end - block_.first;
  const std::size_t size = pairs * part.kv_heads < num_threads_ ? 1 : part.heads / part.kv_heads;
  const std::size_t groups = part.heads / size;
  parallel_for(pairs * groups, num_threads_, [&](std::size_t task, std::size_t slot) {
    attend(task / groups, HeadGroup{task % groups * size, size}, slots_[slot]);
  });
}

void BlockRun::attend(const AllRows&, const AttentionPart& part, std::size_t sublayer) {
  for_heads(part, [&](std::size_t pair, HeadGroup group, Slot& slot) {
    const Operand projected = projected_.operand(part.format, start(pair));
    AttentionCall call = call_for(part, sublayer, pair, group);
    call.queries = length(pair);
    call.first_query = prefix_length(pair);
    call.query = projected.words + group.first * words_for(part.format, part.head_dim);
    call.query_stride = projected.stride;
    call.output = {context_.row(start(pair)) + group.first * part.head_dim, context_.stride()};
    call.scratch = slot.attention.data();
    plan_.kernels.attention(call);
  });
}

void BlockRun::attend(const PooledRow& rows, const AttentionPart& part, std::size_t sublayer) {
  for_rows(block_.end - block_.first, [&](Slot& slot, std::size_t pair, std::size_t count) {
    const Operand input = gather_pooled(slot, sublayer, pair, count);
    project(slot, part, *rows.query, {part.heads, 0}, pooled_positions_.data() + pair, input, pooled_query_, pair,
            count);
  });
  for_heads(part, [&](std::size_t pair, HeadGroup group, Slot& slot) {
    const Operand query = pooled_query_.operand(part.format, pair);
    AttentionCall call = call_for(part, sublayer, pair, group);
    call.queries = 1;
    call.first_query = static_cast<std::size_t>(pooled_positions_[pair]);
    call.query = query.words + group.first * words_for(part.format, part.head_dim);
    call.query_stride = query.stride;
    call.output = {pooled_context_.row(pair) + group.first * part.head_dim, pooled_context_.stride()};
    call.scratch = slot.attention.data();
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
    call.heads = 1;
    call.queries = part.heads;
    call.before = call.after = kAnyDistance;
    call.query = folded_queries_.operand(pair * part.heads).words;
    call.query_stride = folded_queries_.stride();
    const std::uint32_t* keys = read.operand(start(pair)).words;
    call.own = {keys, keys, read.stride(), length(pair)};
    call.scale = part.scale;
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
    const std::size_t row = pooled_row(i);
    std::copy_n(tokens_.rows.row(row), tokens_.rows.stride(), pooled_.rows.row(i));
    if (&read == &pooled_.normed) std::copy_n(tokens_.normed.row(row), tokens_.normed.stride(), read.row(i));
  }
  return convert(slot, read.from(pair), plan_.hidden_size, pairs);
}

}  // namespace fastce
