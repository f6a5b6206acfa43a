// Launches: calls of the extension's functions, made before and to be made again with other memory.
//
// Sizes, strides, windows and the name of an activation are read from Python when a launch is kept;
// from then on it takes a tenth of a microsecond a tensor.
#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "tensor_caster.h"

namespace pydl {

// The memory of a torch.Tensor.
inline char* memory_of(PyObject* tensor) {
  static PyObject* const data_ptr = PyUnicode_InternFromString("data_ptr");
  const auto address =
      pybind11::reinterpret_steal<pybind11::object>(PyObject_CallMethodNoArgs(tensor, data_ptr));
  const auto memory = address ? PyLong_AsUnsignedLongLong(address.ptr()) : 0;
  if (PyErr_Occurred()) throw pybind11::error_already_set();
  return reinterpret_cast<char*>(memory);
}

class Launch {
 public:
  virtual ~Launch() = default;

  // With the memory of these objects, in the order of the tensors that the function takes; after
  // them, perhaps, the threads or the stream.
  void run(PyObject* const* given, size_t count) {
    const size_t tensors = places_.size();
    check(count == tensors || count == tensors + 1, "a launch of ", tensors, " tensors got ",
          count);
    char* memory[64];
    for (size_t i = 0; i < tensors; ++i) memory[i] = memory_of(given[i]);
    if (count > tensors) *where_ = PyLong_AsLongLong(given[tensors]);
    if (PyErr_Occurred()) throw pybind11::error_already_set();
    // From here on nothing lets go of the interpreter until the function has its own copies.
    for (size_t i = 0; i < tensors; ++i) places_[i]->data = memory[i] + distances_[i];
    start();
  }

 protected:
  virtual void start() = 0;

  void keep(Tensor& tensor, const std::vector<pybind11::object>& bases) {
    if (tensor.data == nullptr) return;
    check(places_.size() < bases.size() && places_.size() < 64, "a launch keeps no such tensor");
    distances_.push_back(static_cast<char*>(tensor.data) - memory_of(bases[places_.size()].ptr()));
    places_.push_back(&tensor);
  }
  template <class Other>
  void keep(Other&, const std::vector<pybind11::object>&) {}

  std::vector<Tensor*> places_;
  std::vector<ptrdiff_t> distances_;  // in bytes, from the memory that is given
  int64_t* where_ = nullptr;
};

template <class Function, class... Arguments>
class LaunchOf final : public Launch {
 public:
  LaunchOf(Function function, const std::vector<pybind11::object>& bases, Arguments... arguments)
      : function_(function), arguments_(std::move(arguments)...) {
    std::apply([&](auto&... each) { (keep(each, bases), ...); }, arguments_);
    where_ = &std::get<sizeof...(Arguments) - 1>(arguments_);
  }

 private:
  void start() override { std::apply(function_, arguments_); }

  Function function_;
  std::tuple<Arguments...> arguments_;
};

// The Python object that calls a launch.
pybind11::object callable(std::unique_ptr<Launch> launch);

template <class Function, class... Arguments>
void def_launch(pybind11::module_& module, const std::string& name, Function function,
                void (Function::*)(Arguments...) const) {
  module.def(name.c_str(), function);
  module.def(("keep_" + name).c_str(), [function](const std::vector<pybind11::object>& bases,
                                                  std::decay_t<Arguments>... arguments) {
    return callable(std::make_unique<LaunchOf<Function, std::decay_t<Arguments>...>>(
        function, bases, std::move(arguments)...));
  });
}

// Binds a function that starts a kernel; its last argument says where. Beside it `keep_<name>`,
// which takes the same after the tensors in whose memory those among them lie, absent ones left
// out, and returns the launch: to be called with the like of these, to do the same in theirs.
template <class Function>
void def_launch(pybind11::module_& module, const std::string& name, Function function) {
  def_launch(module, name, function, &Function::operator());
}

}  // namespace pydl
