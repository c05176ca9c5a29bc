// Runs independent tasks on a few threads that live for the call alone, so a fork never meets a pool.
// Costs one thread start (about 20 us) per extra thread; none when one thread or one task is asked for.
// Deterministic when tasks write to places of their own: which thread runs a task never shows.
#pragma once

#include <functional>

#include "portable.hpp"

namespace tidegauge {

// Calls task(index) once for each index in [0, n_tasks); the first exception, by index, is rethrown.
void parallel_for(i64 n_tasks, i32 n_threads, const std::function<void(i64)>& task);

}  // namespace tidegauge
