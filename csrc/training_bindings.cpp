#include "training_bindings.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include "dispatch.h"
#include "names.h"
#include "training.h"
#include "training_arrays.h"

namespace fastce {

namespace {

using DropoutPair = std::pair<std::uint64_t, float>;  // seed, probability

const Names<NormKind> kNorms = {{"layer", NormKind::layer}, {"rms", NormKind::rms}};

// Of RelativeTables: its bias, keys and queries; and their gradients.
using TableArrays = std::tuple<std::optional<Floats>, std::optional<py::array>, std::optional<py::array>>;
using TableGradients = std::tuple<std::optional<Floats>, std::optional<Floats>, std::optional<Floats>>;

Dropout dropout_of(const DropoutPair& pair) { return {pair.first, pair.second}; }

void check_ids(const Ints& ids, std::size_t tokens, std::size_t rows) {
  Expected{"ids", {tokens}}.check(ids);
  for (std::size_t token = 0; token < tokens; ++token) {
    const std::int32_t id = ids.data()[token];
    if (id < 0 || static_cast<std::size_t>(id) >= rows) {
      throw py::value_error("ids: " + std::to_string(id) + " is not below " + std::to_string(rows));
    }
  }
}

// Attention with the arrays that it points to.
class Attention {
 public:
  Attention(std::size_t heads, std::size_t kv_heads, std::size_t dim, Ints cu_queries, Ints cu_keys,
            bool queries_are_last, std::optional<std::size_t> before, std::optional<std::size_t> after,
            std::optional<std::pair<Floats, Floats>> rotation, float scale, const DropoutPair& dropout)
      : cu_queries_(std::move(cu_queries)), cu_keys_(std::move(cu_keys)), rotation_(std::move(rotation)) {
    if (kv_heads == 0 || heads % kv_heads != 0) {
      throw py::value_error("heads: " + std::to_string(heads) + " is no multiple of " + std::to_string(kv_heads));
    }
    if (cu_queries_.size() != cu_keys_.size() || cu_keys_.size() == 0) {
      throw py::value_error("cu_queries: expected as many sequences as cu_keys has");
    }
    call_.heads = heads;
    call_.kv_heads = kv_heads;
    call_.dim = dim;
    call_.cu_queries = cu_queries_.data();
    call_.cu_keys = cu_keys_.data();
    call_.queries_are_last = queries_are_last;
    call_.before = before.value_or(kAnyDistance);
    call_.after = after.value_or(kAnyDistance);
    call_.scale = scale;
    call_.dropout = dropout_of(dropout);
    for (std::size_t i = 0; i < sequences(); ++i) {
      const std::int32_t queries = call_.cu_queries[i + 1] - call_.cu_queries[i];
      const std::int32_t keys = call_.cu_keys[i + 1] - call_.cu_keys[i];
      if (queries < 1 || queries > keys) {
        throw py::value_error("cu_queries: " + std::to_string(queries) + " queries of " + std::to_string(keys) +
                              " keys");
      }
      longest_ = std::max(longest_, static_cast<std::size_t>(keys));
    }
    if (rotation_) rotate();
  }

  std::size_t sequences() const { return static_cast<std::size_t>(cu_keys_.size()) - 1; }

  Expected queries(const char* name) const {
    return {name, {static_cast<std::size_t>(call_.cu_queries[sequences()]), call_.heads * call_.dim}};
  }
  Expected keys(const char* name) const {
    return {name, {static_cast<std::size_t>(call_.cu_keys[sequences()]), call_.kv_heads * call_.dim}};
  }
  Expected softmax() const {
    return {"softmax", {static_cast<std::size_t>(call_.cu_queries[sequences()]), call_.heads, 2}};
  }

  Expected columns(const char* name, std::size_t rows, std::size_t each) const {
    return {name, {rows, call_.heads * each}};
  }

  VarlenAttention of(const py::array& query, const py::array& key, const py::array& value,
                     const TableArrays& tables) const {
    VarlenAttention call = call_;
    const auto& [bias, keys_met, queries_met] = tables;
    const std::size_t rows = bias          ? rows_of(*bias)
                             : keys_met    ? rows_of(*keys_met)
                             : queries_met ? rows_of(*queries_met)
                                           : 1;
    if (rows % 2 == 0) throw py::value_error("tables: expected a row for each distance from -reach to reach");
    call.relative.reach = rows / 2;
    call.relative.bias = read(bias, columns("bias", rows, 1));
    call.relative.keys = read_values(keys_met, columns("relative_keys", rows, call_.dim));
    call.relative.queries = read_values(queries_met, columns("relative_queries", rows, call_.dim));
    call.query = read_values(query, queries("query"));
    call.key = read_values(key, keys("key"));
    call.value = read_values(value, keys("value"));
    return call;
  }

 private:
  void rotate() {
    call_.pairs = columns_of(rotation_->first);
    const Shape shape = {rows_of(rotation_->first), call_.pairs};
    if (shape[0] < longest_ || 2 * call_.pairs > call_.dim) {
      throw py::value_error("rotation: " + text_of(shape) + " is not for heads of " + std::to_string(call_.dim) +
                            " at " + std::to_string(longest_) + " positions");
    }
    call_.cosines = read(rotation_->first, {"rotation", shape});
    call_.sines = read(rotation_->second, {"rotation", shape});
  }

  Ints cu_queries_;
  Ints cu_keys_;
  std::optional<std::pair<Floats, Floats>> rotation_;
  std::size_t longest_ = 0;
  VarlenAttention call_{};
};

class Training {
 public:
  Training(std::uintptr_t openmp, std::size_t num_threads, const std::string& isa)
      : workers_{*choose_level(isa).kernels, num_threads == 0 ? default_num_threads() : num_threads,
                 reinterpret_cast<OpenMpParallel>(openmp)} {}

  void norm_forward(const std::optional<py::array>& x, const std::optional<Floats>& bias, const Floats& residual,
                    const DropoutPair& input_dropout, const std::string& norm, const Floats& weight,
                    const std::optional<Floats>& norm_bias, float eps, const DropoutPair& output_dropout,
                    std::optional<Floats> total, Floats normalized, Floats inverse, Floats output) const {
    const std::size_t rows = rows_of(residual);
    const std::size_t columns = columns_of(residual);
    NormForwardCall call{};
    call.columns = columns;
    call.x = read_values(x, {"x", {rows, columns}});
    call.bias = read(bias, {"bias", {columns}});
    call.residual = residual.data();
    call.input_dropout = dropout_of(input_dropout);
    call.kind = named(kNorms, "norm", norm);
    call.weight = read(weight, {"weight", {columns}});
    call.norm_bias = read(norm_bias, {"norm_bias", {columns}});
    call.eps = eps;
    call.output_dropout = dropout_of(output_dropout);
    call.sum = write(total, {"total", {rows, columns}});
    call.normalized = write(normalized, {"normalized", {rows, columns}});
    call.inverse = write(inverse, {"inverse", {rows}});
    call.output = write(output, {"output", {rows, columns}});
    const py::gil_scoped_release released;
    fastce::norm_forward(workers_, call, rows);
  }

  void norm_backward(const Floats& output_gradient, const std::optional<Floats>& total_gradient,
                     const Floats& normalized, const Floats& inverse, const DropoutPair& input_dropout,
                     const std::string& norm, const Floats& weight, const DropoutPair& output_dropout,
                     std::optional<py::array> x_gradient, std::optional<Floats> bias_gradient, Floats residual_gradient,
                     Floats weight_gradient, std::optional<Floats> norm_bias_gradient) const {
    const std::size_t rows = rows_of(normalized);
    const std::size_t columns = columns_of(normalized);
    NormBackwardCall call{};
    call.columns = columns;
    call.output_gradient = read(output_gradient, {"output_gradient", {rows, columns}});
    call.sum_gradient = read(total_gradient, {"total_gradient", {rows, columns}});
    call.normalized = normalized.data();
    call.inverse = read(inverse, {"inverse", {rows}});
    call.kind = named(kNorms, "norm", norm);
    call.weight = read(weight, {"weight", {columns}});
    call.input_dropout = dropout_of(input_dropout);
    call.output_dropout = dropout_of(output_dropout);
    call.residual_gradient = write(residual_gradient, {"residual_gradient", {rows, columns}});
    call.x_gradient = write_values(x_gradient, {"x_gradient", {rows, columns}});
    const NormGradients gradients{write(weight_gradient, {"weight_gradient", {columns}}),
                                  write(norm_bias_gradient, {"norm_bias_gradient", {columns}}),
                                  write(bias_gradient, {"bias_gradient", {columns}})};
    const py::gil_scoped_release released;
    fastce::norm_backward(workers_, call, rows, gradients);
  }

  void activate_forward(const std::string& activation, const py::array& x, const std::optional<Floats>& bias,
                        const std::optional<py::array>& factor, const std::optional<Floats>& factor_bias,
                        py::array output) const {
    const std::size_t rows = rows_of(x);
    const std::size_t columns = columns_of(x);
    ActivateForwardCall call{};
    call.columns = columns;
    call.activation = named(kActivations, "activation", activation);
    call.x = read_values(x, {"x", {rows, columns}});
    call.bias = read(bias, {"bias", {columns}});
    call.factor = read_values(factor, {"factor", {rows, columns}});
    call.factor_bias = read(factor_bias, {"factor_bias", {columns}});
    call.output = write_values(output, {"output", {rows, columns}});
    check_types(call.x, {call.factor}, {call.output});
    const py::gil_scoped_release released;
    fastce::activate_forward(workers_, call, rows);
  }

  void activate_backward(const std::string& activation, const py::array& x, const std::optional<Floats>& bias,
                         const std::optional<py::array>& factor, const std::optional<Floats>& factor_bias,
                         const py::array& output_gradient, py::array x_gradient, std::optional<Floats> bias_gradient,
                         std::optional<py::array> factor_gradient, std::optional<Floats> factor_bias_gradient) const {
    const std::size_t rows = rows_of(x);
    const std::size_t columns = columns_of(x);
    if (factor.has_value() != factor_gradient.has_value()) throw py::value_error("factor_gradient: one for a factor");
    ActivateBackwardCall call{};
    call.columns = columns;
    call.activation = named(kActivations, "activation", activation);
    call.x = read_values(x, {"x", {rows, columns}});
    call.bias = read(bias, {"bias", {columns}});
    call.factor = read_values(factor, {"factor", {rows, columns}});
    call.factor_bias = read(factor_bias, {"factor_bias", {columns}});
    call.output_gradient = read_values(output_gradient, {"output_gradient", {rows, columns}});
    call.x_gradient = write_values(x_gradient, {"x_gradient", {rows, columns}});
    call.factor_gradient = write_values(factor_gradient, {"factor_gradient", {rows, columns}});
    check_types(call.x, {call.factor, call.output_gradient}, {call.x_gradient, call.factor_gradient});
    const ActivateGradients gradients{write(bias_gradient, {"bias_gradient", {columns}}),
                                      write(factor_bias_gradient, {"factor_bias_gradient", {columns}})};
    const py::gil_scoped_release released;
    fastce::activate_backward(workers_, call, rows, gradients);
  }

  void attention_forward(const Attention& attention, const py::array& query, const py::array& key,
                         const py::array& value, const TableArrays& tables, py::array output, Floats softmax) const {
    const VarlenAttention call = attention.of(query, key, value, tables);
    const VarlenForward results{write_values(output, attention.queries("output")), write(softmax, attention.softmax())};
    const py::gil_scoped_release released;
    varlen_attention_forward(workers_, call, results, attention.sequences());
  }

  void attention_backward(const Attention& attention, const py::array& query, const py::array& key,
                          const py::array& value, const TableArrays& tables, const Floats& softmax,
                          const py::array& output_gradient, py::array query_gradient, py::array key_gradient,
                          py::array value_gradient, TableGradients table_gradients) const {
    const VarlenAttention call = attention.of(query, key, value, tables);
    const std::size_t rows = 2 * call.relative.reach + 1;
    auto& [bias, keys_met, queries_met] = table_gradients;
    if (bias.has_value() != (call.relative.bias != nullptr) ||
        keys_met.has_value() != (call.relative.keys.data != nullptr) ||
        queries_met.has_value() != (call.relative.queries.data != nullptr)) {
      throw py::value_error("table_gradients: expected one for each table");
    }
    const VarlenBackward tensors{read(softmax, attention.softmax()),
                                 read_values(output_gradient, attention.queries("output_gradient")),
                                 write_values(query_gradient, attention.queries("query_gradient")),
                                 write_values(key_gradient, attention.keys("key_gradient")),
                                 write_values(value_gradient, attention.keys("value_gradient")),
                                 write(bias, attention.columns("bias_gradient", rows, 1)),
                                 write(keys_met, attention.columns("relative_keys_gradient", rows, call.dim)),
                                 write(queries_met, attention.columns("relative_queries_gradient", rows, call.dim))};
    const py::gil_scoped_release released;
    varlen_attention_backward(workers_, call, tensors, attention.sequences());
  }

  void embedding_forward(const std::vector<Ints>& ids, const std::vector<Floats>& tables, Floats sums) const {
    const std::size_t tokens = rows_of(sums);
    const std::size_t columns = columns_of(sums);
    std::vector<Lookup<const float>> lookups;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const std::size_t rows = rows_of(tables.at(i));
      check_ids(ids[i], tokens, rows);
      lookups.push_back({ids[i].data(), read(tables[i], {"tables", {rows, columns}})});
    }
    float* results = sums.mutable_data();
    const py::gil_scoped_release released;
    fastce::embedding_forward(workers_, lookups, tokens, columns, results);
  }

  void embedding_backward(const std::vector<Ints>& ids, std::vector<Floats> table_gradients,
                          const Floats& gradient) const {
    const std::size_t tokens = rows_of(gradient);
    const std::size_t columns = columns_of(gradient);
    std::vector<Lookup<float>> lookups;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const std::size_t rows = rows_of(table_gradients.at(i));
      check_ids(ids[i], tokens, rows);
      lookups.push_back({ids[i].data(), write(table_gradients[i], {"table_gradients", {rows, columns}})});
    }
    const py::gil_scoped_release released;
    fastce::embedding_backward(workers_, lookups, tokens, columns, gradient.data());
  }

  Floats dropout_factors(const DropoutPair& dropout, std::size_t rows, std::size_t columns) const {
    Floats factors({rows, columns});
    for (std::size_t row = 0; row < rows; ++row) {
      workers_.kernels.dropout_factors(dropout_of(dropout), row, columns, factors.mutable_data(row, 0));
    }
    return factors;
  }

 private:
  static void check_types(const Values& x, std::initializer_list<Values> others,
                          std::initializer_list<MutableValues> results) {
    const auto differs = [&](const auto& values) { return values.data != nullptr && values.is_bf16 != x.is_bf16; };
    if (std::any_of(others.begin(), others.end(), differs) || std::any_of(results.begin(), results.end(), differs)) {
      throw py::value_error("expected all values in the type of x");
    }
  }

  Workers workers_;
};

}  // namespace

void bind_training(py::module_& module) {
  const auto as_is = [](const char* name) { return py::arg(name).noconvert(); };
  const auto named = [](const char* name) { return py::arg(name); };
  py::class_<Attention>(module, "VarlenAttention",
                        "Attention of `heads` heads over sequences that lie end to end: which keys a query sees, the "
                        "tables of cosines and sines by which both are rotated, and dropout of the weights.")
      .def(py::init<std::size_t, std::size_t, std::size_t, Ints, Ints, bool, std::optional<std::size_t>,
                    std::optional<std::size_t>, std::optional<std::pair<Floats, Floats>>, float, const DropoutPair&>(),
           py::kw_only(), named("heads"), named("kv_heads"), named("dim"), as_is("cu_queries"), as_is("cu_keys"),
           named("queries_are_last"), named("before"), named("after"), as_is("rotation"), named("scale"),
           named("dropout"));
  py::class_<Training>(module, "Training",
                       "The ops of training. Matrices are float32, or bfloat16 as int16 where said, and are written in "
                       "place; a dropout is (seed, probability).")
      .def(py::init<std::uintptr_t, std::size_t, const std::string&>(), named("openmp") = 0, named("num_threads") = 0,
           named("isa") = "")
      .def("norm_forward", &Training::norm_forward, py::kw_only(), as_is("x"), as_is("bias"), as_is("residual"),
           named("input_dropout"), named("norm"), as_is("weight"), as_is("norm_bias"), named("eps"),
           named("output_dropout"), as_is("total"), as_is("normalized"), as_is("inverse"), as_is("output"),
           "total = dropout(x + bias) + residual and output = dropout(norm(total)), for the norm 'layer' or 'rms'; x "
           "may be "
           "bfloat16.")
      .def("norm_backward", &Training::norm_backward, py::kw_only(), as_is("output_gradient"), as_is("total_gradient"),
           as_is("normalized"), as_is("inverse"), named("input_dropout"), named("norm"), as_is("weight"),
           named("output_dropout"), as_is("x_gradient"), as_is("bias_gradient"), as_is("residual_gradient"),
           as_is("weight_gradient"), as_is("norm_bias_gradient"), "The gradients of norm_forward; x's may be bfloat16.")
      .def("activate_forward", &Training::activate_forward, py::kw_only(), named("activation"), as_is("x"),
           as_is("bias"), as_is("factor"), as_is("factor_bias"), as_is("output"),
           "output = activation(x + bias) * (factor + factor_bias); matrices all float32 or all bfloat16.")
      .def("activate_backward", &Training::activate_backward, py::kw_only(), named("activation"), as_is("x"),
           as_is("bias"), as_is("factor"), as_is("factor_bias"), as_is("output_gradient"), as_is("x_gradient"),
           as_is("bias_gradient"), as_is("factor_gradient"), as_is("factor_bias_gradient"),
           "The gradients of activate_forward.")
      .def("attention_forward", &Training::attention_forward, named("attention"), py::kw_only(), as_is("query"),
           as_is("key"), as_is("value"), as_is("tables"), as_is("output"), as_is("softmax"),
           "Attention within each sequence; matrices [rows, heads * dim], float32 or bfloat16. `tables` have a row for "
           "each distance from a query on to a key, from -reach to reach: a bias [rows, heads], and what queries and "
           "what keys are multiplied with, [rows, heads * dim], or None. `softmax` [queries, heads, 2] is for the "
           "backward pass.")
      .def("attention_backward", &Training::attention_backward, named("attention"), py::kw_only(), as_is("query"),
           as_is("key"), as_is("value"), as_is("tables"), as_is("softmax"), as_is("output_gradient"),
           as_is("query_gradient"), as_is("key_gradient"), as_is("value_gradient"), as_is("table_gradients"),
           "The gradients of attention_forward; those of tables, float32, are added to.")
      .def("embedding_forward", &Training::embedding_forward, py::kw_only(), as_is("ids"), as_is("tables"),
           as_is("sums"), "sums [tokens, columns] = each token's rows of the tables, added up.")
      .def("embedding_backward", &Training::embedding_backward, py::kw_only(), as_is("ids"), as_is("table_gradients"),
           as_is("gradient"), "Adds the gradient [tokens, columns] to the tables' rows.")
      .def("dropout_factors", &Training::dropout_factors, named("dropout"), named("rows"), named("columns"),
           "What a dropout multiplies by, [rows, columns]: 0 or 1 / (1 - probability).");
}

}  // namespace fastce
