// Many callers on one thread pool, for ThreadSanitizer: `make test-tsan`.
#include <cstdio>
#include <stdexcept>
#include <thread>
#include <vector>

#include "parallel.h"

namespace {

// Each index must be run once, and no two tasks that run at once may have the same slot.
bool call_once(std::size_t count, std::size_t num_threads) {
  std::vector<int> runs(count, 0);
  std::vector<std::size_t> sums(num_threads, 0);  // written without a lock: a slot shared by two threads is a race
  fastce::parallel_for(count, num_threads, [&](std::size_t index, std::size_t slot) {
    ++runs[index];
    sums[slot] += index;
  });
  std::size_t sum = 0;
  for (const std::size_t part : sums) sum += part;
  for (const int number : runs) {
    if (number != 1) return false;
  }
  return sum == count * (count - (count > 0)) / 2;
}

bool call_with_error() {
  try {
    fastce::parallel_for(100, 4, [](std::size_t index, std::size_t) {
      if (index == 50) throw std::runtime_error("as it should");
    });
  } catch (const std::runtime_error&) {
    return true;
  }
  return false;
}

}  // namespace

int main() {
  std::vector<std::thread> callers;
  std::vector<int> failures(16, 0);
  for (std::size_t caller = 0; caller < failures.size(); ++caller) {
    callers.emplace_back([&failures, caller] {
      for (std::size_t round = 0; round < 200; ++round) {
        failures[caller] += !call_once((caller * 7 + round) % 40, round % 9 + 1);
        failures[caller] += !call_with_error();
      }
    });
  }
  int failed = 0;
  for (std::size_t caller = 0; caller < failures.size(); ++caller) {
    callers[caller].join();
    failed += failures[caller];
  }
  std::printf("%d failures\n", failed);
  return failed != 0;
}
