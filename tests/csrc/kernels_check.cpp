// The kernels of every ISA level that the processor has against sums in double, without Python: for processors that an
// emulator stands in for (`make test-emulated`).
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "dispatch.h"
#include "packed_linear.h"
#include "rows.h"

namespace {

using namespace fastce;

std::mt19937 generator(0);

std::vector<float> random_values(std::size_t count) {
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

Rows rows_of(const std::vector<float>& values, std::size_t count, std::size_t columns) {
  Rows rows(count, columns);
  for (std::size_t i = 0; i < count * columns; ++i) rows.row(i / columns)[i % columns] = values[i];
  return rows;
}

// The largest error of GELU(x weight^T + bias).
double linear_error(const Kernels& kernels, Format format, std::size_t rows, std::size_t in, std::size_t out) {
  const std::vector<float> x = random_values(rows * in), weight = random_values(out * in), bias = random_values(out);
  const PackedLinear packed(format, {{{weight.data(), out, in, in, 1}, bias.data()}});
  const Rows input = rows_of(x, rows, in), output(rows, out);
  const OperandRows operand(format, rows, in);
  kernels.convert({format, rows, in, input.from(0), operand.operand(0)});
  LinearCall call{};
  call.rows = rows;
  call.input = operand.operand(0);
  call.weight = &packed.weight();
  call.activation = Activation::gelu;
  call.output = output.from(0);
  kernels.linear(call);
  double error = 0.0;
  for (std::size_t i = 0; i < rows; ++i) {
    for (std::size_t j = 0; j < out; ++j) {
      double sum = bias[j];
      for (std::size_t k = 0; k < in; ++k) sum += static_cast<double>(x[i * in + k]) * weight[j * in + k];
      const double expected = 0.5 * sum * (1.0 + std::erf(sum / std::sqrt(2.0)));
      error = std::max(error, std::abs(output.row(i)[j] - expected));
    }
  }
  return error / std::sqrt(static_cast<double>(in));
}

double attention_error(const Kernels& kernels, std::size_t length, std::size_t dim) {
  const std::vector<float> q = random_values(length * dim), k = random_values(length * dim),
                           v = random_values(length * dim);
  const Rows query = rows_of(q, length, dim), key = rows_of(k, length, dim), value = rows_of(v, length, dim);
  const Rows output(length, dim);
  const AlignedBuffer<std::uint32_t> scratch(attention_scratch_words(Format::fp32, dim, length));
  AttentionCall call{};
  call.format = Format::fp32;
  call.dim = dim;
  call.queries = call.keys = length;
  call.before = call.after = kAnyDistance;
  call.query = query.operand(0).words;
  call.key = key.operand(0).words;
  call.value = value.operand(0).words;
  call.query_stride = call.key_stride = query.stride();
  call.scale = 1.0f;
  call.output = output.from(0);
  call.scratch = scratch.data();
  kernels.attention(call);
  double error = 0.0;
  for (std::size_t i = 0; i < length; ++i) {
    std::vector<double> weights(length), context(dim, 0.0);
    double sum = 0.0;
    for (std::size_t j = 0; j < length; ++j) {
      double score = 0.0;
      for (std::size_t d = 0; d < dim; ++d) score += static_cast<double>(q[i * dim + d]) * k[j * dim + d];
      sum += weights[j] = std::exp(score);
    }
    for (std::size_t j = 0; j < length; ++j) {
      for (std::size_t d = 0; d < dim; ++d) context[d] += weights[j] / sum * v[j * dim + d];
    }
    for (std::size_t d = 0; d < dim; ++d) error = std::max(error, std::abs(output.row(i)[d] - context[d]));
  }
  return error;
}

}  // namespace

int main() {
  bool passed = true;
  const auto report = [&passed](const std::string& level, const char* what, double error, double bound) {
    passed = passed && error <= bound;
    std::printf("%s %s: error %.1e, bound %.0e\n", level.c_str(), what, error, bound);
  };
  for (const IsaLevel& level : available_levels()) {
    double fp32 = 0.0, bf16 = 0.0, int8 = 0.0, attention = 0.0;
    for (const std::size_t size : {1, 3, 16, 33, 100}) {
      fp32 = std::max(fp32, linear_error(*level.kernels, Format::fp32, size, 70, 45));
      fp32 = std::max(fp32, linear_error(*level.kernels, Format::fp32, 7, size, size));
      bf16 = std::max(bf16, linear_error(*level.kernels, Format::bf16, 7, size, size));
      int8 = std::max(int8, linear_error(*level.kernels, Format::int8, 7, size, size));
      attention = std::max(attention, attention_error(*level.kernels, size, 20));
    }
    report(level.name, "linear fp32", fp32, 1e-5);
    report(level.name, "linear bf16", bf16, 2e-2);  // 2^-8 for each factor of products around 1
    report(level.name, "linear int8", int8, 1e-1);  // half of 1/127 of weights and of 1/255 of inputs, up to 4
    report(level.name, "attention fp32", attention, 1e-5);
  }
  return passed ? 0 : 1;
}
