#include "parallel.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

namespace tidegauge {

void parallel_for(i64 n_tasks, i32 n_threads, const std::function<void(i64)>& task) {
  const i64 n_workers = std::min<i64>(n_threads, n_tasks);
  if (n_workers <= 1) {
    for (i64 index = 0; index < n_tasks; ++index) task(index);
    return;
  }
  std::atomic<i64> next{0};
  std::vector<std::exception_ptr> failures(static_cast<std::size_t>(n_tasks));
  const auto work = [&] {
    for (i64 index = next++; index < n_tasks; index = next++) {
      try {
        task(index);
      } catch (...) {
        failures[static_cast<std::size_t>(index)] = std::current_exception();
      }
    }
  };
  {
    std::vector<std::jthread> threads;
    try {
      for (i64 worker = 1; worker < n_workers; ++worker) threads.emplace_back(work);
    } catch (const std::system_error&) {
      // No more threads are to be had: those that started, and this one, do the work.
    }
    work();
  }
  for (const auto& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
}

}  // namespace tidegauge
