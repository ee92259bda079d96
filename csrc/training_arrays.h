// Arrays of Python as the kernels of training take them: checked, never copied, with results written into them.
#pragma once

#include <pybind11/numpy.h>

#include <optional>
#include <string>
#include <vector>

#include "training_calls.h"

namespace fastce {

namespace py = pybind11;

// bf16 values come as int16.
using Floats = py::array_t<float, py::array::c_style>;
using Ints = py::array_t<std::int32_t, py::array::c_style>;
using Shape = std::vector<std::size_t>;

inline std::string text_of(const Shape& shape) {
  std::string text;
  for (const std::size_t size : shape) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "(" + text + ")";
}

// Where it is, and of what shape it has to be.
struct Expected {
  const char* name;
  Shape shape;

  void check(const py::array& array) const {
    const Shape shape_found(array.shape(), array.shape() + array.ndim());
    if (shape_found != shape) {
      throw py::value_error(name + (": expected the shape " + text_of(shape)) + ", got " + text_of(shape_found));
    }
  }
};

inline const float* read(const Floats& array, const Expected& expected) {
  expected.check(array);
  return array.data();
}
inline const float* read(const std::optional<Floats>& array, const Expected& expected) {
  return array ? read(*array, expected) : nullptr;
}

inline float* write(Floats& array, const Expected& expected) {
  expected.check(array);
  return array.mutable_data();
}
inline float* write(std::optional<Floats>& array, const Expected& expected) {
  return array ? write(*array, expected) : nullptr;
}

// Whether the values are bf16; throws where they are neither that nor fp32, or not laid out as kernels read them.
inline bool is_bf16(const py::array& array, const Expected& expected) {
  expected.check(array);
  const bool is_bf16 = py::isinstance<py::array_t<std::int16_t>>(array);
  if ((!is_bf16 && !py::isinstance<py::array_t<float>>(array)) || array.strides(1) != array.itemsize()) {
    throw py::value_error(expected.name + std::string(": expected float32, or bfloat16 as int16, with a row's values "
                                                      "side by side"));
  }
  return is_bf16;
}

inline std::size_t stride_of(const py::array& array) {
  return static_cast<std::size_t>(array.strides(0) / array.itemsize());
}

inline Values read_values(const py::array& array, const Expected& expected) {
  return {is_bf16(array, expected), array.data(), stride_of(array)};
}
inline Values read_values(const std::optional<py::array>& array, const Expected& expected) {
  return array ? read_values(*array, expected) : Values{};
}

inline MutableValues write_values(py::array& array, const Expected& expected) {
  return {is_bf16(array, expected), array.mutable_data(), stride_of(array)};
}
inline MutableValues write_values(std::optional<py::array>& array, const Expected& expected) {
  return array ? write_values(*array, expected) : MutableValues{};
}

inline std::size_t rows_of(const py::array& array) { return static_cast<std::size_t>(array.shape(0)); }
inline std::size_t columns_of(const py::array& array) {
  if (array.ndim() != 2)
    throw py::value_error("expected a matrix, got " + std::to_string(array.ndim()) + " dimensions");
  return static_cast<std::size_t>(array.shape(1));
}

}  // namespace fastce
