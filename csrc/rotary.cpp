#include "rotary.h"

#include <cmath>

namespace fastce {

RotaryTable::RotaryTable(const program::RotaryEmbedding& rotary, std::size_t positions)
    : pairs_(rotary.frequencies.size()), cosines_(positions * pairs_), sines_(positions * pairs_) {
  for (std::size_t position = 0; position < positions; ++position) {
    for (std::size_t i = 0; i < pairs_; ++i) {
      const float angle = static_cast<float>(position) * rotary.frequencies[i];  // rounded, as transformers does
      cosines_[position * pairs_ + i] = std::cos(angle) * rotary.scale;
      sines_[position * pairs_ + i] = std::sin(angle) * rotary.scale;
    }
  }
}

}  // namespace fastce
