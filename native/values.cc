// JavaScript values to and from libtorch's, as an operator's schema asks.
#include "bridge.h"

#include <ATen/core/jit_type.h>
#include <ATen/core/List.h>
#include <c10/core/MemoryFormat.h>
#include <c10/core/Scalar.h>

#include <algorithm>
#include <cmath>

namespace dsd {

using Base = ArgSpec::Base;

namespace {

Base base_of(const c10::Type& type) {
  switch (type.kind()) {
    case c10::TypeKind::TensorType: return Base::tensor;
    case c10::TypeKind::NumberType: return Base::scalar;
    case c10::TypeKind::IntType:
    case c10::TypeKind::SymIntType: return Base::integer;
    case c10::TypeKind::FloatType:
    case c10::TypeKind::SymFloatType: return Base::number;
    case c10::TypeKind::BoolType: return Base::boolean;
    case c10::TypeKind::StringType: return Base::string;
    case c10::TypeKind::ScalarTypeType: return Base::dtype;
    case c10::TypeKind::LayoutType: return Base::layout;
    case c10::TypeKind::MemoryFormatType: return Base::memory_format;
    case c10::TypeKind::DeviceObjType: return Base::device;
    default: return Base::unsupported;
  }
}

// The message is built only when something is wrong.
struct Where {
  const Op& op;
  const ArgSpec& spec;
  std::string text() const { return op.name + ": argument '" + spec.name + "' (" + spec.type + ")"; }
  [[noreturn]] void wrong(const Args& a, napi_value value, const char* expected) const {
    type_error(text() + " must be " + expected + ", found " + describe(a.env, a.bridge, value));
  }
};

bool is_nothing(napi_env env, napi_value value) {
  napi_valuetype type;
  check(env, napi_typeof(env, value, &type));
  return type == napi_null || type == napi_undefined;
}

at::Tensor to_tensor(const Args& a, const Where& where, napi_value value) {
  double handle;
  if (napi_get_value_double(a.env, value, &handle) == napi_ok) {
    if (const at::Tensor* tensor = a.bridge.table.find(handle)) return *tensor;
  }
  where.wrong(a, value, "a live tensor");
}

double to_double(const Args& a, const Where& where, napi_value value) {
  double number;
  if (napi_get_value_double(a.env, value, &number) != napi_ok) where.wrong(a, value, "a number");
  return number;
}

int64_t to_bigint(const Args& a, const Where& where, napi_value value) {
  int64_t integer;
  bool lossless = false;
  if (napi_get_value_bigint_int64(a.env, value, &integer, &lossless) != napi_ok || !lossless) {
    where.wrong(a, value, "an integer of at most 64 bits");
  }
  return integer;
}

int64_t to_integer(const Args& a, const Where& where, napi_value value) {
  double number;
  if (napi_get_value_double(a.env, value, &number) != napi_ok) {
    napi_valuetype type;
    check(a.env, napi_typeof(a.env, value, &type));
    if (type == napi_bigint) return to_bigint(a, where, value);
    where.wrong(a, value, "a whole number");
  }
  if (!(std::abs(number) <= largest_safe) || number != std::trunc(number)) where.wrong(a, value, "a whole number");
  return static_cast<int64_t>(number);
}

// A JavaScript number is a double even if it is whole: only a bigint makes an integer, so 2 never turns a float into an int.
at::Scalar to_scalar(const Args& a, const Where& where, napi_value value) {
  double number;
  if (napi_get_value_double(a.env, value, &number) == napi_ok) return at::Scalar(number);
  napi_valuetype type;
  check(a.env, napi_typeof(a.env, value, &type));
  if (type == napi_bigint) return at::Scalar(to_bigint(a, where, value));
  if (type == napi_boolean) {
    bool flag;
    check(a.env, napi_get_value_bool(a.env, value, &flag));
    return at::Scalar(flag);
  }
  where.wrong(a, value, "a number");
}

bool to_boolean(const Args& a, const Where& where, napi_value value) {
  bool flag;
  if (napi_get_value_bool(a.env, value, &flag) != napi_ok) where.wrong(a, value, "true or false");
  return flag;
}

std::string to_text(const Args& a, const Where& where, napi_value value) {
  napi_valuetype type;
  check(a.env, napi_typeof(a.env, value, &type));
  if (type != napi_string) where.wrong(a, value, "a string");
  return read_string(a.env, value);
}

c10::IValue one(const Args& a, const Where& where, napi_value value) {
  switch (where.spec.base) {
    case Base::tensor: return to_tensor(a, where, value);
    case Base::scalar: return to_scalar(a, where, value);
    case Base::integer: return to_integer(a, where, value);
    case Base::number: return to_double(a, where, value);
    case Base::boolean: return to_boolean(a, where, value);
    case Base::string: return to_text(a, where, value);
    case Base::dtype: return static_cast<int64_t>(read_dtype(to_double(a, where, value), where.text()));
    case Base::layout:
      if (to_integer(a, where, value) != 0) where.wrong(a, value, "0 (strided)");
      return static_cast<int64_t>(0);
    case Base::memory_format: {
      auto code = to_integer(a, where, value);
      if (code < 0 || code > 3) where.wrong(a, value, "0 to 3 (contiguous, preserve, channels last, channels last 3d)");
      return code;
    }
    case Base::device: return read_device(to_text(a, where, value), where.text());
    case Base::unsupported: break;
  }
  type_error(where.text() + " is of a kind that cannot be passed from JavaScript; leave it out");
}

// `each` converts one element; a list is read once, element by element, since an array may have getters.
template <typename T, typename Each>
c10::List<T> list(const Args& a, const Where& where, napi_value value, c10::List<T> result, Each each) {
  bool is_array = false;
  check(a.env, napi_is_array(a.env, value, &is_array));
  if (!is_array) where.wrong(a, value, "an array");
  uint32_t length = 0;
  check(a.env, napi_get_array_length(a.env, value, &length));
  if (length > longest_list) where.wrong(a, value, "an array of at most 1048576 elements");
  result.reserve(std::min<uint32_t>(length, 4096));
  for (uint32_t i = 0; i < length; i++) {
    napi_value element;
    check(a.env, napi_get_element(a.env, value, i, &element));
    result.push_back(each(a, where, element));
  }
  return result;
}

c10::IValue many(const Args& a, const Where& where, napi_value value) {
  const ArgSpec& spec = where.spec;
  switch (spec.base) {
    case Base::tensor:
      if (spec.optional_element) {
        auto each = [](const Args& a, const Where& where, napi_value element) -> Optional<at::Tensor> {
          if (is_nothing(a.env, element)) return {};
          return to_tensor(a, where, element);
        };
        return list(a, where, value, c10::List<Optional<at::Tensor>>(), each);
      }
      return list(a, where, value, c10::List<at::Tensor>(), to_tensor);
    case Base::scalar: return list(a, where, value, c10::List<at::Scalar>(), to_scalar);
    case Base::integer: {
      double number;
      if (spec.length > 0 && napi_get_value_double(a.env, value, &number) == napi_ok) {
        return c10::List<int64_t>(std::vector<int64_t>(spec.length, to_integer(a, where, value)));
      }
      return list(a, where, value, c10::List<int64_t>(), to_integer);
    }
    case Base::number: return list(a, where, value, c10::List<double>(), to_double);
    case Base::boolean: return list(a, where, value, c10::List<bool>(), to_boolean);
    case Base::string: return list(a, where, value, c10::List<std::string>(), to_text);
    default: break;
  }
  type_error(where.text() + " is of a kind that cannot be passed from JavaScript; leave it out");
}

}  // namespace

std::vector<ArgSpec> read_arguments(const c10::FunctionSchema& schema) {
  std::vector<ArgSpec> specs;
  for (const auto& argument : schema.arguments()) {
    ArgSpec spec;
    spec.name = argument.name();
    spec.type = argument.real_type()->str();
    spec.length = argument.N().value_or(0);
    if (argument.default_value()) {
      spec.has_default = true;
      spec.default_value = *argument.default_value();
    }
    c10::TypePtr type = argument.real_type();
    if (auto optional = type->cast<c10::OptionalType>()) {
      spec.optional = true;
      type = optional->getElementType();
    }
    if (auto elements = type->cast<c10::ListType>()) {
      spec.list = true;
      type = elements->getElementType();
      if (auto optional = type->cast<c10::OptionalType>()) {
        spec.optional_element = true;
        type = optional->getElementType();
      }
    }
    spec.base = base_of(*type);
    if (spec.optional_element && spec.base != Base::tensor) spec.base = Base::unsupported;
    specs.push_back(std::move(spec));
  }
  return specs;
}

c10::IValue to_ivalue(const Args& a, const Op& op, const ArgSpec& spec, napi_value value) {
  Where where{op, spec};
  if (spec.optional && is_nothing(a.env, value)) return c10::IValue();
  return spec.list ? many(a, where, value) : one(a, where, value);
}

napi_value make_number(napi_env env, double value) {
  napi_value result;
  check(env, napi_create_double(env, value, &result));
  return result;
}

napi_value make_integer(napi_env env, int64_t value) {
  if (std::abs(static_cast<double>(value)) <= largest_safe) return make_number(env, static_cast<double>(value));
  napi_value result;
  check(env, napi_create_bigint_int64(env, value, &result));
  return result;
}

napi_value make_boolean(napi_env env, bool value) {
  napi_value result;
  check(env, napi_get_boolean(env, value, &result));
  return result;
}

napi_value make_string(napi_env env, const std::string& text) {
  napi_value result;
  check(env, napi_create_string_utf8(env, text.data(), text.size(), &result));
  return result;
}

napi_value make_handle(napi_env env, Bridge& bridge, at::Tensor tensor) {
  if (!tensor.defined()) {
    napi_value nothing;
    check(env, napi_get_null(env, &nothing));
    return nothing;
  }
  return make_number(env, bridge.table.add(std::move(tensor)));
}

napi_value from_ivalue(napi_env env, Bridge& bridge, const c10::IValue& value) {
  if (value.isTensor()) return make_handle(env, bridge, value.toTensor());
  if (value.isInt()) return make_integer(env, value.toInt());
  if (value.isDouble()) return make_number(env, value.toDouble());
  if (value.isBool()) return make_boolean(env, value.toBool());
  if (value.isString()) return make_string(env, value.toStringRef());
  napi_value result;
  if (value.isNone()) {
    check(env, napi_get_null(env, &result));
    return result;
  }
  if (value.isList()) {
    auto elements = value.toListRef();
    check(env, napi_create_array_with_length(env, elements.size(), &result));
    for (size_t i = 0; i < elements.size(); i++) {
      check(env, napi_set_element(env, result, static_cast<uint32_t>(i), from_ivalue(env, bridge, elements[i])));
    }
    return result;
  }
  if (value.isTensorList()) {
    auto elements = value.toTensorVector();
    check(env, napi_create_array_with_length(env, elements.size(), &result));
    for (size_t i = 0; i < elements.size(); i++) {
      check(env, napi_set_element(env, result, static_cast<uint32_t>(i), make_handle(env, bridge, std::move(elements[i]))));
    }
    return result;
  }
  plain_error("a result of kind " + value.tagKind() + " cannot be given to JavaScript");
}

at::Tensor read_tensor(napi_env env, Bridge& bridge, napi_value value, const std::string& where) {
  double handle;
  if (napi_get_value_double(env, value, &handle) == napi_ok) {
    if (const at::Tensor* tensor = bridge.table.find(handle)) return *tensor;
  }
  type_error(where + " must be a live tensor, found " + describe(env, bridge, value));
}

at::ScalarType read_dtype(double code, const std::string& where) {
  for (auto dtype : {at::kFloat, at::kBFloat16, at::kLong, at::kByte, at::kBool, at::kDouble, at::kHalf, at::kInt, at::kShort, at::kChar}) {
    if (code == static_cast<double>(static_cast<int>(dtype))) return dtype;
  }
  type_error(where + " is not the code of a dtype that dsd knows");
}

c10::Device read_device(const std::string& text, const std::string& where) {
  if (text == "cpu") return c10::Device(c10::kCPU);
  auto device = c10::Device(c10::kCUDA);
  if (text.rfind("cuda:", 0) == 0 && text.size() > 5 && text.size() < 8 &&
      text.find_first_not_of("0123456789", 5) == std::string::npos) {
    device = c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(std::stoi(text.substr(5))));
  } else if (text != "cuda") {
    type_error(where + " must be 'cpu', 'cuda' or 'cuda:N', found '" + text.substr(0, 40) + "'");
  }
  use_own_stream(device);  // whoever uses a device names it first
  return device;
}

const char* dtype_name(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat: return "float32";
    case at::kDouble: return "float64";
    case at::kBFloat16: return "bfloat16";
    case at::kHalf: return "float16";
    case at::kLong: return "int64";
    case at::kInt: return "int32";
    case at::kShort: return "int16";
    case at::kChar: return "int8";
    case at::kByte: return "uint8";
    case at::kBool: return "bool";
    default: return c10::toString(dtype);
  }
}

}  // namespace dsd
