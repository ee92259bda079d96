#include "encoder.h"

#include <algorithm>
#include <memory>
#include <stdexcept>

#include "block_run.h"
#include "parallel.h"

namespace fastce {

namespace {

// A thread works through all layers on about this many tokens, so that they stay in its L2 cache.
constexpr std::size_t kBlockTokens = 256;

// Whole sequences of about the wanted number of tokens; smaller blocks towards the end, so that threads end together.
std::vector<Block> make_blocks(const Batch& batch, Block all, std::size_t num_threads) {
  std::vector<Block> blocks;
  for (std::size_t first = all.first; first < all.end;) {
    const std::size_t start = batch.start(first);
    const std::size_t wanted = std::min(kBlockTokens, (batch.start(all.end) - start) / (2 * num_threads));
    std::size_t end = first + 1;
    while (end < all.end && batch.start(end + 1) - start <= wanted) ++end;
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

// Tables for the longest sequence.
std::vector<RotaryTable> make_tables(const Plan& plan, const Batch& batch) {
  std::size_t longest = 0;
  for (std::size_t i = 0; i < batch.num_prefixes + batch.num_pairs; ++i) {
    longest = std::max(longest, batch.prefix_length(i) + batch.length(i));
  }
  std::vector<RotaryTable> tables;
  for (const program::RotaryEmbedding& rotary : plan.rotaries) {
    tables.emplace_back(rotary, longest);
  }
  return tables;
}

}  // namespace

void Encoder::check(const Batch& batch) const {
  const std::size_t sequences = batch.num_prefixes + batch.num_pairs;
  for (std::size_t i = 0; i < sequences; ++i) {
    if (batch.cu_seqlens[i + 1] <= batch.cu_seqlens[i]) {
      throw std::invalid_argument("sequence " + std::to_string(i) + " has no tokens");
    }
  }
  if (batch.num_prefixes > 0 && !plan_.shares_prefixes) {
    throw std::invalid_argument("prefixes: tokens of this network depend on those behind them");
  }
  for (std::size_t i = 0; batch.prefixes != nullptr && i < batch.num_pairs; ++i) {
    const std::int32_t prefix = batch.prefixes[i];
    if (prefix < -1 || (prefix >= 0 && static_cast<std::size_t>(prefix) >= batch.num_prefixes)) {
      throw std::invalid_argument("prefixes: " + std::to_string(prefix) + " is none of the " +
                                  std::to_string(batch.num_prefixes));
    }
  }
  const std::size_t total = batch.start(sequences);
  for (const Table& table : plan_.tables) {
    const std::int32_t* ids = batch.*table.ids;
    for (std::size_t i = 0; i < total; ++i) {
      if (ids[i] < 0 || static_cast<std::size_t>(ids[i]) >= table.rows) {
        throw std::invalid_argument(std::string(table.ids_name) + ": " + std::to_string(ids[i]) + " is not below " +
                                    std::to_string(table.rows));
      }
    }
  }
}

void Encoder::logits(const Batch& batch, std::size_t num_threads, float* logits) const {
  if (batch.num_pairs == 0) return;
  check(batch);
  const std::vector<RotaryTable> tables = make_tables(plan_, batch);
  const PrefixKeys prefixes(plan_, batch.start(batch.num_prefixes));
  const auto run = [&](Block all) {
    const std::vector<Block> blocks = make_blocks(batch, all, num_threads);
    if (leaves_threads_idle(blocks.size(), num_threads)) {
      BlockRun(plan_, tables, prefixes, batch, num_threads).run(all, logits);
      return;
    }
    std::vector<std::unique_ptr<BlockRun>> runs(std::min(num_threads, blocks.size()));
    parallel_for(blocks.size(), runs.size(), [&](std::size_t i, std::size_t slot) {
      if (runs[slot] == nullptr) runs[slot] = std::make_unique<BlockRun>(plan_, tables, prefixes, batch, 1);
      runs[slot]->run(blocks[i], logits);
    });
  };
  if (batch.num_prefixes > 0) run({0, batch.num_prefixes});
  run({batch.num_prefixes, batch.num_prefixes + batch.num_pairs});
}

}  // namespace fastce
