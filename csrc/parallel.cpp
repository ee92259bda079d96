#include "parallel.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace fastce {

namespace {

// CPUs that "<quota> <period>" in microseconds stand for; "max" and what can't be read have no limit.
double quota_cpus(const std::string& quota, const std::string& period) {
  const double microseconds = std::atof(quota.c_str());
  const double length = std::atof(period.c_str());
  return microseconds > 0 && length > 0 ? microseconds / length : HUGE_VAL;
}

// CPUs that the quota of one control group leaves, by the files of version 2 or of version 1.
double group_cpus(const std::string& folder) {
  std::string quota, period;
  std::ifstream(folder + "/cpu.max") >> quota >> period;
  if (quota.empty()) {
    std::ifstream(folder + "/cpu.cfs_quota_us") >> quota;
    std::ifstream(folder + "/cpu.cfs_period_us") >> period;
  }
  return quota_cpus(quota, period);
}

// The folders where the hierarchy with these controllers may be mounted; none where it says nothing about CPUs.
std::vector<std::string> hierarchy_folders(const std::string& controllers) {
  if (controllers.empty()) return {"/sys/fs/cgroup"};  // version 2
  if (("," + controllers + ",").find(",cpu,") == std::string::npos) return {};
  return {"/sys/fs/cgroup/" + controllers, "/sys/fs/cgroup/cpu"};
}

// The tightest quota among this process's control groups and those above them.
double control_group_cpus(const std::string& root) {
  double cpus = HUGE_VAL;
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // number:controllers:group
    std::istringstream fields(line);
    std::string number, controllers, path;
    std::getline(std::getline(std::getline(fields, number, ':'), controllers, ':'), path);
    for (const std::string& folder : hierarchy_folders(controllers)) {
      for (std::string group = path;; group.erase(group.find_last_of('/'))) {
        cpus = std::min(cpus, group_cpus(root + folder + group));
        if (group.find('/') == std::string::npos) break;
      }
    }
  }
  return cpus;
}

// What an environment variable of OpenMP's form says: a positive whole number, of which a list holds one for each level
// of nesting. 0 where it says nothing else.
std::size_t outermost_number(const char* text) {
  if (text == nullptr) return 0;
  char* end = nullptr;
  errno = 0;
  const long number = std::strtol(text, &end, 10);
  while (std::isspace(static_cast<unsigned char>(*end))) ++end;
  return errno == 0 && number > 0 && (*end == '\0' || *end == ',') ? static_cast<std::size_t>(number) : 0;
}

struct Job {
  const Task& task;
  const std::size_t count;
  const std::size_t most_helpers;
  std::atomic<std::size_t> next{0};
  std::size_t helpers = 0;              // that ever joined
  std::atomic<std::size_t> running{0};  // that have not left yet
  std::exception_ptr error{};
  std::once_flag failed{};

  void run(std::size_t slot) {
    try {
      for (std::size_t index; (index = next.fetch_add(1)) < count;) task(index, slot);
    } catch (...) {
      next.store(count);
      std::call_once(failed, [this] { error = std::current_exception(); });
    }
  }

  bool wants_help() const { return helpers < most_helpers && next.load() < count; }
};

// Waits without sleeping, for as long as waking up takes and not much more. The steps of a split block follow each
// other so quickly that threads that slept between them would spend much of the time waking up.
template <class Condition>
bool happens_soon(const Condition& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(100);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

// Threads that wait for jobs. Never destroyed: they may still wait when the process ends.
class Pool {
 public:
  void run(Job& job) {
    {
      const std::lock_guard lock(mutex_);
      while (size_ < job.most_helpers) {
        std::thread([this] { help(); }).detach();
        ++size_;
      }
      jobs_.push_back(&job);
      ++jobs_ever_;
    }
    job_added_.notify_all();
    job.run(0);
    const auto is_over = [&job] { return job.running.load() == 0; };
    {
      const std::lock_guard lock(mutex_);
      jobs_.erase(std::find(jobs_.begin(), jobs_.end(), &job));
    }
    if (happens_soon(is_over)) return;
    std::unique_lock lock(mutex_);
    helper_left_.wait(lock, is_over);
  }

 private:
  void help() {
    std::unique_lock lock(mutex_);
    while (true) {
      const auto wants_help = [](const Job* job) { return job->wants_help(); };
      const auto found = std::find_if(jobs_.begin(), jobs_.end(), wants_help);
      if (found == jobs_.end()) {
        const auto is_new = [this, seen = jobs_ever_.load()] { return jobs_ever_.load() != seen; };
        lock.unlock();
        happens_soon(is_new);
        lock.lock();
        job_added_.wait(lock, is_new);
        continue;
      }
      Job& job = **found;
      ++job.running;
      const std::size_t slot = ++job.helpers;
      lock.unlock();
      job.run(slot);
      lock.lock();
      --job.running;  // from here on the job may be gone
      helper_left_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable job_added_;
  std::condition_variable helper_left_;
  std::vector<Job*> jobs_;
  std::atomic<std::size_t> jobs_ever_{0};
  std::size_t size_ = 0;
};

// A forked child has none of its parent's threads, and perhaps locked mutexes, so it starts afresh and leaves the old
// pool be.
struct OwnedPool {
  const pid_t process;
  Pool pool;
};
std::atomic<OwnedPool*> current_pool{nullptr};

Pool& pool() {
  OwnedPool* current = current_pool.load();
  const pid_t process = getpid();
  while (current == nullptr || current->process != process) {
    auto* fresh = new OwnedPool{process, {}};
    if (current_pool.compare_exchange_strong(current, fresh)) return fresh->pool;
    delete fresh;  // another thread was first; `current` is now what it made
  }
  return current->pool;
}

}  // namespace

std::size_t usable_cpus(const std::string& root) {
  cpu_set_t allowed;
  double cpus = std::thread::hardware_concurrency();
  if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0) cpus = CPU_COUNT(&allowed);
  return static_cast<std::size_t>(std::max(1.0, std::ceil(std::min(cpus, control_group_cpus(root)))));
}

std::size_t default_num_threads() {
  for (const char* name : {"FASTCE_NUM_THREADS", "OMP_NUM_THREADS"}) {
    if (const std::size_t number = outermost_number(std::getenv(name))) return number;
  }
  return usable_cpus();
}

void parallel_for(std::size_t count, std::size_t num_threads, const Task& task) {
  const std::size_t helpers = std::max<std::size_t>(std::min(count, num_threads), 1) - 1;
  Job job{task, count, helpers};
  if (helpers == 0) {
    job.run(0);
  } else {
    pool().run(job);
  }
  if (job.error) std::rethrow_exception(job.error);
}

void parallel_for(std::size_t count, std::size_t num_threads, OpenMpParallel openmp, const Task& task) {
  const std::size_t threads = std::min(count, num_threads);
  if (openmp == nullptr || threads <= 1) return parallel_for(count, threads, task);
  struct Team {
    Job job;
    std::atomic<std::size_t> slots;
  } team{{task, count, threads - 1}, {0}};
  const auto work = [](void* data) {
    Team& shared = *static_cast<Team*>(data);
    shared.job.run(shared.slots.fetch_add(1));
  };
  openmp(work, &team, static_cast<unsigned>(threads), 0);
  if (team.job.error) std::rethrow_exception(team.job.error);
}

}  // namespace fastce
