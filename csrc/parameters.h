// A network's parameters by name, before they are packed.
#pragma once

#include <map>
#include <set>
#include <string>

#include "packed_linear.h"

namespace fastce {

// An fp32 parameter [rows][columns], contiguous; a vector has one row.
struct Parameter {
  const float* data;
  std::size_t rows;
  std::size_t columns;
};

// Parameters by the names of `parameters` in fastce/steps.py, such as "layers.0.query.weight".
using Parameters = std::map<std::string, Parameter>;

// Hands out parameters; throws std::invalid_argument for one that is missing or of another shape.
class ParameterReader {
 public:
  explicit ParameterReader(const Parameters& parameters) : parameters_(parameters) {}

  const float* matrix(const std::string& name, std::size_t rows, std::size_t columns);
  const float* vector(const std::string& name, std::size_t size) { return matrix(name, 1, size); }
  LinearParameters linear(const std::string& name, std::size_t out, std::size_t in, bool has_bias);

  // Throws std::invalid_argument for a parameter that nobody has asked for.
  void expect_none_left() const;

 private:
  const Parameters& parameters_;
  std::set<std::string> read_;
};

}  // namespace fastce
