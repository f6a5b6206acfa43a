// In the middle of a network Python's own code, and whatever it reads, comes from far away in
// memory: asked in Python, these questions took 40 microseconds each, several times as long as
// when they are asked again at once.
#include "watch.h"

#include <pybind11/stl.h>

#include <array>
#include <cstring>
#include <vector>

namespace py = pybind11;

namespace pydl {
namespace {

bool is_true(PyObject* object) {
  const int answer = PyObject_IsTrue(object);
  if (answer < 0) throw py::error_already_set();
  return answer == 1;
}

bool equal(PyObject* one, PyObject* other) {
  const int answer = PyObject_RichCompareBool(one, other, Py_EQ);
  if (answer < 0) throw py::error_already_set();
  return answer == 1;
}

// Borrowed; null where there is none.
PyObject* item(PyObject* dict, PyObject* key) {
  PyObject* const found = PyDict_GetItemWithError(dict, key);
  if (found == nullptr && PyErr_Occurred()) throw py::error_already_set();
  return found;
}

PyObject* interned(const char* name) {
  PyObject* const made = PyUnicode_InternFromString(name);
  if (made == nullptr) throw py::error_already_set();
  return made;
}

// The fields of pydl.fusion.forwards._Child.
enum Field { kName, kKind, kCalled, kFacts, kInner };

// Whether a method that covers its class's is one with one of these codes: made by
// pydl.nn.at_once.standing_for.
bool is_ours(PyObject* method, PyObject* codes) {
  if (!PyMethod_Check(method)) return false;
  PyObject* const function = PyMethod_GET_FUNCTION(method);
  if (!PyFunction_Check(function)) return false;
  const int found = PySet_Contains(codes, PyFunction_GET_CODE(function));
  if (found < 0) throw py::error_already_set();
  return found == 1;
}

// Whether a layer that is not called computes what its class does, and nobody waits for its call.
bool is_plain(PyObject* held, PyObject* codes) {
  static PyObject* const hooks[] = {interned("_forward_hooks"), interned("_forward_pre_hooks"),
                                    interned("_backward_hooks"), interned("_backward_pre_hooks")};
  static PyObject* const methods[] = {interned("forward"), interned("_conv_forward")};
  for (PyObject* const name : hooks) {
    PyObject* const found = item(held, name);
    if (found == nullptr || is_true(found)) return false;
  }
  for (PyObject* const name : methods) {
    PyObject* const found = item(held, name);
    if (found != nullptr && !is_ours(found, codes)) return false;
  }
  return true;
}

bool has_facts(PyObject* module, PyObject* facts) {
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(facts); ++i) {
    PyObject* const fact = PyTuple_GET_ITEM(facts, i);
    const auto now =
        py::reinterpret_steal<py::object>(PyObject_GetAttr(module, PyTuple_GET_ITEM(fact, 0)));
    if (!now) throw py::error_already_set();
    if (!equal(now.ptr(), PyTuple_GET_ITEM(fact, 1))) return false;
  }
  return true;
}

// Whether `modules`, name by name, are those that `children` describes; appends them to `layers`,
// those in a Sequential behind it.
bool as_taken(const py::dict& modules, const py::tuple& children, const py::set& codes,
              const py::list& layers) {
  static PyObject* const inside = interned("_modules");
  if (modules.size() != children.size()) return false;
  Py_ssize_t at = 0;
  PyObject *name, *found;
  for (size_t i = 0; i < children.size() && PyDict_Next(modules.ptr(), &at, &name, &found); ++i) {
    PyObject* const child = PyTuple_GET_ITEM(children.ptr(), i);
    const auto module = py::reinterpret_borrow<py::object>(found);
    const auto field = [child](Field which) { return PyTuple_GET_ITEM(child, which); };
    if (reinterpret_cast<PyObject*>(Py_TYPE(found)) != field(kKind)) return false;
    if (!equal(name, field(kName))) return false;
    if (PyList_Append(layers.ptr(), found) < 0) throw py::error_already_set();
    if (field(kCalled) == Py_True) continue;
    const auto held = py::reinterpret_steal<py::object>(PyObject_GenericGetDict(found, nullptr));
    if (!held) throw py::error_already_set();
    if (!is_plain(held.ptr(), codes.ptr()) || !has_facts(found, field(kFacts))) return false;
    if (field(kInner) == Py_None) continue;
    PyObject* const within = item(held.ptr(), inside);
    if (within == nullptr || !PyDict_Check(within)) return false;
    if (!as_taken(py::reinterpret_borrow<py::dict>(within),
                  py::reinterpret_borrow<py::tuple>(field(kInner)), codes, layers)) {
      return false;
    }
  }
  return true;
}

// Tensors as they were: themselves, their versions and addresses, and some of their numbers.
class Watched {
 public:
  // `pieces`: address, bytes of a number, how many, bytes from one to the next.
  Watched(const py::tuple& tensors, const std::vector<std::array<size_t, 4>>& pieces)
      : tensors_(tensors) {
    for (const py::handle tensor : tensors) states_.push_back(state(tensor.ptr()));
    for (const auto& [address, size, count, step] : pieces) {
      pieces_.push_back({reinterpret_cast<const char*>(address), size, count, step});
      for (size_t i = 0; i < count; ++i) {
        const char* const number = pieces_.back().first + i * step;
        before_.insert(before_.end(), number, number + size);
      }
    }
  }

  // Whether these are the same tensors, unchanged. The numbers are read only where the addresses
  // are what they were.
  bool same(const py::tuple& given) const {
    if (given.size() != tensors_.size()) return false;
    for (size_t i = 0; i < given.size(); ++i) {
      PyObject* const tensor = PyTuple_GET_ITEM(given.ptr(), i);
      if (tensor != PyTuple_GET_ITEM(tensors_.ptr(), i) || state(tensor) != states_[i])
        return false;
    }
    const char* before = before_.data();
    for (const Piece& piece : pieces_) {
      for (size_t i = 0; i < piece.count; ++i, before += piece.size) {
        if (std::memcmp(piece.first + i * piece.step, before, piece.size) != 0) return false;
      }
    }
    return true;
  }

 private:
  struct Piece {
    const char* first;
    size_t size, count, step;
  };
  using State = std::pair<unsigned long long, unsigned long long>;  // version and address

  static unsigned long long number(PyObject* made) {
    const auto held = py::reinterpret_steal<py::object>(made);
    if (!held) throw py::error_already_set();
    const auto value = PyLong_AsUnsignedLongLong(held.ptr());
    if (PyErr_Occurred()) throw py::error_already_set();
    return value;
  }

  static State state(PyObject* tensor) {
    static PyObject* const version = interned("_version");
    static PyObject* const address = interned("data_ptr");
    if (tensor == Py_None) return {0, 0};
    return {number(PyObject_GetAttr(tensor, version)),
            number(PyObject_CallMethodNoArgs(tensor, address))};
  }

  py::tuple tensors_;
  std::vector<State> states_;
  std::vector<Piece> pieces_;
  std::vector<char> before_;
};

}  // namespace

void bind_watch(py::module_& cpu) {
  cpu.def(
      "as_taken", &as_taken, py::arg("modules"), py::arg("children"), py::arg("codes"),
      py::arg("layers"),
      "Whether modules, by name, are those that the children describe; appends them to layers.");
  py::class_<Watched>(cpu, "Watched",
                      "Tensors as they were: themselves, their versions and addresses, and the "
                      "numbers in the pieces (address, bytes of one, how many, bytes between).")
      .def(py::init<const py::tuple&, const std::vector<std::array<size_t, 4>>&>(),
           py::arg("tensors"), py::arg("pieces"))
      .def("same", &Watched::same, py::arg("tensors"), "Whether these are they, unchanged.");
}

}  // namespace pydl
