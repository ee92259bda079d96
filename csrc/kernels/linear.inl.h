// A linear layer with all that follows it up to the next matrix product, row by row while the rows are in the cache.
namespace fastce {
namespace {

// Accumulators to activation(x weight^T + bias), in place.
template <Activation activation>
inline void finish_row(const LinearCall& call, std::size_t row) {
  const Weight weight = *call.weight;  // a copy, which no store can change
  float* values = call.output + row * call.output_stride;
  if (weight.format != Format::int8) {
    for (std::size_t j = 0; j < weight.columns; j += kLanes) {
      store(values + j, activate<activation>(load(values + j) + load(weight.bias + j)));
    }
    return;
  }
  const std::int32_t* sums = reinterpret_cast<const std::int32_t*>(values);
  const IntVec zero_point = broadcast(call.input.zero_points[row]);
  const Vec scale = broadcast(call.input.scales[row]);
  for (std::size_t j = 0; j < weight.columns; j += kLanes) {
    const Vec sum = to_float(load(sums + j) - zero_point * load(weight.sums + j));
    store(values + j, activate<activation>(multiply_add(sum, load(weight.scales + j) * scale, load(weight.bias + j))));
  }
}

template <Activation activation>
inline void finish_rows(const LinearCall& call) {
  const std::size_t columns = call.weight->columns;
  for (std::size_t row = 0; row < call.rows; ++row) {
    finish_row<activation>(call, row);
    const float* result = call.output + row * call.output_stride;
    if (call.norm != nullptr) {
      float* residual = call.residual + row * call.residual_stride;
      add_and_normalize_row(columns, result, residual, *call.norm);
      result = residual;
    }
    if (call.converted.words != nullptr) convert_row(call.converted_format, columns, result, call.converted, row);
  }
}

void linear(const LinearCall& call) {
  const Weight& weight = *call.weight;
  multiply(weight.format, call.rows, call.input.words, call.input.stride, weight.words, weight.depth, weight.columns,
           reinterpret_cast<std::uint32_t*>(call.output), call.output_stride);
  switch (call.activation) {
    case Activation::none:
      return finish_rows<Activation::none>(call);
    case Activation::gelu:
      return finish_rows<Activation::gelu>(call);
    case Activation::gelu_tanh:
      return finish_rows<Activation::gelu_tanh>(call);
    case Activation::relu:
      return finish_rows<Activation::relu>(call);
    case Activation::tanh:
      return finish_rows<Activation::tanh>(call);
  }
}

}  // namespace
}  // namespace fastce
