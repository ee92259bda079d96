// Some sequences of a batch on their way through all layers, and the memory they need.
#pragma once

#include <functional>
#include <vector>

#include "plan.h"
#include "prefix_keys.h"
#include "rotary.h"
#include "rows.h"

namespace fastce {

// Sequences `first` to before `end` of a batch: prefixes, or pairs.
struct Block {
  std::size_t first;
  std::size_t end;
};

// Runs blocks, one after another. With several threads, each step of a block is split among them.
class BlockRun {
 public:
  // `rotaries` has a table for each of the plan's, long enough for the batch; `prefixes` has room for all of its
  // prefixes.
  BlockRun(const Plan& plan, const std::vector<RotaryTable>& rotaries, const PrefixKeys& prefixes, const Batch& batch,
           std::size_t num_threads);

  // Writes the logits of the block's pairs to their places in `logits` [num_pairs][num_labels], or the keys and values
  // of its prefixes, which must have run before the pairs that begin with them.
  void run(const Block& block, float* logits);

 private:
  // What one thread needs for some rows at a time.
  struct Slot {
    Rows wide;          // [chunk_rows][widths.product]
    Rows narrow;        // [chunk_rows][hidden_size]
    Rows head[2];       // [chunk_rows][widths.head]
    OperandRows input;  // [chunk_rows][max(hidden_size, widths.context)]
    OperandRows inner;  // [chunk_rows][widths.inner]
    AlignedBuffer<std::uint32_t> attention;
    std::size_t attention_words = 0;
  };

  // Rows on their way: what the sublayers add to, and the normed rows where they are kept.
  struct Stream {
    Rows rows;    // [rows][hidden_size]
    Rows normed;  // [rows][widths.normed]
  };

  // Queries, keys and values, in the attention's format.
  struct Projected {
    Rows fp32;
    OperandRows bf16;

    Operand operand(Format format, std::size_t row) const {
      return format == Format::fp32 ? fp32.operand(row) : bf16.operand(row);
    }
  };

  // How many heads of each kind a projection begins with.
  struct Heads {
    std::size_t queries;
    std::size_t keys;
  };

  // Neighbouring heads of queries.
  struct HeadGroup {
    std::size_t first;
    std::size_t count;
  };

  using RowsTask = std::function<void(Slot& slot, std::size_t row, std::size_t rows)>;

  void reserve(std::size_t tokens, std::size_t pairs, std::size_t longest);
  void for_rows(std::size_t rows, const RowsTask& task);
  LinearCall call_for(const PackedLinear& linear, std::size_t rows, Operand input, FloatRows output) const;

  // Each returns what the next product reads.
  Operand embed(Slot& slot, std::size_t row, std::size_t rows);
  Operand convert(Slot& slot, FloatRows values, std::size_t columns, std::size_t rows);
  Operand feed(Slot& slot, const FeedForwardPart& part, const End& end, Operand input, const Stream& stream,
               std::size_t row, std::size_t rows);
  Operand add(Slot& slot, const PackedLinear& linear, const End& end, Operand input, const Stream& stream,
              std::size_t row, std::size_t rows);

  void run_to_attention(Slot& slot, std::size_t next, Operand input, const Stream& stream, std::size_t row,
                        std::size_t rows);
  FloatRows normed_rows(const Slot& slot, const End& end, const Stream& stream, std::size_t row) const;
  const Rows& rows_before(std::size_t sublayer, const Stream& stream) const;
  void pool(std::size_t pair, std::size_t pairs);
  void classify(Slot& slot, std::size_t pair, std::size_t pairs, float* logits);

  // In block_attention.cpp: what comes before the product behind the heads, into context_ or pooled_context_.
  void project(Slot& slot, const AttentionPart& part, Operand input, std::size_t row, std::size_t rows);
  void project(Slot& slot, const AttentionPart& part, const PackedLinear& linear, Heads heads,
               const std::int32_t* positions, Operand input, const Projected& output, std::size_t row,
               std::size_t rows);
  void attend(const AllRows& rows, const AttentionPart& part, std::size_t sublayer);
  void attend(const PooledRow& rows, const AttentionPart& part, std::size_t sublayer);
  void attend(const FoldedRow& rows, const AttentionPart& part, std::size_t sublayer);
  Operand gather_pooled(Slot& slot, std::size_t sublayer, std::size_t pair, std::size_t pairs);
  AttentionCall call_for(const AttentionPart& part, std::size_t sublayer, std::size_t pair, HeadGroup group) const;
  template <class Attend>
  void for_heads(const AttentionPart& part, const Attend& attend);

  Operand keys_of(const AttentionPart& part, std::size_t row) const;
  void keep_keys(const AttentionPart& part, std::size_t sublayer);

  std::size_t start(std::size_t pair) const;          // a pair's first row in the block,
  std::size_t length(std::size_t pair) const;         // its number of rows,
  std::size_t prefix_length(std::size_t pair) const;  // the tokens before them,
  std::size_t pooled_row(std::size_t pair) const;     // and the row that the head reads

  const Plan& plan_;
  const std::vector<RotaryTable>& rotaries_;
  const PrefixKeys& prefixes_;
  const Batch& batch_;
  const std::size_t num_threads_;
  const std::size_t chunk_rows_;
  std::vector<Slot> slots_;
  Block block_{};
  std::size_t reserved_tokens_ = 0;
  std::size_t reserved_pairs_ = 0;
  std::vector<std::int32_t> positions_;         // [tokens]: in their sequences
  std::vector<std::int32_t> pooled_positions_;  // [pairs]: of the rows that the head reads
  Stream tokens_;                               // [tokens]
  Rows context_;                                // [tokens][widths.context]
  Projected projected_;                         // [tokens]: query, key, value
  Stream pooled_;                               // [pairs]
  Rows pooled_context_;                         // [pairs][widths.context]
  Projected pooled_query_;                      // [pairs]
  Rows folded_queries_;                         // [pairs * heads][widths.folded]
  Rows folded_contexts_;                        // [pairs * heads][widths.folded]
};

}  // namespace fastce
