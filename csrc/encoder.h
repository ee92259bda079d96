// The whole network over a packed batch: the inference of the backend `cpp`.
#pragma once

#include "plan.h"

namespace fastce {

// Immutable once built: any number of threads may call logits() at once.
class Encoder {
 public:
  // See Plan.
  Encoder(const program::Program& program, const Parameters& parameters, Format format, const Kernels& kernels)
      : plan_(program, parameters, format, kernels) {}

  std::size_t num_labels() const { return plan_.num_labels; }

  // What a token takes as a part of a prefix; 0 where batches can't have prefixes.
  std::size_t shared_bytes() const { return plan_.shares_prefixes ? plan_.shared_bytes : 0; }

  // Writes logits [num_pairs][num_labels]. A pair's are the same, bit for bit, whatever else is in the batch and
  // however many threads there are. Throws std::invalid_argument for an empty sequence, an id that has no row in its
  // table, or prefixes that there can't be.
  void logits(const Batch& batch, std::size_t num_threads, float* logits) const;

 private:
  void check(const Batch& batch) const;

  Plan plan_;
};

}  // namespace fastce
