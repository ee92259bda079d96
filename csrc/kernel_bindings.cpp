#include "kernel_bindings.h"

#include <pybind11/stl.h>
#include <time.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>

#include "dispatch.h"
#include "names.h"
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

LinearParameters parameters_of(const FloatArray& weight, const std::optional<FloatArray>& bias) {
  const auto [out, in] = shape_of(weight);
  return {{weight.data(), out, in, in, 1}, bias ? bias->data() : nullptr};
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

const Names<NormKind> kNormKinds = {{"layer", NormKind::layer}, {"rms", NormKind::rms}};

// A norm with its padded parameters.
class PaddedNorm {
 public:
  PaddedNorm(const std::string& kind, const FloatArray& weight, const std::optional<FloatArray>& bias, float eps)
      : weight_(padded(weight)),
        bias_(bias ? padded(*bias)
                   : AlignedBuffer<float>::zeros(round_up(static_cast<std::size_t>(weight.size()), kPanel))),
        norm_{named(kNormKinds, "norm", kind), weight_.data(), bias_.data(), eps} {}

  const Norm* get() const { return &norm_; }

 private:
  AlignedBuffer<float> weight_;
  AlignedBuffer<float> bias_;
  Norm norm_;
};

// A linear layer that has been packed for one ISA level.
class LinearKernel {
 public:
  LinearKernel(const FloatArray& weight, const std::optional<FloatArray>& bias, const std::string& format,
               const std::string& isa, const std::optional<FloatArray>& gate,
               const std::optional<FloatArray>& gate_bias)
      : kernels_(*choose_level(isa).kernels), format_(named(kFormats, "format", format)) {
    const LinearParameters layer = parameters_of(weight, bias);
    outputs_ = layer.weight.rows;
    packed_ =
        gate ? PackedLinear::gated(format_, parameters_of(*gate, gate_bias), layer) : PackedLinear(format_, {layer});
  }

  FloatArray run(const FloatArray& x, const std::string& activation) const {
    return output_of(x, [&](LinearCall& call) {
      if (activation != "none") call.activation = named(kActivations, "activation", activation);
    });
  }

  FloatArray rotated(const FloatArray& x, std::size_t heads, std::size_t dim, const FloatArray& cosines,
                     const FloatArray& sines, const IntArray& positions) const {
    const std::size_t pairs = shape_of(cosines).second;
    if (shape_of(sines) != shape_of(cosines) || 2 * pairs > dim || heads * dim > outputs_) {
      throw py::value_error("rotation: does not fit");
    }
    const Rotation rotation{heads, dim, pairs, cosines.data(), sines.data(), positions.data()};
    return output_of(x, [&](LinearCall& call) { call.rotation = &rotation; });
  }

  py::tuple add(const FloatArray& x, const FloatArray& stream, const std::string& kind, const FloatArray& norm_weight,
                const std::optional<FloatArray>& norm_bias, float eps, bool keeps_sum) const {
    const std::size_t rows = shape_of(x).first;
    const Rows sums = rows_of(stream);
    const Rows normed(rows, outputs_);
    const PaddedNorm norm(kind, norm_weight, norm_bias, eps);
    output_of(x, [&](LinearCall& call) {
      call.stream = sums.from(0);
      call.norm = norm.get();
      call.normed = keeps_sum ? normed.from(0) : sums.from(0);
    });
    return py::make_tuple(array_of(sums, rows, outputs_), array_of(keeps_sum ? normed : sums, rows, outputs_));
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
    kernels_.convert({format_, rows, in, input.from(0), operand.operand(0)});
    return operand;
  }

  // What a call that `change` has completed puts out for x.
  template <class Change>
  FloatArray output_of(const FloatArray& x, const Change& change) const {
    const std::size_t rows = shape_of(x).first;
    const OperandRows operand = convert(x);
    const Rows output(rows, packed_.weight().columns);
    LinearCall call = call_for(rows, operand, output);
    change(call);
    kernels_.linear(call);
    return array_of(output, rows, outputs_);
  }

  LinearCall call_for(std::size_t rows, const OperandRows& input, const Rows& output) const {
    LinearCall call{};
    call.rows = rows;
    call.input = input.operand(0);
    call.weight = &packed_.weight();
    call.output = output.from(0);
    return call;
  }

  const Kernels& kernels_;
  Format format_;
  std::size_t outputs_;  // of one of a gated pair
  PackedLinear packed_;
};

double peak(const std::string& format, const std::string& isa, std::size_t steps) {
  const Kernels& kernels = *choose_level(isa).kernels;
  double operations = 0.0;
  const double seconds = seconds_of([&] { operations = kernels.peak(named(kFormats, "format", format), steps); }, 1);
  return operations / seconds;
}

py::tuple quantize(const FloatArray& x, const std::string& isa) {
  const auto [rows, columns] = shape_of(x);
  const Rows input = rows_of(x);
  const OperandRows output(Format::int8, rows, columns);
  const Operand operand = output.operand(0);
  choose_level(isa).kernels->convert({Format::int8, rows, columns, input.from(0), operand});
  py::array_t<std::uint8_t> values({rows, columns});
  for (std::size_t i = 0; i < rows; ++i) {
    std::copy_n(reinterpret_cast<const std::uint8_t*>(operand.words + i * operand.stride), columns,
                values.mutable_data(i, 0));
  }
  return py::make_tuple(values, FloatArray(rows, operand.scales), IntArray(rows, operand.zero_points));
}

FloatArray attention(const FloatArray& query, const FloatArray& key, const FloatArray& value, const std::string& format,
                     const std::string& isa, std::size_t first_query, const std::optional<std::size_t>& before,
                     const std::optional<std::size_t>& after) {
  const Kernels& kernels = *choose_level(isa).kernels;
  const Format kind = named(kFormats, "format", format);
  const auto [queries, dim] = shape_of(query);
  const auto [keys, key_dim] = shape_of(key);
  if (key_dim != dim || shape_of(value) != shape_of(key)) throw py::value_error("expected equal widths");
  if (kind == Format::int8 || dim % values_per_word(kind) != 0) throw py::value_error("format: not for this width");
  const Rows sources[] = {rows_of(query), rows_of(key), rows_of(value)};
  const std::size_t counts[] = {queries, keys, keys};
  OperandRows operands[3];
  for (std::size_t i = 0; i < 3; ++i) {
    operands[i] = OperandRows(kind, counts[i], dim);
    kernels.convert({kind, counts[i], dim, sources[i].from(0), operands[i].operand(0)});
  }
  const Rows output(queries, dim);
  const AlignedBuffer<std::uint32_t> scratch(attention_scratch_words(kind, dim, keys, false));
  AttentionCall call{};
  call.format = kind;
  call.dim = dim;
  call.heads = 1;
  call.queries = queries;
  call.first_query = first_query;
  call.before = before.value_or(kAnyDistance);
  call.after = after.value_or(kAnyDistance);
  call.query = operands[0].operand(0).words;
  call.query_stride = operands[0].operand(0).stride;
  call.own = {operands[1].operand(0).words, operands[2].operand(0).words, operands[1].operand(0).stride, keys};
  call.scale = 1.0f / std::sqrt(static_cast<float>(dim));
  call.output = output.from(0);
  call.scratch = scratch.data();
  kernels.attention(call);
  return array_of(output, queries, dim);
}

FloatArray embed(const std::vector<IntArray>& ids, const std::vector<FloatArray>& tables, const FloatArray& norm_weight,
                 const FloatArray& norm_bias, float eps, const std::string& isa) {
  if (ids.size() != tables.size() || ids.size() > EmbeddingCall::kMaxTables) throw py::value_error("too many tables");
  const PaddedNorm norm("layer", norm_weight, norm_bias, eps);
  EmbeddingCall call{};
  call.tokens = static_cast<std::size_t>(ids.front().size());
  call.columns = static_cast<std::size_t>(norm_weight.size());
  call.num_tables = ids.size();
  for (std::size_t i = 0; i < ids.size(); ++i) {
    call.ids[i] = ids[i].data();
    call.tables[i] = tables[i].data();
  }
  call.norm = norm.get();
  const Rows output(call.tokens, call.columns);
  call.output = output.from(0);
  choose_level(isa).kernels->embed(call);
  return array_of(output, call.tokens, call.columns);
}

FloatArray normalize(const FloatArray& x, const std::string& kind, const FloatArray& weight,
                     const std::optional<FloatArray>& bias, float eps, const std::string& isa) {
  const auto [rows, columns] = shape_of(x);
  const PaddedNorm norm(kind, weight, bias, eps);
  const Rows values = rows_of(x);
  choose_level(isa).kernels->normalize({rows, columns, norm.get(), values.from(0), values.from(0)});
  return array_of(values, rows, columns);
}

}  // namespace

void bind_kernels(py::module_& module) {
  py::class_<LinearKernel>(module, "LinearKernel", "A packed linear layer, for tests and benchmarks like all *_kernel.")
      .def(py::init<const FloatArray&, const std::optional<FloatArray>&, const std::string&, const std::string&,
                    const std::optional<FloatArray>&, const std::optional<FloatArray>&>(),
           py::arg("weight"), py::arg("bias"), py::arg("number_format"), py::arg("isa"), py::arg("gate") = py::none(),
           py::arg("gate_bias") = py::none())
      .def("__call__", &LinearKernel::run, py::arg("x"), py::arg("activation") = "none",
           "activation(x weight^T + bias), or activation(x gate^T + gate_bias) * (x weight^T + bias).")
      .def("rotated", &LinearKernel::rotated, py::arg("x"), py::arg("heads"), py::arg("dim"), py::arg("cosines"),
           py::arg("sines"), py::arg("positions"),
           "x weight^T + bias, the first heads turned by the angles [positions, pairs] of their rows' positions.")
      .def("add", &LinearKernel::add, py::arg("x"), py::arg("stream"), py::arg("norm"), py::arg("norm_weight"),
           py::arg("norm_bias"), py::arg("eps"), py::arg("keeps_sum"),
           "The stream behind x weight^T + bias, and the normed sum of both.")
      .def("seconds", &LinearKernel::seconds, py::arg("x"), py::arg("repeats"),
           "Time for x weight^T + bias, `repeats` times over, conversion of x left out.");
  module.def("peak_kernel", &peak, py::arg("number_format"), py::arg("isa"), py::arg("steps"),
             "Operations per second of the products on registers alone, over `steps` rounds.");
  module.def("quantize_kernel", &quantize, py::arg("x"), py::arg("isa"),
             "uint8 values [rows, columns], float32 scales [rows] and int32 zero points [rows].");
  module.def(
      "attention_kernel", &attention, py::arg("query"), py::arg("key"), py::arg("value"), py::arg("number_format"),
      py::arg("isa"), py::arg("first_query") = 0, py::arg("before") = py::none(), py::arg("after") = py::none(),
      "Attention of one head: queries [queries, dim] over keys and values [keys, dim]. The queries' positions count "
      "from `first_query`, and they see keys up to so many positions before and after their own.");
  module.def("embed_kernel", &embed, py::arg("ids"), py::arg("tables"), py::arg("norm_weight"), py::arg("norm_bias"),
             py::arg("eps"), py::arg("isa"), "LayerNorm of summed table rows, [tokens, columns].");
  module.def("normalize_kernel", &normalize, py::arg("x"), py::arg("norm"), py::arg("weight"), py::arg("bias"),
             py::arg("eps"), py::arg("isa"), "LayerNorm or RMSNorm (\"layer\", \"rms\") of rows [rows, columns].");
}

}  // namespace fastce
