// Some sequences of a batch on their way through all layers, and the memory they need.
#pragma once

#include <vector>

#include "encoder.h"
#include "rows.h"

namespace fastce {

// Pairs `first` to before `end` of a batch.
struct Block {
  std::size_t first;
  std::size_t end;
};

// Runs blocks, one after another. With several threads, each step of a block is split among them.
class BlockRun {
 public:
  BlockRun(const Encoder& encoder, const Batch& batch, std::size_t num_threads);

  // Writes the logits of the block's pairs to their places in `logits` [num_pairs][num_labels].
  void run(const Block& block, float* logits);

 private:
  // What one thread needs for some rows at a time.
  struct Slot {
    Rows wide;          // [chunk_rows][max(intermediate_size, 3 hidden_size)]
    Rows narrow;        // [chunk_rows][max(hidden_size, num_labels)]
    OperandRows input;  // [chunk_rows][hidden_size]
    OperandRows inner;  // [chunk_rows][intermediate_size]
    AlignedBuffer<std::uint32_t> attention;
    std::size_t attention_words = 0;
  };

  void reserve(std::size_t tokens, std::size_t pairs, std::size_t longest);
  template <class Step>
  void for_rows(std::size_t rows, const Step& step);
  void embed(Slot& slot, std::size_t row, std::size_t rows);
  Operand convert(Slot& slot, const Rows& rows, std::size_t row, std::size_t count);
  void project(Slot& slot, const Layer& layer, std::size_t row, std::size_t rows);
  void finish_layer(Slot& slot, const Layer& layer, const Rows& context, const Rows& hidden, std::size_t row,
                    std::size_t rows);
  void attend(Slot& slot, std::size_t pair, std::size_t head);
  void query_last_layer(Slot& slot, std::size_t pair, std::size_t pairs);
  void attend_last_layer(Slot& slot, std::size_t pair);
  void classify(Slot& slot, std::size_t pair, std::size_t pairs, float* logits);

  std::size_t start(std::size_t pair) const;   // a pair's first row in the block
  std::size_t length(std::size_t pair) const;  // and its number of rows

  const Encoder& encoder_;
  const Batch& batch_;
  const std::size_t num_threads_;
  const std::size_t chunk_rows_;
  std::vector<Slot> slots_;
  Block block_{};
  std::size_t reserved_tokens_ = 0;
  std::size_t reserved_pairs_ = 0;
  Rows hidden_;                 // [tokens][hidden_size]
  Rows context_;                // [tokens][hidden_size]
  Rows projected_;              // [tokens][3 hidden_size]: query, key, value in fp32
  OperandRows projected_bf16_;  // or in bf16
  Rows first_;                  // [pairs][hidden_size]: first tokens
  Rows first_context_;          // [pairs][hidden_size]
  Rows folded_queries_;         // [pairs * num_heads][hidden_size]
  Rows folded_contexts_;        // [pairs * num_heads][hidden_size]
};

}  // namespace fastce
