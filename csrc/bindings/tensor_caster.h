// torch.Tensor -> pydl::Tensor, by asking the Python object: no libtorch, so one build serves every
// PyTorch.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <utility>

#include "../tensor.h"

namespace pybind11::detail {

template <>
struct type_caster<pydl::Tensor> {
  PYBIND11_TYPE_CASTER(pydl::Tensor, const_name("torch.Tensor"));

  // None is a tensor without data: an argument that was left out.
  bool load(handle source, bool) {
    value = pydl::Tensor{nullptr, pydl::DType::float32, {1, 1, 1, 1, 1}, {0, 0, 0, 0, 0}};
    if (source.is_none()) return true;
    static const Names names;
    value.dtype = dtype_of(getattr(source, names.dtype));
    value.data =
        reinterpret_cast<void*>(PyLong_AsUnsignedLongLong(call(source, names.data_ptr).ptr()));
    const object sizes = getattr(source, names.shape);
    const object strides = call(source, names.stride);
    const ssize_t rank = PyTuple_GET_SIZE(sizes.ptr());
    pydl::check(rank <= 5, "expected a tensor of at most 5 dimensions, got ", rank);
    for (ssize_t from = 0; from < rank; ++from) {
      // A vector's elements become channels, and so do a matrix's rows, with its columns innermost.
      const ssize_t to = rank <= 2 ? (from == 0 ? 1 : 4) : from < 2 ? from : from + 5 - rank;
      value.size[to] = PyLong_AsLongLong(PyTuple_GET_ITEM(sizes.ptr(), from));
      value.stride[to] = PyLong_AsLongLong(PyTuple_GET_ITEM(strides.ptr(), from));
    }
    if (PyErr_Occurred()) throw error_already_set();
    return true;
  }

 private:
  struct Names {
    object data_ptr = intern("data_ptr"), dtype = intern("dtype"), shape = intern("shape"),
           stride = intern("stride");
    static object intern(const char* name) {
      return reinterpret_steal<object>(PyUnicode_InternFromString(name));
    }
  };

  static object call(handle source, const object& method) {
    object result =
        reinterpret_steal<object>(PyObject_CallMethodNoArgs(source.ptr(), method.ptr()));
    if (!result) throw error_already_set();
    return result;
  }

  // PyTorch's dtypes are singletons that live as long as the interpreter.
  static pydl::DType dtype_of(const object& dtype) {
    using pydl::DType;
    static const std::pair<PyObject*, DType> known[] = {
        {torch("float32"), DType::float32}, {torch("float64"), DType::float64},
        {torch("float16"), DType::float16}, {torch("bfloat16"), DType::bfloat16},
        {torch("uint8"), DType::uint8},     {torch("int64"), DType::int64}};
    for (const auto& [object, name] : known) {
      if (dtype.ptr() == object) return name;
    }
    throw type_error("expected float32, float64, float16, bfloat16, uint8 or int64, got " +
                     std::string(str(dtype)));
  }

  static PyObject* torch(const char* name) { return module_::import("torch").attr(name).ptr(); }
};

}  // namespace pybind11::detail
