// Sums of embedding rows, normalized.
#pragma once

#include "kernels.h"
#include "kernels/norm.inl.h"

namespace fastce {
namespace {

void embed(const EmbeddingCall& call) {
  for (std::size_t token = 0; token < call.tokens; ++token) {
    const float* rows[EmbeddingCall::kMaxTables];
    for (std::size_t table = 0; table < call.num_tables; ++table) {
      rows[table] = call.tables[table] + static_cast<std::size_t>(call.ids[table][token]) * call.columns;
    }
    float* output = call.output.data + token * call.output.stride;
    Vec sums = broadcast(0.0f);
    for (std::size_t j = 0; j < call.columns; j += kLanes) {
      const std::size_t count = call.columns - j;
      Vec sum = broadcast(0.0f);
      for (std::size_t table = 0; table < call.num_tables; ++table) {
        sum = sum + (count < kLanes ? load_first(rows[table] + j, count) : load(rows[table] + j));
      }
      store(output + j, sum);
      sums = sums + sum;
    }
    if (call.norm != nullptr) normalize_row(call.columns, output, reduce_sum(sums), *call.norm, output);
  }
}

}  // namespace
}  // namespace fastce
