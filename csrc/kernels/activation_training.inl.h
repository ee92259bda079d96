// Bias, activation and, in gated layers (https://arxiv.org/abs/2002.05202), what the activation multiplies; and their
// gradients.
#pragma once

#include "kernels/elementary.inl.h"
#include "kernels/values.inl.h"

namespace fastce {
namespace {

// d/dx x Phi(x) = Phi(x) + x phi(x)
inline Vec gelu_slope(Vec x) {
  const Vec tail = normal_tail(minimum(absolute(x), broadcast(kTailEnd)));  // -Phi(-|x|)
  const Vec below = keep_at_least(x, broadcast(0.0f), broadcast(1.0f) + tail + tail) - tail;
  const Vec exponent = maximum(x * x * broadcast(-0.72134752f), broadcast(-126.0f));  // -x^2 / 2 for base 2
  return multiply_add(x, exp2(exponent) * broadcast(0.398942280f), below);
}

inline Vec clamp(Vec x, float size) { return maximum(broadcast(-size), minimum(broadcast(size), x)); }

struct Sigmoid {
  Vec value;
  Vec slope;  // value (1 - value), exact where 1 - value is tiny
};

inline Sigmoid sigmoid_with_slope(Vec x) {
  const Vec power = exp2(broadcast(-1.44269504f) * clamp(x, 80.0f));
  const Vec value = broadcast(1.0f) / (broadcast(1.0f) + power);
  return {value, power * value * value};
}

// d/dx x sigmoid(u(x))
inline Vec swish_slope(Vec x, Vec u, Vec u_slope) {
  const Sigmoid sigmoid = sigmoid_with_slope(u);
  return multiply_add(x * u_slope, sigmoid.slope, sigmoid.value);
}

// x/2 (1 + tanh(u/2)) = x sigmoid(u) for u = 2 sqrt(2/pi) (x + 0.044715 x^3), whose slope is flat beyond 10.
inline Vec gelu_tanh_slope(Vec x) {
  const Vec t = clamp(x, 10.0f);
  const Vec square = t * t;
  const Vec u = t * multiply_add(square, broadcast(0.0713548162f), broadcast(1.59576912f));
  return swish_slope(t, u, multiply_add(square, broadcast(0.214064449f), broadcast(1.59576912f)));
}

inline Vec silu_slope(Vec x) {
  const Vec t = clamp(x, 80.0f);
  return swish_slope(t, t, broadcast(1.0f));
}

inline Vec tanh_slope(Vec x) { return broadcast(4.0f) * sigmoid_with_slope(broadcast(2.0f) * x).slope; }

template <Activation activation>
inline Vec activation_slope(Vec x) {
  if constexpr (activation == Activation::gelu) return gelu_slope(x);
  if constexpr (activation == Activation::gelu_tanh) return gelu_tanh_slope(x);
  if constexpr (activation == Activation::relu)
    return broadcast(1.0f) - keep_at_least(broadcast(0.0f), x, broadcast(1.0f));
  if constexpr (activation == Activation::silu) return silu_slope(x);
  if constexpr (activation == Activation::tanh) return tanh_slope(x);
  return broadcast(1.0f);
}

template <Activation activation, class T>
inline void activate_rows(const ActivateForwardCall& call, const T* x, std::size_t begin, std::size_t end) {
  const std::size_t columns = call.columns;
  const float* bias = call.bias;
  const float* factor_bias = call.factor_bias;
  for (std::size_t row = begin; row < end; ++row) {
    const T* inputs = x + row * call.x.stride;
    const T* factors = row_of<T>(call.factor, row);
    T* outputs = row_of<T>(call.output, row);
    for (std::size_t j = 0; j < columns; j += kLanes) {
      const std::size_t count = columns - j;
      Vec result = activate<activation>(load_values(inputs + j, count) + load_bias(bias, j, count));
      if (factors != nullptr) {
        result = result * (load_values(factors + j, count) + load_bias(factor_bias, j, count));
      }
      store_values(outputs + j, result, count);
    }
  }
}

template <Activation activation, class T>
inline void activate_rows_backward(const ActivateBackwardCall& call, const T* x, std::size_t begin, std::size_t end,
                                   const ActivateGradients& gradients) {
  const std::size_t columns = call.columns;
  const float* bias = call.bias;
  const float* factor_bias = call.factor_bias;
  for (std::size_t row = begin; row < end; ++row) {
    const T* inputs = x + row * call.x.stride;
    const T* factors = row_of<T>(call.factor, row);
    const T* output_gradient = row_of<T>(call.output_gradient, row);
    T* x_gradient = row_of<T>(call.x_gradient, row);
    T* factor_gradient = row_of<T>(call.factor_gradient, row);
    for (std::size_t j = 0; j < columns; j += kLanes) {
      const std::size_t count = columns - j;
      const Vec sum = load_values(inputs + j, count) + load_bias(bias, j, count);
      Vec gradient = load_values(output_gradient + j, count);
      if (factors != nullptr) {
        const Vec of_factor = gradient * activate<activation>(sum);
        store_values(factor_gradient + j, of_factor, count);
        add_to(gradients.factor_bias + j, of_factor, count);
        gradient = gradient * (load_values(factors + j, count) + load_bias(factor_bias, j, count));
      }
      gradient = gradient * activation_slope<activation>(sum);
      store_values(x_gradient + j, gradient, count);
      add_to(gradients.bias + j, gradient, count);
    }
  }
}

template <Activation value>
struct ActivationConstant {
  static constexpr Activation activation = value;
};

// Calls body with the activation as a constant.
template <class Body>
inline void with_activation(Activation activation, const Body& body) {
  switch (activation) {
    case Activation::none:
      return body(ActivationConstant<Activation::none>{});
    case Activation::gelu:
      return body(ActivationConstant<Activation::gelu>{});
    case Activation::gelu_tanh:
      return body(ActivationConstant<Activation::gelu_tanh>{});
    case Activation::relu:
      return body(ActivationConstant<Activation::relu>{});
    case Activation::silu:
      return body(ActivationConstant<Activation::silu>{});
    case Activation::tanh:
      return body(ActivationConstant<Activation::tanh>{});
  }
}

void activate_forward(const ActivateForwardCall& call, std::size_t begin, std::size_t end) {
  with_activation(call.activation, [&](auto constant) {
    with_type(call.x, [&](const auto* x) { activate_rows<decltype(constant)::activation>(call, x, begin, end); });
  });
}

void activate_backward(const ActivateBackwardCall& call, std::size_t begin, std::size_t end,
                       const ActivateGradients& gradients) {
  with_activation(call.activation, [&](auto constant) {
    with_type(call.x, [&](const auto* x) {
      activate_rows_backward<decltype(constant)::activation>(call, x, begin, end, gradients);
    });
  });
}

}  // namespace
}  // namespace fastce
