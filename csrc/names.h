// The names of choices, which both sides of the border use.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "kernels.h"

namespace fastce {

template <class T>
using Names = std::vector<std::pair<std::string, T>>;

// The choice of a name. Throws std::invalid_argument, which begins with `what`, for one that is not there.
template <class T>
const T& named(const Names<T>& names, const std::string& what, const std::string& name) {
  std::string known;
  for (const auto& [candidate, choice] : names) {
    if (candidate == name) return choice;
    known += (known.empty() ? "" : ", ") + candidate;
  }
  throw std::invalid_argument(what + " '" + name + "' is none of " + known);
}

inline const Names<Activation> kActivations = {{"gelu", Activation::gelu},
                                               {"gelu_tanh", Activation::gelu_tanh},
                                               {"relu", Activation::relu},
                                               {"silu", Activation::silu},
                                               {"tanh", Activation::tanh}};

inline const Names<Format> kFormats = {{"fp32", Format::fp32}, {"bf16", Format::bf16}, {"int8", Format::int8}};

}  // namespace fastce
