#include "training_bindings.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <utility>

#include "dispatch.h"
#include "training.h"

namespace py = pybind11;

namespace fastce {

namespace {

// Arrays are taken as they are, never copied: results are written into them. bf16 values come as int16.
using Floats = py::array_t<float, py::array::c_style>;
using Ints = py::array_t<std::int32_t, py::array::c_style>;
using DropoutPair = std::pair<std::uint64_t, float>;  // seed, probability

Values values_of(const py::array& array) {
  const bool is_bf16 = py::isinstance<py::array_t<std::int16_t>>(array);
  const bool is_known = is_bf16 || py::isinstance<py::array_t<float>>(array);
  if (array.ndim() != 2 || !is_known || array.strides(1) != array.itemsize()) {
    throw py::value_error("expected a matrix of float32 or of bfloat16 as int16, with its rows' values side by side");
  }
  return {is_bf16, const_cast<void*>(array.data()), static_cast<std::size_t>(array.strides(0) / array.itemsize())};
}

Values values_of(const std::optional<py::array>& array) { return array ? values_of(*array) : Values{}; }

float* data_of(const Floats& array) { return const_cast<float*>(array.data()); }
float* data_of(const std::optional<Floats>& array) { return array ? data_of(*array) : nullptr; }

Dropout dropout_of(const DropoutPair& pair) { return {pair.first, pair.second}; }

std::size_t rows_of(const Floats& array) { return static_cast<std::size_t>(array.shape(0)); }
std::size_t columns_of(const Floats& array) { return static_cast<std::size_t>(array.shape(1)); }

std::vector<Lookup> lookups_of(const std::vector<Ints>& ids, const std::vector<Floats>& tables) {
  std::vector<Lookup> lookups;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const Ints& chosen = ids[i];
    const py::ssize_t rows = tables.at(i).shape(0);
    for (py::ssize_t token = 0; token < chosen.size(); ++token) {
      const std::int32_t id = chosen.data()[token];
      if (id < 0 || id >= rows) {
        throw py::value_error("ids: " + std::to_string(id) + " is not below " + std::to_string(rows));
      }
    }
    lookups.push_back({chosen.data(), data_of(tables[i])});
  }
  return lookups;
}

class Training {
 public:
  Training(std::uintptr_t openmp, const std::string& isa)
      : kernels_(*choose_level(isa).kernels), openmp_(reinterpret_cast<OpenMpParallel>(openmp)) {}

  void norm_forward(const std::optional<py::array>& x, const std::optional<Floats>& bias, const Floats& residual,
                    const Floats& weight, const Floats& norm_bias, float eps, const DropoutPair& input_dropout,
                    const DropoutPair& output_dropout, const Floats& normalized, const Floats& inverse,
                    const Floats& output, std::size_t num_threads) const {
    const NormForwardCall call{columns_of(residual),       values_of(x),        data_of(bias),    residual.data(),
                               dropout_of(input_dropout),  weight.data(),       norm_bias.data(), eps,
                               dropout_of(output_dropout), data_of(normalized), data_of(inverse), data_of(output)};
    const py::gil_scoped_release released;
    fastce::norm_forward(workers(num_threads), call, rows_of(residual));
  }

  void norm_backward(const Floats& output_gradient, const Floats& normalized, const Floats& inverse,
                     const Floats& weight, const DropoutPair& input_dropout, const DropoutPair& output_dropout,
                     const Floats& residual_gradient, const std::optional<py::array>& x_gradient,
                     const Floats& weight_gradient, const Floats& norm_bias_gradient,
                     const std::optional<Floats>& bias_gradient, std::size_t num_threads) const {
    const NormBackwardCall call{
        columns_of(normalized), output_gradient.data(),    normalized.data(),          inverse.data(),
        weight.data(),          dropout_of(input_dropout), dropout_of(output_dropout), data_of(residual_gradient),
        values_of(x_gradient)};
    const NormGradients gradients{data_of(weight_gradient), data_of(norm_bias_gradient), data_of(bias_gradient)};
    const py::gil_scoped_release released;
    fastce::norm_backward(workers(num_threads), call, rows_of(normalized), gradients);
  }

  void gelu_forward(const py::array& x, const Floats& bias, const py::array& output, std::size_t num_threads) const {
    const auto rows = static_cast<std::size_t>(x.shape(0));
    const GeluForwardCall call{static_cast<std::size_t>(bias.size()), values_of(x), bias.data(), values_of(output)};
    const py::gil_scoped_release released;
    fastce::gelu_forward(workers(num_threads), call, rows);
  }

  void gelu_backward(const py::array& x, const Floats& bias, const py::array& output_gradient,
                     const py::array& x_gradient, const Floats& bias_gradient, std::size_t num_threads) const {
    const auto rows = static_cast<std::size_t>(x.shape(0));
    const GeluBackwardCall call{static_cast<std::size_t>(bias.size()), values_of(x), bias.data(),
                                values_of(output_gradient), values_of(x_gradient)};
    const py::gil_scoped_release released;
    fastce::gelu_backward(workers(num_threads), call, rows, data_of(bias_gradient));
  }

  void attention_forward(std::size_t num_heads, const py::array& query, const py::array& key, const py::array& value,
                         const Ints& cu_queries, const Ints& cu_keys, float scale, const DropoutPair& dropout,
                         const py::array& output, const Floats& softmax, std::size_t num_threads) const {
    const VarlenAttention call =
        attention(num_heads, query, key, value, cu_queries, cu_keys, scale, dropout, output, softmax);
    const py::gil_scoped_release released;
    varlen_attention_forward(workers(num_threads), call, sequences_of(cu_keys));
  }

  void attention_backward(std::size_t num_heads, const py::array& query, const py::array& key, const py::array& value,
                          const Ints& cu_queries, const Ints& cu_keys, float scale, const DropoutPair& dropout,
                          const py::array& output, const Floats& softmax, const py::array& output_gradient,
                          const py::array& query_gradient, const py::array& key_gradient,
                          const py::array& value_gradient, std::size_t num_threads) const {
    const VarlenAttention call =
        attention(num_heads, query, key, value, cu_queries, cu_keys, scale, dropout, output, softmax);
    const VarlenAttentionGradients gradients{values_of(output_gradient), values_of(query_gradient),
                                             values_of(key_gradient), values_of(value_gradient)};
    const py::gil_scoped_release released;
    varlen_attention_backward(workers(num_threads), call, gradients, sequences_of(cu_keys));
  }

  void embedding_forward(const std::vector<Ints>& ids, const std::vector<Floats>& tables, const Floats& sums,
                         std::size_t num_threads) const {
    const std::vector<Lookup> lookups = lookups_of(ids, tables);
    const py::gil_scoped_release released;
    fastce::embedding_forward(workers(num_threads), lookups, rows_of(sums), columns_of(sums), data_of(sums));
  }

  void embedding_backward(const std::vector<Ints>& ids, const std::vector<Floats>& table_gradients,
                          const Floats& gradient, std::size_t num_threads) const {
    const std::vector<Lookup> lookups = lookups_of(ids, table_gradients);
    const py::gil_scoped_release released;
    fastce::embedding_backward(workers(num_threads), lookups, rows_of(gradient), columns_of(gradient), gradient.data());
  }

  Floats dropout_factors(const DropoutPair& dropout, std::size_t rows, std::size_t columns) const {
    Floats factors({rows, columns});
    for (std::size_t row = 0; row < rows; ++row) {
      kernels_.dropout_factors(dropout_of(dropout), row, columns, factors.mutable_data(row, 0));
    }
    return factors;
  }

 private:
  Workers workers(std::size_t num_threads) const {
    return {kernels_, num_threads == 0 ? default_num_threads() : num_threads, openmp_};
  }

  static std::size_t sequences_of(const Ints& cu_keys) { return static_cast<std::size_t>(cu_keys.size()) - 1; }

  static VarlenAttention attention(std::size_t num_heads, const py::array& query, const py::array& key,
                                   const py::array& value, const Ints& cu_queries, const Ints& cu_keys, float scale,
                                   const DropoutPair& dropout, const py::array& output, const Floats& softmax) {
    if (cu_queries.size() != cu_keys.size()) throw py::value_error("expected as many query as key sequences");
    return {num_heads,           static_cast<std::size_t>(query.shape(1)) / num_heads,
            cu_queries.data(),   cu_keys.data(),
            values_of(query),    values_of(key),
            values_of(value),    scale,
            dropout_of(dropout), values_of(output),
            data_of(softmax)};
  }

  const Kernels& kernels_;
  OpenMpParallel openmp_;
};

}  // namespace

void bind_training(py::module_& module) {
  const auto as_is = [](const char* name) { return py::arg(name).noconvert(); };
  const py::arg_v threads = py::arg("num_threads") = 0;
  py::class_<Training>(module, "Training",
                       "The ops of training. Matrices are float32, or bfloat16 as int16 where said, and are written in "
                       "place; a dropout is (seed, probability).")
      .def(py::init<std::uintptr_t, const std::string&>(), py::arg("openmp") = 0, py::arg("isa") = "")
      .def("norm_forward", &Training::norm_forward, as_is("x"), as_is("bias"), as_is("residual"), as_is("weight"),
           as_is("norm_bias"), py::arg("eps"), py::arg("input_dropout"), py::arg("output_dropout"), as_is("normalized"),
           as_is("inverse"), as_is("output"), threads,
           "output = dropout(LayerNorm(dropout(x + bias) + residual)); x may be bfloat16 or None.")
      .def("norm_backward", &Training::norm_backward, as_is("output_gradient"), as_is("normalized"), as_is("inverse"),
           as_is("weight"), py::arg("input_dropout"), py::arg("output_dropout"), as_is("residual_gradient"),
           as_is("x_gradient"), as_is("weight_gradient"), as_is("norm_bias_gradient"), as_is("bias_gradient"), threads,
           "The gradients of norm_forward; x's may be bfloat16 or None.")
      .def("gelu_forward", &Training::gelu_forward, as_is("x"), as_is("bias"), as_is("output"), threads,
           "output = GELU(x + bias); both float32 or both bfloat16.")
      .def("gelu_backward", &Training::gelu_backward, as_is("x"), as_is("bias"), as_is("output_gradient"),
           as_is("x_gradient"), as_is("bias_gradient"), threads, "The gradients of gelu_forward.")
      .def("attention_forward", &Training::attention_forward, py::arg("num_heads"), as_is("query"), as_is("key"),
           as_is("value"), as_is("cu_queries"), as_is("cu_keys"), py::arg("scale"), py::arg("dropout"), as_is("output"),
           as_is("softmax"), threads,
           "Attention within each sequence, with dropout of its weights; matrices [rows, num_heads * dim], all float32 "
           "or all bfloat16. `softmax` [queries * num_heads, 2] is for the backward pass.")
      .def("attention_backward", &Training::attention_backward, py::arg("num_heads"), as_is("query"), as_is("key"),
           as_is("value"), as_is("cu_queries"), as_is("cu_keys"), py::arg("scale"), py::arg("dropout"), as_is("output"),
           as_is("softmax"), as_is("output_gradient"), as_is("query_gradient"), as_is("key_gradient"),
           as_is("value_gradient"), threads, "The gradients of attention_forward.")
      .def("embedding_forward", &Training::embedding_forward, as_is("ids"), as_is("tables"), as_is("sums"), threads,
           "sums [tokens, columns] = each token's rows of the tables, added up.")
      .def("embedding_backward", &Training::embedding_backward, as_is("ids"), as_is("table_gradients"),
           as_is("gradient"), threads, "Adds the gradient [tokens, columns] to the tables' rows.")
      .def("dropout_factors", &Training::dropout_factors, py::arg("dropout"), py::arg("rows"), py::arg("columns"),
           "What a dropout multiplies by, [rows, columns]: 0 or 1 / (1 - probability).");
}

}  // namespace fastce
