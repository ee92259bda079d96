// The border between Python and C++: conversions and docstrings only.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "cpu_features.h"
#include "dispatch.h"
#include "encoder.h"
#include "kernel_bindings.h"
#include "names.h"
#include "parallel.h"
#include "program_reader.h"
#include "training_bindings.h"

namespace py = pybind11;

namespace fastce {

namespace {

Parameters parameters_of(const std::map<std::string, FloatArray>& arrays) {
  Parameters parameters;
  for (const auto& [name, array] : arrays) {
    if (array.ndim() != 1 && array.ndim() != 2) throw py::value_error(name + ": expected a vector or a matrix");
    const bool is_matrix = array.ndim() == 2;
    const auto rows = static_cast<std::size_t>(is_matrix ? array.shape(0) : 1);
    parameters[name] = {array.data(), rows, static_cast<std::size_t>(array.shape(is_matrix ? 1 : 0))};
  }
  return parameters;
}

// An encoder with the arrays that it reads from.
class PythonEncoder {
 public:
  PythonEncoder(const py::object& program, const std::map<std::string, FloatArray>& weights, const std::string& format,
                const std::string& isa)
      : level_(choose_level(isa)),
        encoder_(build(program::read_program(program), parameters_of(weights), named(kFormats, "format", format))) {
    for (const auto& [name, array] : weights) {
      if (name.rfind("embeddings.", 0) == 0) tables_.push_back(array);
    }
  }

  FloatArray logits(const IntArray& input_ids, const IntArray& token_type_ids, const IntArray& position_ids,
                    const IntArray& cu_seqlens, const std::optional<IntArray>& prefixes,
                    std::size_t num_threads) const {
    const py::ssize_t sequences = cu_seqlens.size() - 1;
    if (sequences < 0 || cu_seqlens.at(0) != 0)
      throw py::value_error("cu_seqlens: expected num_sequences + 1 numbers from 0");
    const py::ssize_t pairs = prefixes ? prefixes->size() : sequences;
    if (pairs > sequences) throw py::value_error("prefixes: more than sequences");
    const py::ssize_t tokens = cu_seqlens.at(sequences);
    for (const IntArray* ids : {&input_ids, &token_type_ids, &position_ids}) {
      if (ids->size() != tokens) throw py::value_error("ids: expected " + std::to_string(tokens) + " of each kind");
    }
    Batch batch{};
    batch.num_prefixes = static_cast<std::size_t>(sequences - pairs);
    batch.num_pairs = static_cast<std::size_t>(pairs);
    batch.input_ids = input_ids.data();
    batch.token_type_ids = token_type_ids.data();
    batch.position_ids = position_ids.data();
    batch.cu_seqlens = cu_seqlens.data();
    batch.prefixes = prefixes ? prefixes->data() : nullptr;
    FloatArray logits({pairs, static_cast<py::ssize_t>(encoder_.num_labels())});
    float* output = logits.mutable_data();
    const py::gil_scoped_release released;
    encoder_.logits(batch, num_threads == 0 ? default_num_threads() : num_threads, output);
    return logits;
  }

  std::size_t shared_bytes() const { return encoder_.shared_bytes(); }
  const std::string& isa() const { return level_.name; }

 private:
  Encoder build(const program::Program& program, const Parameters& parameters, Format format) const {
    const py::gil_scoped_release released;
    return Encoder(program, parameters, format, *level_.kernels);
  }

  IsaLevel level_;
  Encoder encoder_;
  std::vector<FloatArray> tables_;
};

std::vector<std::string> isa_levels() {
  std::vector<std::string> names;
  for (const IsaLevel& level : available_levels()) names.push_back(level.name);
  return names;
}

}  // namespace

}  // namespace fastce

PYBIND11_MODULE(_core, module) {
  using namespace fastce;
  module.doc() = "The C++ side of fastce.";
  module.attr("version") = FASTCE_VERSION;
  module.def("cpu_features", &cpu_features,
             "Instruction-set extensions of this processor that fastce knows, widest last.");
  module.def("isa_levels", &isa_levels, "ISA levels of this processor, best last.");
  module.def(
      "choose_level", [](const std::string& isa) { return choose_level(isa).name; }, py::arg("isa") = "",
      "The ISA level that encoders use: the named one, else FASTCE_ISA, else the best.");
  module.def("usable_cpus", &usable_cpus, py::arg("root") = "",
             "CPUs that affinity and control groups leave to this process.");
  module.def("default_num_threads", &default_num_threads,
             "FASTCE_NUM_THREADS, else OMP_NUM_THREADS, else usable_cpus().");
  py::class_<PythonEncoder>(module, "Encoder", "A network with packed weights; any number of threads may use one.")
      .def(py::init<const py::object&, const std::map<std::string, FloatArray>&, const std::string&,
                    const std::string&>(),
           py::arg("program"), py::arg("weights"), py::arg("number_format"), py::arg("isa") = "")
      .def("logits", &PythonEncoder::logits, py::arg("input_ids"), py::arg("token_type_ids"), py::arg("position_ids"),
           py::arg("cu_seqlens"), py::arg("prefixes") = py::none(), py::arg("num_threads") = 0,
           "Logits, float32 [num_pairs, num_labels], of sequences end to end. With `prefixes`, int32 [num_pairs], the "
           "pairs are the last sequences, and each begins with the tokens of the one that it names among those before "
           "the pairs; -1: with none. 0 threads mean default_num_threads().")
      .def_property_readonly("shared_bytes", &PythonEncoder::shared_bytes,
                             "Bytes that a token takes while sequences share it; 0 where tokens depend on those behind "
                             "them, so that there can't be prefixes.")
      .def_property_readonly("isa", &PythonEncoder::isa, "The ISA level that runs.");
  bind_kernels(module);
  bind_training(module);
}
