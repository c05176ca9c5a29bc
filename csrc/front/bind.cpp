#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "front/front.hpp"

namespace py = pybind11;
using namespace pybind11::literals;

namespace tidegauge {

namespace {

py::list take(Front& front, std::size_t most, int milliseconds) {
  std::vector<Call> calls;
  {
    const py::gil_scoped_release unlocked;
    calls = front.take(most, milliseconds);
  }
  py::list taken(calls.size());
  for (std::size_t i = 0; i < calls.size(); ++i) {
    const Call& call = calls[i];
    taken[i] = py::make_tuple(call.id, call.method, py::bytes(call.authorization), py::bytes(call.body));
  }
  return taken;
}

void reply(Front& front, std::uint64_t id, const std::string& body) {
  const py::gil_scoped_release unlocked;
  front.reply(id, body);
}

void refuse(Front& front, std::uint64_t id, const Refusal& refusal) {
  const py::gil_scoped_release unlocked;
  front.refuse(id, refusal);
}

void stop(Front& front, int grace_ms) {
  const py::gil_scoped_release unlocked;
  front.stop(grace_ms);
}

}  // namespace

}  // namespace tidegauge

// NOLINTNEXTLINE: the macro's own
PYBIND11_MODULE(_front, m) {
  using namespace tidegauge;
  m.doc() = "Unary gRPC calls, handed over many at a time.";

  py::class_<Refusal>(m, "Refusal", "Why a call is refused, as gRPC says it.")
      .def(py::init([](int code, std::string message, const py::bytes& details) {
             return Refusal{code, std::move(message), std::string(details)};
           }),
           "code"_a, "message"_a, "details"_a);

  py::class_<FrontOptions>(m, "FrontOptions", "Where a front listens, and what it takes.")
      .def(py::init<>())
      .def_readwrite("address", &FrontOptions::address)
      .def_readwrite("methods", &FrontOptions::methods)
      .def_readwrite("certificate", &FrontOptions::certificate)
      .def_readwrite("key", &FrontOptions::key)
      .def_readwrite("client_authority", &FrontOptions::client_authority)
      .def_readwrite("message_bytes", &FrontOptions::message_bytes)
      .def_readwrite("waiting_bytes", &FrontOptions::waiting_bytes)
      .def_readwrite("keepalive_ms", &FrontOptions::keepalive_ms)
      .def_readwrite("connection_age_ms", &FrontOptions::connection_age_ms)
      .def_readwrite("busy", &FrontOptions::busy);

  py::class_<Front>(m, "Front", "Listens from its construction on until it is stopped.")
      .def(py::init<const FrontOptions&>(), "options"_a)
      .def_property_readonly("port", &Front::port, "Port that it listens on.")
      .def("take", take, "most"_a, "milliseconds"_a,
           "Calls that wait: id, place of the method, authorization, message.")
      .def("reply", reply, "id"_a, "body"_a, "Answer a call.")
      .def("refuse", refuse, "id"_a, "refusal"_a, "Answer a call with an error.")
      .def("stop", stop, "grace_ms"_a, "Let open calls end for so long, then cut them off.");
}
