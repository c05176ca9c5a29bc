// Takes unary gRPC calls and hands them over many at a time, so that whoever answers pays for a turn and not for a call.
// Costs one thread, and for a call a read and a write on its completion queue and a copy of its message.
// Deterministic in nothing but order: calls are handed over as they come.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace tidegauge {

struct Refusal {
  int code = 0;         // as gRPC numbers them
  std::string message;  // for people
  std::string details;  // google.rpc.Status, serialized
};

struct FrontOptions {
  std::string address;
  std::vector<std::string>
      methods;  // the full names of those that are taken, such as "/tidegauge.v1.IngestService/WriteOutcomes"
  std::string certificate, key, client_authority;  // PEM; plain text where there is no certificate
  std::size_t message_bytes = 4U << 20;            // largest message
  std::size_t waiting_bytes = 64U << 20;           // of calls that wait to be taken
  int keepalive_ms = 30'000;
  int connection_age_ms = 1'800'000;
  Refusal busy;  // what a call is told that comes while so many bytes wait
};

struct Call {
  std::uint64_t id;
  std::size_t method;  // its place among the methods
  std::string authorization;
  std::string body;
};

class Front {
 public:
  explicit Front(const FrontOptions& options);
  ~Front();
  Front(const Front&) = delete;
  Front& operator=(const Front&) = delete;

  [[nodiscard]] int port() const noexcept;
  // Calls that wait, `most` at once; after so many milliseconds without one, none.
  [[nodiscard]] std::vector<Call> take(std::size_t most, int milliseconds);
  void reply(std::uint64_t id, const std::string& body);
  void refuse(std::uint64_t id, const Refusal& refusal);
  // Takes no new calls, lets those that are open end for so long, and cuts them off then.
  void stop(int grace_ms);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tidegauge
