// Rows of fp32 and bf16 values without padding, and dropout.
#pragma once

#include "kernels.h"
#include "kernels/convert.inl.h"

namespace fastce {
namespace {

inline Vec load_values(const float* from, std::size_t count) {
  return count >= kLanes ? load(from) : load_first(from, count);
}
inline Vec load_values(const std::uint16_t* from, std::size_t count) {
  std::uint16_t part[kLanes] = {};
  if (count < kLanes) {
    __builtin_memcpy(part, from, count * sizeof(*from));
    from = part;
  }
  return from_bits(shift_left<16>(load_low16(from)));
}

inline void store_values(float* to, Vec x, std::size_t count) {
  count >= kLanes ? store(to, x) : store_first(to, x, count);
}
inline void store_values(std::uint16_t* to, Vec x, std::size_t count) {
  if (count >= kLanes) return store_bf16(to, x);
  std::uint16_t part[kLanes];
  store_bf16(part, x);
  __builtin_memcpy(to, part, count * sizeof(*to));
}

inline void add_to(float* sums, Vec x, std::size_t count) { store_values(sums, load_values(sums, count) + x, count); }

// Elements of a vector that there may not be.
inline Vec load_bias(const float* bias, std::size_t column, std::size_t count) {
  return bias == nullptr ? broadcast(0.0f) : load_values(bias + column, count);
}

template <class Void>
struct ValueTypes {
  using Float = float;
  using BFloat16 = std::uint16_t;
};
template <>
struct ValueTypes<const void> {
  using Float = const float;
  using BFloat16 = const std::uint16_t;
};

// Calls body(pointer to the values) with the pointer's type that the format asks for.
template <class Void, class Body>
inline void with_type(const ValueRows<Void>& values, const Body& body) {
  if (values.is_bf16) {
    body(static_cast<typename ValueTypes<Void>::BFloat16*>(values.data));
  } else {
    body(static_cast<typename ValueTypes<Void>::Float*>(values.data));
  }
}

// A row of values that are known to be T; null where there are none.
template <class T>
inline const T* row_of(const Values& values, std::size_t row) {
  return values.data == nullptr ? nullptr : static_cast<const T*>(values.data) + row * values.stride;
}
template <class T>
inline T* row_of(const MutableValues& values, std::size_t row) {
  return values.data == nullptr ? nullptr : static_cast<T*>(values.data) + row * values.stride;
}

// The low-bias integer hash of https://nullprogram.com/blog/2018/07/31/
template <class Word>
inline Word mix(Word x, Word first, Word second) {
  x = x ^ shift_right<16>(x);
  x = x * first;
  x = x ^ shift_right<15>(x);
  x = x * second;
  return x ^ shift_right<16>(x);
}

struct Scalar {
  std::uint32_t v;
};
inline Scalar operator^(Scalar a, Scalar b) { return {a.v ^ b.v}; }
inline Scalar operator*(Scalar a, Scalar b) { return {a.v * b.v}; }
template <int bits>
inline Scalar shift_right(Scalar x) {
  return {x.v >> bits};
}

constexpr std::uint32_t kFirst = 0x7feb352dU;
constexpr std::uint32_t kSecond = 0x846ca68bU;
constexpr std::uint32_t kStep = 0x9e3779b9U;

inline std::uint32_t mix(std::uint32_t x) { return mix<Scalar>({x}, {kFirst}, {kSecond}).v; }

// What dropout multiplies a row's elements by.
class DropoutRow {
 public:
  DropoutRow(const Dropout& dropout, std::size_t row)
      : is_active_(dropout.probability > 0.0f),
        key_(mix(mix(static_cast<std::uint32_t>(dropout.seed) + static_cast<std::uint32_t>(row) * kStep) ^
                 static_cast<std::uint32_t>(dropout.seed >> 32))),
        threshold_(broadcast(dropout.probability)),
        scale_(broadcast(1.0f / (1.0f - dropout.probability))) {}

  bool is_active() const { return is_active_; }

  // Of the elements from `column` on; `column` is a multiple of kLanes.
  Vec factors(std::size_t column) const {
    std::int32_t steps[kLanes];
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      steps[lane] = static_cast<std::int32_t>(static_cast<std::uint32_t>(lane) * kStep);
    }
    const IntVec counter =
        load(steps) + broadcast(static_cast<std::int32_t>(key_ + static_cast<std::uint32_t>(column) * kStep));
    const IntVec bits = mix<IntVec>(counter, broadcast(static_cast<std::int32_t>(kFirst)),
                                    broadcast(static_cast<std::int32_t>(kSecond)));
    const Vec uniform = to_float(shift_right<8>(bits)) * broadcast(0x1p-24f);  // in [0, 1)
    return keep_at_least(uniform, threshold_, scale_);
  }

  Vec apply(Vec x, std::size_t column) const { return is_active_ ? x * factors(column) : x; }

 private:
  bool is_active_;
  std::uint32_t key_;
  Vec threshold_;
  Vec scale_;
};

void dropout_factors(const Dropout& dropout, std::size_t row, std::size_t columns, float* factors) {
  const DropoutRow mask(dropout, row);
  for (std::size_t j = 0; j < columns; j += kLanes) {
    store_values(factors + j, mask.is_active() ? mask.factors(j) : broadcast(1.0f), columns - j);
  }
}

}  // namespace
}  // namespace fastce
