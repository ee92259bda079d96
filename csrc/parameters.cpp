#include "parameters.h"

#include <stdexcept>

namespace fastce {

const float* ParameterReader::matrix(const std::string& name, std::size_t rows, std::size_t columns) {
  const auto found = parameters_.find(name);
  if (found == parameters_.end()) throw std::invalid_argument("parameter '" + name + "' is missing");
  const Parameter& parameter = found->second;
  if (parameter.rows != rows || parameter.columns != columns) {
    throw std::invalid_argument("parameter '" + name + "': expected shape [" + std::to_string(rows) + ", " +
                                std::to_string(columns) + "], got [" + std::to_string(parameter.rows) + ", " +
                                std::to_string(parameter.columns) + "]");
  }
  read_.insert(name);
  return parameter.data;
}

LinearParameters ParameterReader::linear(const std::string& name, std::size_t out, std::size_t in, bool has_bias) {
  const float* weight = matrix(name + ".weight", out, in);
  return {{weight, out, in, in, 1}, has_bias ? vector(name + ".bias", out) : nullptr};
}

void ParameterReader::expect_none_left() const {
  for (const auto& [name, parameter] : parameters_) {
    if (read_.count(name) == 0) throw std::invalid_argument("parameter '" + name + "' is not one of the network");
  }
}

}  // namespace fastce
