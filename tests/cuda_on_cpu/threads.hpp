// Runs the blocks of a CUDA kernel on the CPU: each thread of a block is a fiber, and a barrier hands over to the next.
// Pasted in front of a kernel's source; what a device leaves undefined is made visible: shared memory begins as rubbish.
#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#define __global__
#define __device__
#define __shared__ thread_local
#define __launch_bounds__(...)

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};
static thread_local Dim3 threadIdx, blockIdx, blockDim, gridDim;

static thread_local ucontext_t scheduler;
static thread_local ucontext_t* running = nullptr;

static void __syncthreads() {
  ucontext_t* me = running;
  swapcontext(me, &scheduler);
}

template <typename T>
static T atomicAdd(T* place, T value) {
  const T old = *place;
  *place = old + value;
  return old;
}
template <typename T>
static T atomicMin(T* place, T value) {
  const T old = *place;
  if (value < old) *place = value;
  return old;
}
template <typename T>
static T atomicMax(T* place, T value) {
  const T old = *place;
  if (value > old) *place = value;
  return old;
}
