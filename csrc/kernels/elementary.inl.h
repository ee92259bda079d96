// Elementary functions on vectors. Errors are absolute and were measured against float64 over all of the range.
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
  const Vec exponent = broadcast(-1.44269504f) * maximum(minimum(x, broadcast(80.0f)), broadcast(-80.0f));
  return broadcast(1.0f) / (broadcast(1.0f) + exp2(exponent));
}

// x * Phi(x) = max(x, 0) - |x| Phi(-|x|), where log2 of Phi(-t), the normal distribution's tail, is smooth enough for
// one minimax polynomial. Error 5e-8.
inline Vec gelu(Vec x) {
  const Vec size = absolute(x);
  const Vec t = minimum(size, broadcast(8.0f));
  Vec p = broadcast(-2.27586838e-06f);
  p = multiply_add(p, t, broadcast(3.29679715e-05f));
  p = multiply_add(p, t, broadcast(-0.00015727854f));
  p = multiply_add(p, t, broadcast(-0.000202479598f));
  p = multiply_add(p, t, broadcast(0.00714278268f));
  p = multiply_add(p, t, broadcast(-0.0525464378f));
  p = multiply_add(p, t, broadcast(-0.459193051f));
  p = multiply_add(p, t, broadcast(-1.15110695f));
  p = multiply_add(p, t, broadcast(-0.99999994f));
  return maximum(x, broadcast(0.0f)) - size * exp2(p);
}

// x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
inline Vec gelu_tanh(Vec x) {
  const Vec cubed = multiply_add(x * x * x, broadcast(0.044715f), x);
  return x * sigmoid(broadcast(1.59576912f) * cubed);
}

// Error 1.2e-7.
inline Vec tanh(Vec x) { return multiply_add(broadcast(2.0f), sigmoid(broadcast(2.0f) * x), broadcast(-1.0f)); }

template <Activation activation>
inline Vec activate(Vec x) {
  if constexpr (activation == Activation::gelu) return gelu(x);
  if constexpr (activation == Activation::gelu_tanh) return gelu_tanh(x);
  if constexpr (activation == Activation::relu) return maximum(x, broadcast(0.0f));
  if constexpr (activation == Activation::tanh) return tanh(x);
  return x;
}

}  // namespace
}  // namespace fastce
