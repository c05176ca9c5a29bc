#include "front/front.hpp"

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <unordered_map>
#include <utility>

namespace tidegauge {

namespace {

constexpr int kAsked = 64;  // calls that the library may match before it is asked for more
constexpr int kPingMs = 10'000;

std::string text_of(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string text;
  if (!buffer.Dump(&slices).ok()) return text;
  text.reserve(buffer.Length());
  for (const grpc::Slice& slice : slices) text.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return text;
}

grpc::ByteBuffer buffer_of(const std::string& text) {
  const grpc::Slice slice(text);
  return {&slice, 1};
}

grpc::Status status_of(const Refusal& refusal) {
  return {static_cast<grpc::StatusCode>(refusal.code), refusal.message, refusal.details};
}

// One call: asked for, matched, read, answered. It has one operation under way at a time.
struct Exchange {
  enum class Step { kMatch, kRead, kEnd };
  grpc::GenericServerContext context;
  grpc::GenericServerAsyncReaderWriter stream{&context};
  grpc::ByteBuffer message;
  Step step = Step::kMatch;
  std::size_t method = 0;

  void end(const grpc::Status& status) {
    step = Step::kEnd;
    stream.Finish(status, this);
  }
};

}  // namespace

struct Front::State {
  FrontOptions options;
  grpc::AsyncGenericService service;
  std::unique_ptr<grpc::ServerCompletionQueue> queue;
  std::unique_ptr<grpc::Server> server;
  std::thread poller;
  int port = 0;

  std::mutex mutex;
  std::condition_variable came, ended;
  bool stopping = false;
  std::uint64_t next = 0;
  std::size_t waiting_bytes = 0;
  std::size_t under_way = 0;  // exchanges; an operation of theirs needs the queue
  std::deque<Call> waiting;
  std::unordered_map<std::uint64_t, Exchange*> open;  // read, and not answered yet

  void ask() {
    const std::lock_guard held(mutex);
    if (stopping) return;
    auto* exchange = new Exchange;  // the completion queue owns it until its last step
    ++under_way;
    service.RequestCall(&exchange->context, &exchange->stream, queue.get(), queue.get(), exchange);
  }

  void poll() {
    void* tag = nullptr;
    bool ok = false;
    while (queue->Next(&tag, &ok)) proceed(static_cast<Exchange*>(tag), ok);
  }

  void proceed(Exchange* exchange, bool ok) {
    switch (exchange->step) {
      case Exchange::Step::kMatch:
        if (!ok) return drop(exchange);  // the server stops
        ask();
        match(exchange);
        return;
      case Exchange::Step::kRead:
        if (!ok) {
          exchange->end({grpc::StatusCode::INVALID_ARGUMENT, "the call ended without a message"});
          return;
        }
        offer(exchange);
        return;
      case Exchange::Step::kEnd: return drop(exchange);
    }
  }

  void drop(Exchange* exchange) {
    delete exchange;
    const std::lock_guard held(mutex);
    if (--under_way == 0) ended.notify_all();
  }

  void match(Exchange* exchange) {
    const auto found = std::ranges::find(options.methods, exchange->context.method());
    if (found == options.methods.end()) {
      exchange->end({grpc::StatusCode::UNIMPLEMENTED, "this port takes WritePredictions and WriteOutcomes alone"});
      return;
    }
    exchange->method = static_cast<std::size_t>(found - options.methods.begin());
    exchange->step = Exchange::Step::kRead;
    exchange->stream.Read(&exchange->message, exchange);
  }

  void offer(Exchange* exchange) {
    const auto& metadata = exchange->context.client_metadata();
    const auto found = metadata.find("authorization");
    Call call{.id = 0,
              .method = exchange->method,
              .authorization = found == metadata.end() ? "" : std::string(found->second.data(), found->second.size()),
              .body = text_of(exchange->message)};
    exchange->message.Clear();
    {
      const std::lock_guard held(mutex);
      const std::size_t size = call.body.size() + sizeof(Exchange);
      if (!stopping && waiting_bytes + size <= options.waiting_bytes) {
        call.id = next++;
        waiting_bytes += size;
        open.emplace(call.id, exchange);
        waiting.push_back(std::move(call));
        came.notify_one();
        return;
      }
    }
    exchange->end(status_of(options.busy));
  }

  // The exchange of a call that is answered now; none where the front has given it up.
  Exchange* close(std::uint64_t id) {
    const std::lock_guard held(mutex);
    const auto found = open.find(id);
    if (found == open.end()) return nullptr;
    Exchange* exchange = found->second;
    open.erase(found);
    exchange->step = Exchange::Step::kEnd;
    return exchange;
  }
};

Front::Front(const FrontOptions& options) : state_(std::make_unique<State>()) {
  State& state = *state_;
  state.options = options;
  grpc::ServerBuilder builder;
  std::shared_ptr<grpc::ServerCredentials> credentials = grpc::InsecureServerCredentials();
  if (!options.certificate.empty()) {
    grpc::SslServerCredentialsOptions tls(options.client_authority.empty()
                                              ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                                              : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
    tls.pem_root_certs = options.client_authority;
    tls.pem_key_cert_pairs.push_back({options.key, options.certificate});
    credentials = grpc::SslServerCredentials(tls);
  }
  builder.AddListeningPort(options.address, credentials, &state.port);
  builder.SetMaxReceiveMessageSize(static_cast<int>(options.message_bytes));
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, options.keepalive_ms);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kPingMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, kPingMs);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, options.connection_age_ms);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, 30'000);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, 1024);
  builder.RegisterAsyncGenericService(&state.service);
  state.queue = builder.AddCompletionQueue();
  state.server = builder.BuildAndStart();
  if (state.server == nullptr || state.port == 0) {
    if (state.server != nullptr) state.server->Shutdown();
    state.queue->Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (state.queue->Next(&tag, &ok)) {
    }
    throw std::invalid_argument(options.address + " cannot be listened on");
  }
  for (int i = 0; i < kAsked; ++i) state.ask();
  state.poller = std::thread([&state] { state.poll(); });
}

Front::~Front() { stop(0); }

int Front::port() const noexcept { return state_->port; }

std::vector<Call> Front::take(std::size_t most, int milliseconds) {
  State& state = *state_;
  std::unique_lock held(state.mutex);
  state.came.wait_for(held, std::chrono::milliseconds(milliseconds), [&state] { return !state.waiting.empty(); });
  std::vector<Call> calls;
  while (!state.waiting.empty() && calls.size() < most) {
    state.waiting_bytes -= state.waiting.front().body.size() + sizeof(Exchange);
    calls.push_back(std::move(state.waiting.front()));
    state.waiting.pop_front();
  }
  return calls;
}

void Front::reply(std::uint64_t id, const std::string& body) {
  if (Exchange* exchange = state_->close(id)) {
    exchange->stream.WriteAndFinish(buffer_of(body), grpc::WriteOptions(), grpc::Status::OK, exchange);
  }
}

void Front::refuse(std::uint64_t id, const Refusal& refusal) {
  if (Exchange* exchange = state_->close(id)) exchange->stream.Finish(status_of(refusal), exchange);
}

void Front::stop(int grace_ms) {
  State& state = *state_;
  {
    const std::lock_guard held(state.mutex);
    if (state.stopping) return;
    state.stopping = true;
  }
  state.server->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(grace_ms));
  std::vector<std::uint64_t> left;
  {
    const std::lock_guard held(state.mutex);
    for (const auto& [id, exchange] : state.open) left.push_back(id);
  }
  for (const std::uint64_t id : left) refuse(id, state.options.busy);
  {
    std::unique_lock held(state.mutex);  // an answer may be between its `close` and its operation
    state.ended.wait(held, [&state] { return state.under_way == 0; });
  }
  state.queue->Shutdown();
  state.poller.join();
}

}  // namespace tidegauge
