// Single kernels for tests and benchmarks, and the names that both sides of the border use.
#pragma once

#include <pybind11/numpy.h>

#include <string>

#include "kernels.h"

namespace fastce {

using FloatArray = pybind11::array_t<float, pybind11::array::c_style | pybind11::array::forcecast>;
using IntArray = pybind11::array_t<std::int32_t, pybind11::array::c_style | pybind11::array::forcecast>;

// Both throw std::invalid_argument for a name that they don't know.
Activation activation_named(const std::string& name);
Format format_named(const std::string& name);

void bind_kernels(pybind11::module_& module);

}  // namespace fastce
