// Elementary functions on vectors. Errors are absolute and were measured against float64 over all of the range.
// maximum(a, b) and minimum(a, b) are b where one of them is not a number, hence the order of their operands.
#pragma once

#include "kernels.h"

namespace fastce {
namespace {

// 2^x for x >= -126.5 and below 127; below that down to -127 it is 0. Relative error 1.5e-7.
inline Vec exp2(Vec x) {
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the lowest bits, from where it becomes an exponent.
  const Vec shift = broadcast(12582912.0f);
  const Vec shifted = x + shift;
  const Vec fraction = x - (shifted - shift);  // in [-0.5, 0.5]
  Vec p = broadcast(0.00132764713f);           // minimax for 2^x
  p = multiply_add(p, fraction, broadcast(0.00967554096f));
  p = multiply_add(p, fraction, broadcast(0.0555071309f));
  p = multiply_add(p, fraction, broadcast(0.240221202f));
  p = multiply_add(p, fraction, broadcast(0.693146944f));
  p = multiply_add(p, fraction, broadcast(1.0f));
  return p * from_bits(shift_left<23>(bits_of(shifted) + broadcast(127)));
}

// 1 / (1 + e^-x)
inline Vec sigmoid(Vec x) {
  const Vec exponent = broadcast(-1.44269504f) * maximum(broadcast(-80.0f), minimum(broadcast(80.0f), x));
  return broadcast(1.0f) / (broadcast(1.0f) + exp2(exponent));
}

// Phi(-t), the normal distribution's tail, negated, for t in [0, 5.8): in each of 16 equal intervals the minimax
// polynomial (weighted by t) of the distance from the interval's centre, in intervals. kTail[k] are the coefficients of
// degree k.
constexpr float kTail[6][16] = {
    {-0.428085685f, -0.293306768f, -0.182401776f, -0.10226512f, -0.0514187887f, -0.0230896901f, -0.00923024397f,
     -0.00327645568f, -0.00103066768f, -0.000286853174f, -7.05450148e-05f, -1.53137971e-05f, -2.93180756e-06f,
     -4.94669166e-07f, -7.35128509e-08f, -9.61753877e-09f},
    {0.142260522f, 0.124742776f, 0.0959129855f, 0.0646651685f, 0.0382291265f, 0.0198175218f, 0.0090081431f,
     0.00359047693f, 0.0012548737f, 0.000384573155f, 0.000103344879f, 2.43517516e-05f, 5.03156161e-06f, 9.11605639e-07f,
     1.44824838e-07f, 2.01749e-08f},
    {-0.00467341021f, -0.0122937467f, -0.015754262f, -0.0148704248f, -0.0113030635f, -0.00716150878f, -0.00384717318f,
     -0.00176930486f, -0.00070080586f, -0.000240027861f, -7.12862311e-05f, -1.83953653e-05f, -4.13073303e-06f,
     -8.08101504e-07f, -1.37853988e-07f, -2.05211492e-08f},
    {-0.00301297219f, -0.00192404329f, -0.000375350501f, 0.000863479218f, 0.00139062211f, 0.00129122438f,
     0.00089804281f, 0.000502614654f, 0.000233448882f, 9.14647826e-05f, 3.05263602e-05f, 8.73432782e-06f,
     2.15197406e-06f, 4.58022242e-07f, 8.44146584e-08f, 1.34968081e-08f},
    {0.000150800886f, 0.0003614421f, 0.000373771414f, 0.000225990094f, 4.28744315e-05f, -7.53158238e-05f,
     -0.000106836203f, -8.49481512e-05f, -4.9964925e-05f, -2.34472845e-05f, -9.07126378e-06f, -2.94462666e-06f,
     -8.10641779e-07f, -1.90606841e-07f, -3.84693735e-08f, -6.68866207e-09f},
    {5.60542976e-05f, 2.28835816e-05f, -1.73132375e-05f, -3.7554757e-05f, -3.21569787e-05f, -1.43747766e-05f,
     5.84640361e-07f, 6.79146524e-06f, 6.50307902e-06f, 4.01241596e-06f, 1.88221122e-06f, 7.10183997e-07f,
     2.21424756e-07f, 5.79313415e-08f, 1.28432376e-08f, 2.42887599e-09f},
};

constexpr float kTailEnd = 5.796375f;

// -Phi(-t) for t in [0, kTailEnd]. Error 3e-9 / max(t, 0.05).
inline Vec normal_tail(Vec t) {
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the lowest bits.
  const Vec shift = broadcast(12582912.0f);
  const Vec position = multiply_add(t, broadcast(2.7586207f), broadcast(-0.5f));
  const Vec shifted = position + shift;
  const Vec distance = position - (shifted - shift);
  const IntVec interval = bits_of(shifted);
  Vec p = look_up(kTail[5], interval);
  for (int k = 4; k >= 0; --k) p = multiply_add(p, distance, look_up(kTail[k], interval));
  return p;
}

// x * Phi(x) = max(x, 0) - t Phi(-t) for t = |x|. Error 3e-8, for positive x that of rounding the result.
inline Vec gelu(Vec x) {
  const Vec t = minimum(absolute(x), broadcast(kTailEnd));
  return multiply_add(normal_tail(t), t, maximum(broadcast(0.0f), x));
}

// x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
inline Vec gelu_tanh(Vec x) {
  const Vec cubed = multiply_add(x * x * x, broadcast(0.044715f), x);
  return x * sigmoid(broadcast(1.59576912f) * cubed);
}

inline Vec silu(Vec x) { return x * sigmoid(x); }

// Error 1.2e-7.
inline Vec tanh(Vec x) { return multiply_add(broadcast(2.0f), sigmoid(broadcast(2.0f) * x), broadcast(-1.0f)); }

template <Activation activation>
inline Vec activate(Vec x) {
  if constexpr (activation == Activation::gelu) return gelu(x);
  if constexpr (activation == Activation::gelu_tanh) return gelu_tanh(x);
  if constexpr (activation == Activation::relu) return maximum(broadcast(0.0f), x);
  if constexpr (activation == Activation::silu) return silu(x);
  if constexpr (activation == Activation::tanh) return tanh(x);
  return x;
}

}  // namespace
}  // namespace fastce
