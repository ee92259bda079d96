// Bias and GELU (https://arxiv.org/abs/1606.08415), and its gradient.
namespace fastce {
namespace {

void gelu_forward(const GeluForwardCall& call, std::size_t begin, std::size_t end) {
  with_type(call.x, [&](const auto* x) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(x)>>;
    for (std::size_t row = begin; row < end; ++row) {
      const T* inputs = x + row * call.x.stride;
      T* outputs = static_cast<T*>(call.output.data) + row * call.output.stride;
      for (std::size_t j = 0; j < call.columns; j += kLanes) {
        const std::size_t count = call.columns - j;
        store_values(outputs + j, gelu(load_values(inputs + j, count) + load_values(call.bias + j, count)), count);
      }
    }
  });
}

// d/dx x Phi(x) = Phi(x) + x phi(x)
inline Vec gelu_slope(Vec x) {
  const Vec tail = normal_tail(minimum(absolute(x), broadcast(kTailEnd)));  // -Phi(-|x|)
  const Vec below = keep_at_least(x, broadcast(0.0f), broadcast(1.0f) + tail + tail) - tail;
  const Vec exponent = maximum(x * x * broadcast(-0.72134752f), broadcast(-126.0f));  // -x^2 / 2 for base 2
  return multiply_add(x, exp2(exponent) * broadcast(0.398942280f), below);
}

void gelu_backward(const GeluBackwardCall& call, std::size_t begin, std::size_t end, float* bias_gradient) {
  with_type(call.x, [&](const auto* x) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(x)>>;
    for (std::size_t row = begin; row < end; ++row) {
      const T* inputs = x + row * call.x.stride;
      const T* output_gradient = static_cast<const T*>(call.output_gradient.data) + row * call.output_gradient.stride;
      T* x_gradient = static_cast<T*>(call.x_gradient.data) + row * call.x_gradient.stride;
      for (std::size_t j = 0; j < call.columns; j += kLanes) {
        const std::size_t count = call.columns - j;
        const Vec sum = load_values(inputs + j, count) + load_values(call.bias + j, count);
        const Vec gradient = load_values(output_gradient + j, count) * gelu_slope(sum);
        store_values(x_gradient + j, gradient, count);
        add_to(bias_gradient + j, gradient, count);
      }
    }
  });
}

}  // namespace
}  // namespace fastce
