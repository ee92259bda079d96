// What the processor can do, asked at run time. Compiled for the baseline so that it runs anywhere.
#pragma once

#include <string>
#include <vector>

namespace fastce {

// Names of the instruction-set extensions that both the processor and the operating system support,
// among those that fastce has a use for, widest last. Empty on architectures other than x86-64 and AArch64.
std::vector<std::string> cpu_features();

}  // namespace fastce
