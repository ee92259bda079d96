#include "cpu_features.h"

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace fastce {

#if defined(__x86_64__)

// The compiler's built-in also asks the operating system whether it saves the wide registers.
std::vector<std::string> cpu_features() {
  __builtin_cpu_init();
  std::vector<std::string> found;
  const auto add = [&found](bool present, const char* name) {
    if (present) found.emplace_back(name);
  };
  add(__builtin_cpu_supports("avx"), "avx");
  add(__builtin_cpu_supports("fma"), "fma");
  add(__builtin_cpu_supports("avx2"), "avx2");
  add(__builtin_cpu_supports("avx512f"), "avx512f");
  add(__builtin_cpu_supports("avx512bw"), "avx512bw");
  add(__builtin_cpu_supports("avx512dq"), "avx512dq");
  add(__builtin_cpu_supports("avx512vl"), "avx512vl");
  add(__builtin_cpu_supports("avx512vnni"), "avx512_vnni");
  add(__builtin_cpu_supports("avx512bf16"), "avx512_bf16");
  return found;
}

#elif defined(__aarch64__) && defined(__linux__)

std::vector<std::string> cpu_features() {
  const unsigned long capabilities = getauxval(AT_HWCAP);
  std::vector<std::string> found;
  if (capabilities & HWCAP_ASIMD) found.emplace_back("neon");
  if (capabilities & HWCAP_ASIMDDP) found.emplace_back("dotprod");
  return found;
}

#else

std::vector<std::string> cpu_features() { return {}; }

#endif

}  // namespace fastce
