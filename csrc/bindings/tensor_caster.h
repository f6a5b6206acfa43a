// torch.Tensor -> pydl::Tensor, by asking the Python object: no libtorch, so one build serves every
// PyTorch, and what has the same attributes (pydl/array/library.py) does without any.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

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

  // By name, torch.float32 or plain float32, so that nothing is imported for it; an object that was
  // met is known by its address from then on.
  static pydl::DType dtype_of(const object& dtype) {
    using pydl::DType;
    static std::vector<std::pair<PyObject*, DType>> met;
    for (const auto& [object, kind] : met) {
      if (dtype.ptr() == object) return kind;
    }
    static constexpr std::pair<const char*, DType> known[] = {
        {"float32", DType::float32},   {"float64", DType::float64}, {"float16", DType::float16},
        {"bfloat16", DType::bfloat16}, {"uint8", DType::uint8},     {"int64", DType::int64}};
    const std::string given = str(dtype), name = given.substr(given.rfind('.') + 1);
    for (const auto& [own, kind] : known) {
      if (name != own) continue;
      met.emplace_back(dtype.inc_ref().ptr(), kind);
      return kind;
    }
    throw type_error("expected float32, float64, float16, bfloat16, uint8 or int64, got " + given);
  }
};

}  // namespace pybind11::detail
