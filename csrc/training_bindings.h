// The ops of training for Python.
#pragma once

#include <pybind11/pybind11.h>

namespace fastce {

void bind_training(pybind11::module_& module);

}  // namespace fastce
