#include "launch.h"

#include <structmember.h>

namespace pydl {
namespace {

struct LaunchObject {
  PyObject_HEAD vectorcallfunc call;
  Launch* launch;
};

PyObject* call_launch(PyObject* self, PyObject* const* given, size_t count, PyObject*) {
  try {
    reinterpret_cast<LaunchObject*>(self)->launch->run(given, PyVectorcall_NARGS(count));
    Py_RETURN_NONE;
  } catch (pybind11::error_already_set& error) {
    error.restore();
  } catch (...) {
    const std::exception_ptr error = std::current_exception();
    try {
      pybind11::cpp_function([error] { std::rethrow_exception(error); })();  // which translates it
    } catch (pybind11::error_already_set& translated) {
      translated.restore();
    }
  }
  return nullptr;
}

void destroy_launch(PyObject* self) {
  PyTypeObject* const type = Py_TYPE(self);
  delete reinterpret_cast<LaunchObject*>(self)->launch;
  type->tp_free(self);
  Py_DECREF(type);
}

PyTypeObject* launch_type() {
  static PyMemberDef members[] = {
      {"__vectorcalloffset__", T_PYSSIZET, offsetof(LaunchObject, call), READONLY, nullptr}, {}};
  static PyType_Slot slots[] = {{Py_tp_dealloc, reinterpret_cast<void*>(destroy_launch)},
                                {Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
                                {Py_tp_members, members},
                                {}};
  static PyType_Spec spec = {"pydl.Launch", sizeof(LaunchObject), 0,
                             Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL, slots};
  static PyTypeObject* const made = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&spec));
  if (made == nullptr) throw pybind11::error_already_set();
  return made;
}

}  // namespace

pybind11::object callable(std::unique_ptr<Launch> launch) {
  auto* const made = PyObject_New(LaunchObject, launch_type());
  if (made == nullptr) throw pybind11::error_already_set();
  made->call = call_launch;
  made->launch = launch.release();
  return pybind11::reinterpret_steal<pybind11::object>(reinterpret_cast<PyObject*>(made));
}

}  // namespace pydl
