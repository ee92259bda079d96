#include "training.h"

#include <algorithm>
#include <initializer_list>

#include "aligned_buffer.h"

namespace fastce {

namespace {

// Calls step(block, first row, row behind the last) for blocks of kGradientRows rows.
template <class Step>
void for_blocks(const Workers& workers, std::size_t rows, const Step& step) {
  parallel_for((rows + kGradientRows - 1) / kGradientRows, workers.num_threads, workers.openmp,
               [&](std::size_t block, std::size_t) {
                 const std::size_t begin = block * kGradientRows;
                 step(block, begin, std::min(rows, begin + kGradientRows));
               });
}

// Runs step(first row, row behind the last, sums of the block [size]) on all blocks, and adds the blocks' sums in
// order.
template <class Step>
void sum_over_blocks(const Workers& workers, std::size_t rows, std::size_t size, float* totals, const Step& step) {
  const std::size_t blocks = (rows + kGradientRows - 1) / kGradientRows;
  const auto sums = AlignedBuffer<float>::zeros(blocks * size);
  for_blocks(workers, rows, [&](std::size_t block, std::size_t begin, std::size_t end) {
    step(begin, end, sums.data() + block * size);
  });
  std::fill_n(totals, size, 0.0f);
  for (std::size_t block = 0; block < blocks; ++block) {
    for (std::size_t j = 0; j < size; ++j) totals[j] += sums[block * size + j];
  }
}

// Takes apart sums of several parameters' gradients, `columns` each; null leaves one out.
void copy_sums(const std::vector<float>& sums, std::size_t columns, std::initializer_list<float*> gradients) {
  const float* from = sums.data();
  for (float* gradient : gradients) {
    if (gradient != nullptr) std::copy_n(from, columns, gradient);
    from += columns;
  }
}

// Runs step(sequence, head of its keys, scratch) for all of these, the scratch large enough for the longest sequence;
// one sequence after the other where they add to the same gradients.
template <class Step>
void for_heads(const Workers& workers, const VarlenAttention& call, std::size_t sequences, bool in_order,
               const Step& step) {
  std::int32_t longest = 0;
  for (std::size_t i = 0; i < sequences; ++i) longest = std::max(longest, call.cu_keys[i + 1] - call.cu_keys[i]);
  const std::size_t size = training_scratch_size(call, static_cast<std::size_t>(longest));
  std::vector<AlignedBuffer<float>> scratch(workers.num_threads);
  const auto run = [&](std::size_t sequence, std::size_t kv_head, std::size_t slot) {
    if (scratch[slot].data() == nullptr) scratch[slot] = AlignedBuffer<float>(size);
    step(sequence, kv_head, scratch[slot].data());
  };
  if (in_order) {
    parallel_for(call.kv_heads, workers.num_threads, workers.openmp, [&](std::size_t kv_head, std::size_t slot) {
      for (std::size_t sequence = 0; sequence < sequences; ++sequence) run(sequence, kv_head, slot);
    });
  } else {
    parallel_for(sequences * call.kv_heads, workers.num_threads, workers.openmp,
                 [&](std::size_t task, std::size_t slot) { run(task / call.kv_heads, task % call.kv_heads, slot); });
  }
}

}  // namespace

void norm_forward(const Workers& workers, const NormForwardCall& call, std::size_t rows) {
  for_blocks(workers, rows,
             [&](std::size_t, std::size_t begin, std::size_t end) { workers.kernels.norm_forward(call, begin, end); });
}

void norm_backward(const Workers& workers, const NormBackwardCall& call, std::size_t rows,
                   const NormGradients& gradients) {
  const std::size_t columns = call.columns;
  std::vector<float> totals(3 * columns);
  sum_over_blocks(workers, rows, totals.size(), totals.data(), [&](std::size_t begin, std::size_t end, float* sums) {
    workers.kernels.norm_backward(call, begin, end, {sums, sums + columns, sums + 2 * columns});
  });
  copy_sums(totals, columns, {gradients.weight, gradients.norm_bias, gradients.bias});
}

void activate_forward(const Workers& workers, const ActivateForwardCall& call, std::size_t rows) {
  for_blocks(workers, rows, [&](std::size_t, std::size_t begin, std::size_t end) {
    workers.kernels.activate_forward(call, begin, end);
  });
}

void activate_backward(const Workers& workers, const ActivateBackwardCall& call, std::size_t rows,
                       const ActivateGradients& gradients) {
  const std::size_t columns = call.columns;
  std::vector<float> totals(2 * columns);
  sum_over_blocks(workers, rows, totals.size(), totals.data(), [&](std::size_t begin, std::size_t end, float* sums) {
    workers.kernels.activate_backward(call, begin, end, {sums, sums + columns});
  });
  copy_sums(totals, columns, {gradients.bias, gradients.factor_bias});
}

void varlen_attention_forward(const Workers& workers, const VarlenAttention& call, const VarlenForward& results,
                              std::size_t sequences) {
  for_heads(workers, call, sequences, false, [&](std::size_t sequence, std::size_t kv_head, float* scratch) {
    workers.kernels.varlen_attention_forward(call, results, sequence, kv_head, scratch);
  });
}

void varlen_attention_backward(const Workers& workers, const VarlenAttention& call, const VarlenBackward& tensors,
                               std::size_t sequences) {
  const bool in_order = is_relative(call.relative);
  for_heads(workers, call, sequences, in_order, [&](std::size_t sequence, std::size_t kv_head, float* scratch) {
    workers.kernels.varlen_attention_backward(call, tensors, sequence, kv_head, scratch);
  });
}

void embedding_forward(const Workers& workers, const std::vector<Lookup<const float>>& lookups, std::size_t tokens,
                       std::size_t columns, float* sums) {
  for_blocks(workers, tokens, [&](std::size_t, std::size_t begin, std::size_t end) {
    for (std::size_t token = begin; token < end; ++token) {
      float* sum = sums + token * columns;
      std::fill_n(sum, columns, 0.0f);
      for (const auto& lookup : lookups) {
        const float* row = lookup.table + static_cast<std::size_t>(lookup.ids[token]) * columns;
        for (std::size_t j = 0; j < columns; ++j) sum[j] += row[j];
      }
    }
  });
}

// Threads share the columns: many tokens have the same row.
void embedding_backward(const Workers& workers, const std::vector<Lookup<float>>& lookups, std::size_t tokens,
                        std::size_t columns, const float* gradient) {
  constexpr std::size_t kColumns = 64;
  parallel_for((columns + kColumns - 1) / kColumns, workers.num_threads, workers.openmp,
               [&](std::size_t part, std::size_t) {
                 const std::size_t begin = part * kColumns;
                 const std::size_t end = std::min(columns, begin + kColumns);
                 for (const auto& lookup : lookups) {
                   for (std::size_t token = 0; token < tokens; ++token) {
                     float* row = lookup.table + static_cast<std::size_t>(lookup.ids[token]) * columns;
                     const float* added = gradient + token * columns;
                     for (std::size_t j = begin; j < end; ++j) row[j] += added[j];
                   }
                 }
               });
}

}  // namespace fastce
