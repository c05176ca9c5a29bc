// Sends one message many times as unary calls, some at once, each with a request id of its own, and says how long they took.
//
//   unary_load ADDRESS METHOD MESSAGE_FILE ID_OFFSET ID_LENGTH CALLS IN_FLIGHT
//
// prints: seconds, processor seconds of this process, microseconds at p50 and at p99, calls that failed.
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

struct Exchange {
  grpc::ClientContext context;
  grpc::ByteBuffer reply;
  grpc::Status status;
  Clock::time_point began = Clock::now();
  std::unique_ptr<grpc::GenericClientAsyncResponseReader> reader;
};

double seconds(Clock::duration time) { return std::chrono::duration<double>(time).count(); }

}  // namespace

int main(int count, char** words) {
  if (count != 8) return 2;
  const std::string method = words[2];
  std::ifstream file(words[3], std::ios::binary);
  std::string message((std::istreambuf_iterator<char>(file)), {});
  const std::size_t offset = std::stoul(words[4]), length = std::stoul(words[5]), calls = std::stoul(words[6]);
  const std::size_t in_flight = std::stoul(words[7]);

  grpc::GenericStub stub(grpc::CreateChannel(words[1], grpc::InsecureChannelCredentials()));
  grpc::CompletionQueue queue;
  std::size_t sent = 0, failed = 0;
  std::vector<double> times;
  times.reserve(calls);
  const auto send = [&] {
    std::string id = std::to_string(sent++);
    id.insert(0, length - id.size(), '0');
    message.replace(offset, length, id);
    const grpc::Slice slice(message);
    auto* exchange = new Exchange;
    exchange->reader = stub.PrepareUnaryCall(&exchange->context, method, grpc::ByteBuffer(&slice, 1), &queue);
    exchange->reader->StartCall();
    exchange->reader->Finish(&exchange->reply, &exchange->status, exchange);
  };

  const auto began = Clock::now();
  while (sent < std::min(in_flight, calls)) send();
  void* tag = nullptr;
  bool ok = false;
  while (times.size() < calls && queue.Next(&tag, &ok)) {
    const std::unique_ptr<Exchange> exchange(static_cast<Exchange*>(tag));
    if (!exchange->status.ok() && failed++ == 0) std::fprintf(stderr, "%s\n", exchange->status.error_message().c_str());
    times.push_back(seconds(Clock::now() - exchange->began));
    if (sent < calls) send();
  }
  const double whole = seconds(Clock::now() - began);
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  const double processor = static_cast<double>(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                           static_cast<double>(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
  std::ranges::sort(times);
  std::printf("%.6f %.6f %.1f %.1f %zu\n", whole, processor, times[calls / 2] * 1e6, times[calls * 99 / 100] * 1e6,
              failed);
  return 0;
}
