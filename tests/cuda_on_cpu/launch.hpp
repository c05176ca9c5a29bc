// Pasted behind a kernel's source, with KERNEL as its name: `launch` runs a grid of it. All arguments are 64 bits wide.

namespace tidegauge {
constexpr std::size_t kCounters = 12'288;
constexpr unsigned kCanary = 0xdeadbeefU;
thread_local u32 counters[kCounters + 64];
}  // namespace tidegauge

static thread_local const std::uint64_t* given;
static thread_local std::vector<char>* finished;

static void run_thread(unsigned thread) {
  using Kernel = void (*)(std::uint64_t, std::uint64_t, std::uint64_t, std::uint64_t, std::uint64_t, std::uint64_t,
                          std::uint64_t, std::uint64_t, std::uint64_t, std::uint64_t, std::uint64_t, std::uint64_t,
                          std::uint64_t, std::uint64_t);
  const std::uint64_t* a = given;
  reinterpret_cast<Kernel>(reinterpret_cast<void*>(&tidegauge::KERNEL))(
      a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12], a[13]);
  (*finished)[thread] = 1;
}

// 0, or 1 when a block wrote behind its shared memory.
extern "C" int launch(unsigned n_blocks, unsigned n_threads, unsigned shared_bytes, const std::uint64_t* arguments) {
  constexpr std::size_t kStack = 64 << 10;
  static thread_local std::vector<char> stacks;
  std::vector<ucontext_t> threads(n_threads);
  std::vector<char> done(n_threads);
  stacks.resize(n_threads * kStack);
  given = arguments;
  finished = &done;
  gridDim.x = n_blocks;
  blockDim.x = n_threads;
  for (blockIdx.x = 0; blockIdx.x < n_blocks; ++blockIdx.x) {
    std::memset(tidegauge::counters, 0xa5, sizeof tidegauge::counters);
    for (std::size_t i = shared_bytes / 4; i < tidegauge::kCounters + 64; ++i) tidegauge::counters[i] = tidegauge::kCanary;
    for (unsigned thread = 0; thread < n_threads; ++thread) {
      ucontext_t& context = threads[thread];
      getcontext(&context);
      context.uc_stack.ss_sp = stacks.data() + thread * kStack;
      context.uc_stack.ss_size = kStack;
      context.uc_link = &scheduler;
      makecontext(&context, reinterpret_cast<void (*)()>(run_thread), 1, thread);
      done[thread] = 0;
    }
    for (bool waiting = true; waiting;) {
      waiting = false;
      for (unsigned thread = 0; thread < n_threads; ++thread) {
        if (done[thread]) continue;
        waiting = true;
        threadIdx.x = thread;
        running = &threads[thread];
        swapcontext(&scheduler, running);
      }
    }
    for (std::size_t i = shared_bytes / 4; i < tidegauge::kCounters + 64; ++i) {
      if (tidegauge::counters[i] != tidegauge::kCanary) return 1;
    }
  }
  return 0;
}
