// Which ISA level runs: the rows of isa_levels.inc, and the choice between them.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace fastce {

struct IsaLevel {
  std::string name;
  const Kernels* kernels;
};

// The levels that this processor has, from the one that runs anywhere to the best.
std::vector<IsaLevel> available_levels();

// A level by name; an empty one asks the environment variable FASTCE_ISA, and without that takes the best. Throws
// std::invalid_argument for a level that doesn't exist or that the processor lacks.
IsaLevel choose_level(std::string name);

}  // namespace fastce
