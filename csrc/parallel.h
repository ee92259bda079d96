// The threads that share the work of one call.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

namespace fastce {

// CPUs that this process may really use: its affinity, and the quotas of its control groups. `root` holds
// the /proc and /sys to read.
std::size_t usable_cpus(const std::string& root = "");

// FASTCE_NUM_THREADS, else OMP_NUM_THREADS, else usable_cpus().
std::size_t default_num_threads();

// Called with an index below the count, and a slot below the number of threads that no other running task of the call
// has.
using Task = std::function<void(std::size_t index, std::size_t slot)>;

// Runs task(0), ... task(count - 1) on the calling thread and up to `num_threads` - 1 helpers, and returns when all
// have ended. May be called from several threads at once and in a forked child. Where a task throws, tasks that have
// not begun are left out and the exception is thrown on.
void parallel_for(std::size_t count, std::size_t num_threads, const Task& task);

// `GOMP_parallel` of an OpenMP runtime: runs function(data) on `num_threads` threads.
using OpenMpParallel = void (*)(void (*function)(void*), void* data, unsigned num_threads, unsigned flags);

// parallel_for on the threads of an OpenMP runtime, for what happens between PyTorch's own operations: its threads
// keep their CPUs busy for a while after each, and threads of ours would have to share these. Null takes ours.
void parallel_for(std::size_t count, std::size_t num_threads, OpenMpParallel openmp, const Task& task);

}  // namespace fastce
