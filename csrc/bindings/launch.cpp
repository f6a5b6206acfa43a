#include "launch.h"

#include <structmember.h>

#include <algorithm>

namespace pydl {
namespace {

struct LaunchObject {
  PyObject_HEAD vectorcallfunc call;
  Launch* launch;
  // On a GPU (on_stream): its number, and what PyTorch has to be asked; else null.
  PyObject *device, *current_device, *current_stream, *elsewhere;
};

pybind11::object owned(PyObject* made) {
  if (made == nullptr) throw pybind11::error_already_set();
  return pybind11::reinterpret_steal<pybind11::object>(made);
}

// On the current stream of the GPU that the launch is for; where that is not the current one,
// through `elsewhere`.
void launch_on_stream(LaunchObject* self, PyObject* const* given, size_t count) {
  const pybind11::object current = owned(PyObject_CallNoArgs(self->current_device));
  const int here = PyObject_RichCompareBool(current.ptr(), self->device, Py_EQ);
  if (here < 0) throw pybind11::error_already_set();
  check(count < 65, "a launch of at most 64 tensors got ", count);
  PyObject* all[66] = {reinterpret_cast<PyObject*>(self)};
  std::copy(given, given + count, all + 1);
  if (here == 0) {
    owned(PyObject_Vectorcall(self->elsewhere, all, count + 1, nullptr));
    return;
  }
  const pybind11::object stream = owned(PyObject_CallOneArg(self->current_stream, self->device));
  all[count + 1] = stream.ptr();
  self->launch->run(all + 1, count + 1);
}

PyObject* call_launch(PyObject* object, PyObject* const* given, size_t count, PyObject*) {
  auto* const self = reinterpret_cast<LaunchObject*>(object);
  try {
    if (self->current_stream == nullptr)
      self->launch->run(given, PyVectorcall_NARGS(count));
    else
      launch_on_stream(self, given, PyVectorcall_NARGS(count));
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

PyObject* on_stream(PyObject* object, PyObject* given) {
  auto* const self = reinterpret_cast<LaunchObject*>(object);
  PyObject *device, *current_device, *current_stream, *elsewhere;
  if (self->device != nullptr) {
    PyErr_SetString(PyExc_RuntimeError, "the launch has a device");
    return nullptr;
  }
  if (!PyArg_UnpackTuple(given, "on_stream", 4, 4, &device, &current_device, &current_stream,
                         &elsewhere))
    return nullptr;
  self->device = Py_NewRef(device);
  self->current_device = Py_NewRef(current_device);
  self->current_stream = Py_NewRef(current_stream);
  self->elsewhere = Py_NewRef(elsewhere);
  return Py_NewRef(object);
}

void destroy_launch(PyObject* object) {
  auto* const self = reinterpret_cast<LaunchObject*>(object);
  PyTypeObject* const type = Py_TYPE(object);
  delete self->launch;
  for (PyObject* const one :
       {self->device, self->current_device, self->current_stream, self->elsewhere})
    Py_XDECREF(one);
  type->tp_free(object);
  Py_DECREF(type);
}

PyTypeObject* launch_type() {
  static PyMemberDef members[] = {
      {"__vectorcalloffset__", T_PYSSIZET, offsetof(LaunchObject, call), READONLY, nullptr}, {}};
  static PyMethodDef methods[] = {
      {"on_stream", on_stream, METH_VARARGS,
       "on_stream(device, current_device, current_stream, elsewhere) -> itself. From then on a "
       "call "
       "takes tensors alone: it is made on current_stream(device) where current_device() is the "
       "device, else elsewhere(launch, *tensors) is."},
      {}};
  static PyType_Slot slots[] = {{Py_tp_dealloc, reinterpret_cast<void*>(destroy_launch)},
                                {Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
                                {Py_tp_members, members},
                                {Py_tp_methods, methods},
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
  made->device = made->current_device = made->current_stream = made->elsewhere = nullptr;
  return pybind11::reinterpret_steal<pybind11::object>(reinterpret_cast<PyObject*>(made));
}

}  // namespace pydl
