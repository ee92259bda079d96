#include "dispatch.h"

#include <algorithm>
#include <cstdlib>
#include <sstream>
#include <stdexcept>

#include "cpu_features.h"

namespace fastce {

std::vector<IsaLevel> available_levels() {
  const std::vector<std::string> present = cpu_features();
  std::vector<IsaLevel> levels;
  const auto add = [&](const char* name, const char* features, const Kernels& kernels) {
    std::istringstream words(features);
    for (std::string feature; words >> feature;) {
      if (std::find(present.begin(), present.end(), feature) == present.end()) return;
    }
    levels.push_back({name, &kernels});
  };
#define FASTCE_ON_any(...) __VA_ARGS__
#if defined(__x86_64__)
#define FASTCE_ON_x86_64(...) __VA_ARGS__
#else
#define FASTCE_ON_x86_64(...)
#endif
#define FASTCE_ISA_LEVEL(name, architecture, features, flags) \
  FASTCE_ON_##architecture(add(#name, features, kernels_##name);)
#include "isa_levels.inc"
#undef FASTCE_ISA_LEVEL
  return levels;
}

IsaLevel choose_level(std::string name) {
  const char* variable = std::getenv("FASTCE_ISA");
  if (name.empty() && variable != nullptr) name = variable;
  const std::vector<IsaLevel> levels = available_levels();
  if (name.empty()) return levels.back();
  std::string names;
  for (const IsaLevel& level : levels) {
    if (level.name == name) return level;
    names += (names.empty() ? "" : ", ") + level.name;
  }
  throw std::invalid_argument("ISA level '" + name + "': this processor has " + names);
}

}  // namespace fastce
