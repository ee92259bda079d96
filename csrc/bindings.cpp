// The border between Python and C++: conversions and docstrings only.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "cpu_features.h"

PYBIND11_MODULE(_core, module) {
  module.doc() = "The C++ side of fastce.";
  module.attr("version") = FASTCE_VERSION;
  module.def("cpu_features", &fastce::cpu_features,
             "Instruction-set extensions of this processor that fastce knows, widest last.");
}
