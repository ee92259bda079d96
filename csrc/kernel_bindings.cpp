#include "kernel_bindings.h"

#include <pybind11/stl.h>
#include <time.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <stdexcept>

#include "dispatch.h"
#include "packed_linear.h"
#include "rows.h"

namespace py = pybind11;

namespace fastce {

namespace {

Rows rows_of(const FloatArray& array) {
  Rows rows(static_cast<std::size_t>(array.shape(0)), static_cast<std::size_t>(array.shape(1)));
  for (py::ssize_t i = 0; i < array.shape(0); ++i) {
    std::copy_n(array.data(i, 0), array.shape(1), rows.row(static_cast<std::size_t>(i)));
  }
  return rows;
}

FloatArray array_of(const Rows& rows, std::size_t count, std::size_t columns) {
  FloatArray array({count, columns});
  for (std::size_t i = 0; i < count; ++i) std::copy_n(rows.row(i), columns, array.mutable_data(i, 0));
  return array;
}

AlignedBuffer<float> padded(const FloatArray& array) {
  const auto size = static_cast<std::size_t>(array.size());
  auto buffer = AlignedBuffer<float>::zeros(round_up(size, kPanel));
  std::copy_n(array.data(), size, buffer.data());
  return buffer;
}

std::pair<std::size_t, std::size_t> shape_of(const FloatArray& array) {
  if (array.ndim() != 2) throw py::value_error("expected a matrix");
  return {array.shape(0), array.shape(1)};
}

// Time that this thread was on a CPU, so that other processes don't count.
double cpu_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

template <class Run>
double seconds_of(const Run& run, std::size_t repeats) {
  const double begin = cpu_seconds();
  for (std::size_t i = 0; i < repeats; ++i) run();
  return cpu_seconds() - begin;
}

// A linear layer that has been packed for one ISA level.
class LinearKernel {
 public:
  LinearKernel(const FloatArray& weight, const FloatArray& bias, const std::string& format, const std::string& isa)
      : kernels_(*choose_level(isa).kernels), format_(format_named(format)) {
    const auto [out, in] = shape_of(weight);
    packed_ = PackedLinear(format_, {{{weight.data(), out, in, in, 1}, bias.data()}});
  }

  FloatArray run(const FloatArray& x, const std::string& activation, const std::optional<FloatArray>& residual,
                 const std::optional<FloatArray>& norm_weight, const std::optional<FloatArray>& norm_bias,
                 float eps) const {
    const std::size_t rows = shape_of(x).first;
    const std::size_t columns = packed_.weight().columns;
    const OperandRows operand = convert(x);
    const Rows output(rows, columns);
    LinearCall call = call_for(rows, operand, output);
    call.activation = activation_named(activation);
    if (!residual) {
      kernels_.linear(call);
      return array_of(output, rows, columns);
    }
    const Rows sums = rows_of(*residual);
    const AlignedBuffer<float> scale = padded(norm_weight.value());
    const AlignedBuffer<float> shift = padded(norm_bias.value());
    const Norm norm{scale.data(), shift.data(), eps};
    call.residual = sums.row(0);
    call.residual_stride = sums.stride();
    call.norm = &norm;
    kernels_.linear(call);
    return array_of(sums, rows, columns);
  }

  double seconds(const FloatArray& x, std::size_t repeats) const {
    const std::size_t rows = shape_of(x).first;
    const OperandRows operand = convert(x);
    const Rows output(rows, packed_.weight().columns);
    const LinearCall call = call_for(rows, operand, output);
    return seconds_of([&] { kernels_.linear(call); }, repeats);
  }

 private:
  OperandRows convert(const FloatArray& x) const {
    const auto [rows, in] = shape_of(x);
    if (words_for(format_, in) != packed_.weight().depth) throw py::value_error("x: unexpected width");
    const Rows input = rows_of(x);
    OperandRows operand(format_, rows, in);
    kernels_.convert({format_, rows, in, input.row(0), input.stride(), operand.operand(0)});
    return operand;
  }

  LinearCall call_for(std::size_t rows, const OperandRows& input, const Rows& output) const {
    LinearCall call{};
    call.rows = rows;
    call.input = input.operand(0);
    call.weight = &packed_.weight();
    call.output = output.row(0);
    call.output_stride = output.stride();
    return call;
  }

  const Kernels& kernels_;
  Format format_;
  PackedLinear packed_;
};

double peak(const std::string& format, const std::string& isa, std::size_t steps) {
  const Kernels& kernels = *choose_level(isa).kernels;
  double operations = 0.0;
  const double seconds = seconds_of([&] { operations = kernels.peak(format_named(format), steps); }, 1);
  return operations / seconds;
}

py::tuple quantize(const FloatArray& x, const std::string& isa) {
  const auto [rows, columns] = shape_of(x);
  const Rows input = rows_of(x);
  const OperandRows output(Format::int8, rows, columns);
  const Operand operand = output.operand(0);
  choose_level(isa).kernels->convert({Format::int8, rows, columns, input.row(0), input.stride(), operand});
  py::array_t<std::uint8_t> values({rows, columns});
  for (std::size_t i = 0; i < rows; ++i) {
    std::copy_n(reinterpret_cast<const std::uint8_t*>(operand.words + i * operand.stride), columns,
                values.mutable_data(i, 0));
  }
  return py::make_tuple(values, FloatArray(rows, operand.scales), IntArray(rows, operand.zero_points));
}

FloatArray attention(const FloatArray& query, const FloatArray& key, const FloatArray& value, const std::string& format,
                     const std::string& isa) {
  const Kernels& kernels = *choose_level(isa).kernels;
  const Format kind = format_named(format);
  const auto [queries, dim] = shape_of(query);
  const auto [keys, key_dim] = shape_of(key);
  if (key_dim != dim || shape_of(value) != shape_of(key)) throw py::value_error("expected equal widths");
  if (kind == Format::int8 || dim % values_per_word(kind) != 0) throw py::value_error("format: not for this width");
  const Rows sources[] = {rows_of(query), rows_of(key), rows_of(value)};
  const std::size_t counts[] = {queries, keys, keys};
  OperandRows operands[3];
  for (std::size_t i = 0; i < 3; ++i) {
    operands[i] = OperandRows(kind, counts[i], dim);
    kernels.convert({kind, counts[i], dim, sources[i].row(0), sources[i].stride(), operands[i].operand(0)});
  }
  const Rows output(queries, dim);
  const AlignedBuffer<std::uint32_t> scratch(attention_scratch_words(kind, dim, keys));
  AttentionCall call{};
  call.format = kind;
  call.dim = dim;
  call.queries = queries;
  call.keys = keys;
  call.query = operands[0].operand(0).words;
  call.key = operands[1].operand(0).words;
  call.value = operands[2].operand(0).words;
  call.query_stride = call.key_stride = operands[0].operand(0).stride;
  call.scale = 1.0f / std::sqrt(static_cast<float>(dim));
  call.output = output.row(0);
  call.output_stride = output.stride();
  call.scratch = scratch.data();
  kernels.attention(call);
  return array_of(output, queries, dim);
}

FloatArray embed(const std::vector<IntArray>& ids, const std::vector<FloatArray>& tables, const FloatArray& norm_weight,
                 const FloatArray& norm_bias, float eps, const std::string& isa) {
  if (ids.size() != tables.size() || ids.size() > EmbeddingCall::kMaxTables) throw py::value_error("too many tables");
  const AlignedBuffer<float> scale = padded(norm_weight);
  const AlignedBuffer<float> shift = padded(norm_bias);
  EmbeddingCall call{};
  call.tokens = static_cast<std::size_t>(ids.front().size());
  call.columns = static_cast<std::size_t>(norm_weight.size());
  call.num_tables = ids.size();
  for (std::size_t i = 0; i < ids.size(); ++i) {
    call.ids[i] = ids[i].data();
    call.tables[i] = tables[i].data();
  }
  call.norm = {scale.data(), shift.data(), eps};
  const Rows output(call.tokens, call.columns);
  call.output = output.row(0);
  call.output_stride = output.stride();
  choose_level(isa).kernels->embed(call);
  return array_of(output, call.tokens, call.columns);
}

}  // namespace

Activation activation_named(const std::string& name) {
  static const std::map<std::string, Activation> kActivations = {{"none", Activation::none},
                                                                 {"gelu", Activation::gelu},
                                                                 {"gelu_tanh", Activation::gelu_tanh},
                                                                 {"relu", Activation::relu},
                                                                 {"tanh", Activation::tanh}};
  const auto found = kActivations.find(name);
  if (found == kActivations.end()) throw std::invalid_argument("activation '" + name + "' has no kernel");
  return found->second;
}

Format format_named(const std::string& name) {
  static const std::map<std::string, Format> kFormats = {
      {"fp32", Format::fp32}, {"bf16", Format::bf16}, {"int8", Format::int8}};
  const auto found = kFormats.find(name);
  if (found == kFormats.end()) throw std::invalid_argument("format '" + name + "' is none of fp32, bf16, int8");
  return found->second;
}

void bind_kernels(py::module_& module) {
  py::class_<LinearKernel>(module, "LinearKernel", "A packed linear layer, for tests and benchmarks like all *_kernel.")
      .def(py::init<const FloatArray&, const FloatArray&, const std::string&, const std::string&>(), py::arg("weight"),
           py::arg("bias"), py::arg("number_format"), py::arg("isa"))
      .def("__call__", &LinearKernel::run, py::arg("x"), py::arg("activation") = "none",
           py::arg("residual") = py::none(), py::arg("norm_weight") = py::none(), py::arg("norm_bias") = py::none(),
           py::arg("eps") = 0.0f, "activation(x weight^T + bias), or with a residual the LayerNorm of their sum.")
      .def("seconds", &LinearKernel::seconds, py::arg("x"), py::arg("repeats"),
           "Time for x weight^T + bias, `repeats` times over, conversion of x left out.");
  module.def("peak_kernel", &peak, py::arg("number_format"), py::arg("isa"), py::arg("steps"),
             "Operations per second of the products on registers alone, over `steps` rounds.");
  module.def("quantize_kernel", &quantize, py::arg("x"), py::arg("isa"),
             "uint8 values [rows, columns], float32 scales [rows] and int32 zero points [rows].");
  module.def("attention_kernel", &attention, py::arg("query"), py::arg("key"), py::arg("value"),
             py::arg("number_format"), py::arg("isa"),
             "Attention of one head: queries [queries, dim] over keys and values [keys, dim].");
  module.def("embed_kernel", &embed, py::arg("ids"), py::arg("tables"), py::arg("norm_weight"), py::arg("norm_bias"),
             py::arg("eps"), py::arg("isa"), "LayerNorm of summed table rows, [tokens, columns].");
}

}  // namespace fastce
