#include "block_run.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "parallel.h"

namespace fastce {

namespace {

// Rows that go through a layer's matrix products together: few enough that all that lies between two products stays in
// the L2 cache, and for wide layers, whose weights may come from memory each time, enough to use those well. Multiples
// of the tallest tiles.
std::size_t chunk_rows_for(const Widths& widths) { return widths.inner <= 2048 ? 24 : 48; }

const Norm* pointer_to(const std::optional<Norm>& norm) { return norm ? &*norm : nullptr; }

}  // namespace

BlockRun::BlockRun(const Plan& plan, const std::vector<RotaryTable>& rotaries, const PrefixKeys& prefixes,
                   const Batch& batch, std::size_t num_threads)
    : plan_(plan),
      rotaries_(rotaries),
      prefixes_(prefixes),
      batch_(batch),
      num_threads_(num_threads),
      chunk_rows_(chunk_rows_for(plan.widths)),
      slots_(num_threads) {
  const Widths& widths = plan.widths;
  for (Slot& slot : slots_) {
    slot.wide = Rows(chunk_rows_, widths.product);
    slot.narrow = Rows(chunk_rows_, std::max(plan.hidden_size, widths.context));
    for (Rows& rows : slot.head) rows = Rows(chunk_rows_, widths.head);
    if (plan.format == Format::fp32) continue;
    slot.input = OperandRows(plan.format, chunk_rows_, std::max(plan.hidden_size, widths.context));
    slot.inner = OperandRows(plan.format, chunk_rows_, widths.inner);
  }
}

void BlockRun::reserve(std::size_t tokens, std::size_t pairs, std::size_t longest) {
  const Widths& widths = plan_.widths;
  const auto make_stream = [&](std::size_t rows) {
    return Stream{Rows(rows, plan_.hidden_size), Rows(rows, widths.normed)};
  };
  const auto make_projected = [&](std::size_t rows) {
    return Projected{Rows(rows, widths.projected_fp32), OperandRows(Format::bf16, rows, widths.projected_bf16)};
  };
  if (tokens > reserved_tokens_) {
    tokens_ = make_stream(tokens);
    context_ = Rows(tokens, widths.context);
    projected_ = make_projected(tokens);
    positions_.resize(tokens);
    reserved_tokens_ = tokens;
  }
  if (pairs > reserved_pairs_) {
    pooled_ = make_stream(pairs);
    pooled_context_ = Rows(pairs, widths.context);
    pooled_query_ = make_projected(pairs);
    pooled_positions_.resize(pairs);
    folded_queries_ = Rows(pairs * widths.folded_heads, widths.folded);
    folded_contexts_ = Rows(pairs * widths.folded_heads, widths.folded);
    reserved_pairs_ = pairs;
  }
  std::size_t words = attention_scratch_words(Format::fp32, widths.folded, longest, false);
  for (const Sublayer& sublayer : plan_.sublayers) {
    const auto* part = std::get_if<AttentionPart>(&sublayer.part);
    if (part == nullptr) continue;
    const bool is_relative = part->relative != nullptr;
    words = std::max(words, attention_scratch_words(part->format, part->head_dim, longest, is_relative));
  }
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
  for (std::size_t pair = 0; pair < pairs; ++pair) longest = std::max(longest, prefix_length(pair) + length(pair));
  reserve(tokens, pairs, longest);
  for (std::size_t pair = 0; pair < pairs; ++pair) {
    const std::size_t before = prefix_length(pair);
    std::iota(positions_.begin() + start(pair), positions_.begin() + start(pair + 1), before);
    pooled_positions_[pair] = plan_.pooling == program::Pooling::last ? before + length(pair) - 1 : 0;
  }

  for_rows(tokens, [&](Slot& slot, std::size_t row, std::size_t rows) {
    run_to_attention(slot, 0, embed(slot, row, rows), tokens_, row, rows);
  });
  bool is_pooled = false;
  for (std::size_t i = 0; i < plan_.sublayers.size(); ++i) {
    const auto* part = std::get_if<AttentionPart>(&plan_.sublayers[i].part);
    if (part == nullptr) continue;  // has run with what is before it
    if (block.end <= batch_.num_prefixes) {
      keep_keys(*part, i);
      if (part->is_pooled()) return;  // nobody asks for more of a prefix
    }
    std::visit([&](const auto& rows) { attend(rows, *part, i); }, part->rows);
    is_pooled = part->is_pooled();
    const Stream& stream = is_pooled ? pooled_ : tokens_;
    const Rows& context = is_pooled ? pooled_context_ : context_;
    for_rows(is_pooled ? pairs : tokens, [&](Slot& slot, std::size_t row, std::size_t rows) {
      const Operand input = convert(slot, context.from(row), part->heads * part->head_dim, rows);
      const Operand next = add(slot, *part->output, plan_.sublayers[i].end, input, stream, row, rows);
      run_to_attention(slot, i + 1, next, stream, row, rows);
    });
  }
  for_rows(pairs, [&](Slot& slot, std::size_t pair, std::size_t count) {
    if (!is_pooled) pool(pair, count);
    classify(slot, pair, count, logits + (block_.first - batch_.num_prefixes) * plan_.num_labels);
  });
}

// Runs a task on chunks of rows, as equal as can be.
void BlockRun::for_rows(std::size_t rows, const RowsTask& task) {
  const std::size_t fewest = (rows + chunk_rows_ - 1) / chunk_rows_;
  const std::size_t chunks = std::min(rows, round_up(fewest, num_threads_));
  parallel_for(chunks, num_threads_, [&](std::size_t chunk, std::size_t slot) {
    const std::size_t begin = rows * chunk / chunks;
    task(slots_[slot], begin, rows * (chunk + 1) / chunks - begin);
  });
}

LinearCall BlockRun::call_for(const PackedLinear& linear, std::size_t rows, Operand input, FloatRows output) const {
  LinearCall call{};
  call.rows = rows;
  call.input = input;
  call.weight = &linear.weight();
  call.output = output;
  return call;
}

Operand BlockRun::embed(Slot& slot, std::size_t row, std::size_t rows) {
  const std::size_t token = static_cast<std::size_t>(batch_.cu_seqlens[block_.first]) + row;
  const FloatRows stream = tokens_.rows.from(row);
  const bool has_projection = plan_.embedding_projection != nullptr;
  EmbeddingCall call{};
  call.tokens = rows;
  call.columns = plan_.embedding_size;
  call.num_tables = plan_.tables.size();
  for (std::size_t i = 0; i < call.num_tables; ++i) {
    call.tables[i] = plan_.tables[i].data;
    call.ids[i] = batch_.*plan_.tables[i].ids + token;
  }
  call.norm = pointer_to(plan_.embedding_norm);
  call.output = has_projection ? slot.wide.from(0) : stream;
  plan_.kernels.embed(call);
  if (has_projection) {
    plan_.kernels.linear(call_for(*plan_.embedding_projection, rows, slot.wide.operand(0), stream));
  }
  const FloatRows normed = normed_rows(slot, plan_.first, tokens_, row);
  const Norm* norm = pointer_to(plan_.first.norm);
  if (norm != nullptr) plan_.kernels.normalize({rows, plan_.hidden_size, norm, stream, normed});
  return plan_.first.is_operand ? convert(slot, normed, plan_.hidden_size, rows) : Operand{};
}

// Rows as the operand of a layer's product: themselves in fp32, else a converted copy in the slot.
Operand BlockRun::convert(Slot& slot, FloatRows values, std::size_t columns, std::size_t rows) {
  if (plan_.format == Format::fp32) return operand_of(values);
  const Operand output = slot.input.operand(0);
  plan_.kernels.convert({plan_.format, rows, columns, values, output});
  return output;
}

// Feed-forward networks from sublayer `next` on, up to the next attention, of which it makes the projections.
void BlockRun::run_to_attention(Slot& slot, std::size_t next, Operand input, const Stream& stream, std::size_t row,
                                std::size_t rows) {
  for (; next < plan_.sublayers.size(); ++next) {
    const Sublayer& sublayer = plan_.sublayers[next];
    if (const auto* attention = std::get_if<AttentionPart>(&sublayer.part)) {
      return project(slot, *attention, input, row, rows);
    }
    input = feed(slot, std::get<FeedForwardPart>(sublayer.part), sublayer.end, input, stream, row, rows);
  }
}

Operand BlockRun::feed(Slot& slot, const FeedForwardPart& part, const End& end, Operand input, const Stream& stream,
                       std::size_t row, std::size_t rows) {
  LinearCall call = call_for(*part.up, rows, input, slot.wide.from(0));
  call.activation = part.activation;
  Operand inner = slot.wide.operand(0);
  if (plan_.format != Format::fp32) {
    inner = call.converted = slot.inner.operand(0);
    call.converted_format = plan_.format;
  }
  plan_.kernels.linear(call);
  return add(slot, *part.down, end, inner, stream, row, rows);
}

// The last product of a sublayer, with the end of the sublayer.
Operand BlockRun::add(Slot& slot, const PackedLinear& linear, const End& end, Operand input, const Stream& stream,
                      std::size_t row, std::size_t rows) {
  LinearCall call = call_for(linear, rows, input, slot.narrow.from(0));
  call.stream = stream.rows.from(row);
  call.norm = pointer_to(end.norm);
  call.normed = normed_rows(slot, end, stream, row);
  Operand next = operand_of(call.normed);
  if (plan_.format != Format::fp32 && end.is_operand) {
    next = call.converted = slot.input.operand(0);
    call.converted_format = plan_.format;
  }
  plan_.kernels.linear(call);
  return next;
}

FloatRows BlockRun::normed_rows(const Slot& slot, const End& end, const Stream& stream, std::size_t row) const {
  switch (end.normed) {
    case Normed::kept:
      return stream.normed.from(row);
    case Normed::passing:
      return slot.narrow.from(0);
    case Normed::stream:
      break;
  }
  return stream.rows.from(row);
}

// What a sublayer, or behind the last one the head, reads, where these rows are kept.
const Rows& BlockRun::rows_before(std::size_t sublayer, const Stream& stream) const {
  const End& end = sublayer == 0 ? plan_.first : plan_.sublayers[sublayer - 1].end;
  return end.normed == Normed::kept ? stream.normed : stream.rows;
}

// Rows for the head, where no attention has left but them.
void BlockRun::pool(std::size_t pair, std::size_t pairs) {
  const std::size_t last = plan_.sublayers.size();
  const Rows& from = rows_before(last, tokens_);
  const Rows& to = rows_before(last, pooled_);
  std::vector<double> sums(plan_.hidden_size);
  for (std::size_t i = pair; i < pair + pairs; ++i) {
    const bool is_mean = plan_.pooling == program::Pooling::mean;
    const std::size_t first = is_mean ? start(i) : pooled_row(i);
    const std::size_t count = is_mean ? length(i) : 1;
    std::fill(sums.begin(), sums.end(), 0.0);
    for (std::size_t row = first; row < first + count; ++row) {
      for (std::size_t j = 0; j < sums.size(); ++j) sums[j] += from.row(row)[j];
    }
    for (std::size_t j = 0; j < sums.size(); ++j)
      to.row(i)[j] = static_cast<float>(sums[j] / static_cast<double>(count));
  }
}

// The head. `logits` starts with the block's first pair.
void BlockRun::classify(Slot& slot, std::size_t pair, std::size_t pairs, float* logits) {
  FloatRows input = rows_before(plan_.sublayers.size(), pooled_).from(pair);
  std::size_t width = plan_.hidden_size;
  for (const HeadPart& part : plan_.head) {
    const FloatRows output = slot.head[0].from(0);
    std::swap(slot.head[0], slot.head[1]);  // the next one reads this one's rows
    if (const auto* dense = std::get_if<DensePart>(&part)) {
      LinearCall call = call_for(*dense->linear, pairs, operand_of(input), output);
      call.activation = dense->activation;
      plan_.kernels.linear(call);
      width = dense->linear->weight().columns;
    } else {
      plan_.kernels.normalize({pairs, width, &std::get<Norm>(part), input, output});
    }
    input = output;
  }
  for (std::size_t i = 0; i < pairs; ++i) {
    std::copy_n(input.data + i * input.stride, plan_.num_labels, logits + (pair + i) * plan_.num_labels);
  }
}

std::size_t BlockRun::start(std::size_t pair) const {
  return batch_.start(block_.first + pair) - batch_.start(block_.first);
}

std::size_t BlockRun::length(std::size_t pair) const { return batch_.length(block_.first + pair); }

std::size_t BlockRun::prefix_length(std::size_t pair) const { return batch_.prefix_length(block_.first + pair); }

std::size_t BlockRun::pooled_row(std::size_t pair) const {
  return start(pair) + static_cast<std::size_t>(pooled_positions_[pair]) - prefix_length(pair);
}

}  // namespace fastce
