// Rotary position embedding of single rows (https://arxiv.org/abs/2104.09864).
#pragma once

#include "kernels.h"

namespace fastce {
namespace {

// Turns one head's elements i and i + pairs by the angle i; a direction of -1 turns them back.
inline void rotate_head(std::size_t pairs, const float* cosines, const float* sines, float direction, float* values) {
  float* first = values;
  float* second = values + pairs;
  for (std::size_t i = 0; i < pairs; i += kLanes) {
    const std::size_t count = pairs - i < kLanes ? pairs - i : kLanes;
    const bool is_whole = count == kLanes;
    const auto read = [&](const float* from) { return is_whole ? load(from + i) : load_first(from + i, count); };
    const auto write = [&](float* to, Vec x) { is_whole ? store(to + i, x) : store_first(to + i, x, count); };
    const Vec cosine = read(cosines), sine = read(sines) * broadcast(direction), x = read(first), y = read(second);
    write(first, x * cosine - y * sine);
    write(second, y * cosine + x * sine);
  }
}

inline void rotate_row(const Rotation& rotation, std::size_t row, float* values) {
  const std::size_t first = static_cast<std::size_t>(rotation.positions[row]) * rotation.pairs;
  for (std::size_t head = 0; head < rotation.heads; ++head) {
    rotate_head(rotation.pairs, rotation.cosines + first, rotation.sines + first, 1.0f, values + head * rotation.dim);
  }
}

}  // namespace
}  // namespace fastce
