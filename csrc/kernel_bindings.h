// Single kernels for tests and benchmarks.
#pragma once

#include <pybind11/numpy.h>

#include "kernels.h"

namespace fastce {

using FloatArray = pybind11::array_t<float, pybind11::array::c_style | pybind11::array::forcecast>;
using IntArray = pybind11::array_t<std::int32_t, pybind11::array::c_style | pybind11::array::forcecast>;

void bind_kernels(pybind11::module_& module);

}  // namespace fastce
