// The arguments of the exports that are no operators, and how values are shown in error messages.
#include "bridge.h"

#include <cmath>
#include <sstream>

namespace dsd {

std::string describe(const at::Tensor& tensor) {
  std::ostringstream text;
  text << dtype_name(tensor.scalar_type()) << '[';
  for (int64_t i = 0; i < tensor.dim(); i++) text << (i ? ", " : "") << tensor.size(i);
  text << ']';
  if (!tensor.device().is_cpu()) text << ' ' << tensor.device().str();
  return text.str();
}

std::string describe(napi_env env, Bridge& bridge, napi_value value) {
  napi_valuetype type;
  if (napi_typeof(env, value, &type) != napi_ok) return "something unreadable";
  switch (type) {
    case napi_undefined: return "undefined";
    case napi_null: return "null";
    case napi_boolean: {
      bool flag = false;
      napi_get_value_bool(env, value, &flag);
      return flag ? "true" : "false";
    }
    case napi_number: {
      double number = 0;
      napi_get_value_double(env, value, &number);
      if (const at::Tensor* tensor = bridge.table.find(number)) return describe(*tensor);
      if (Table::looks_like_handle(number)) return "a tensor that was disposed (by dispose() or because its scope ended)";
      std::ostringstream text;
      text.precision(17);
      text << number;
      return text.str();
    }
    case napi_string: return "'" + read_string(env, value).substr(0, 40) + "'";
    case napi_bigint: return "a bigint";
    case napi_function: return "a function";
    case napi_symbol: return "a symbol";
    default: break;
  }
  bool is_array = false;
  if (napi_is_array(env, value, &is_array) != napi_ok || !is_array) return "an object";
  uint32_t length = 0;
  napi_get_array_length(env, value, &length);
  std::string text = "[";
  for (uint32_t i = 0; i < length && i < 8; i++) {
    napi_value element;
    if (napi_get_element(env, value, i, &element) != napi_ok) return "an array";
    bool nested = false;
    napi_is_array(env, element, &nested);
    text += (i ? ", " : "") + (nested ? std::string("an array") : describe(env, bridge, element));
  }
  return text + (length > 8 ? ", ... " + std::to_string(length) + " in all]" : "]");
}

std::string read_string(napi_env env, napi_value value) {
  size_t length = 0;
  check(env, napi_get_value_string_utf8(env, value, nullptr, 0, &length));
  std::string text(length + 1, '\0');
  check(env, napi_get_value_string_utf8(env, value, &text[0], length + 1, &length));
  text.resize(length);
  return text;
}

static std::string where_of(const Args& a, const char* name) { return std::string(a.function) + ": argument '" + name + "'"; }

double Args::number(size_t i, const char* name) const {
  double value;
  if (i >= count || napi_get_value_double(env, values[i], &value) != napi_ok) type_error(where_of(*this, name) + " must be a number");
  return value;
}

int64_t Args::integer(size_t i, const char* name) const {
  double value = number(i, name);
  if (!(std::abs(value) <= largest_safe) || value != std::trunc(value)) type_error(where_of(*this, name) + " must be a whole number");
  return static_cast<int64_t>(value);
}

bool Args::boolean(size_t i, const char* name) const {
  bool value;
  if (i >= count || napi_get_value_bool(env, values[i], &value) != napi_ok) type_error(where_of(*this, name) + " must be true or false");
  return value;
}

bool Args::missing(size_t i) const {
  napi_valuetype type = napi_undefined;
  if (i < count) check(env, napi_typeof(env, values[i], &type));
  return type == napi_null || type == napi_undefined;
}

std::string Args::string(size_t i, const char* name) const {
  napi_valuetype type = napi_undefined;
  if (i < count) check(env, napi_typeof(env, values[i], &type));
  if (type != napi_string) type_error(where_of(*this, name) + " must be a string");
  return read_string(env, values[i]);
}

at::Tensor Args::tensor(size_t i, const char* name) const {
  if (i >= count) type_error(where_of(*this, name) + " is missing");
  return read_tensor(env, bridge, values[i], where_of(*this, name));
}

std::vector<at::Tensor> Args::tensors(size_t i, const char* name) const {
  bool is_array = false;
  if (i < count) check(env, napi_is_array(env, values[i], &is_array));
  if (!is_array) type_error(where_of(*this, name) + " must be an array of tensors");
  uint32_t length = 0;
  check(env, napi_get_array_length(env, values[i], &length));
  std::vector<at::Tensor> result;
  for (uint32_t at = 0; at < length; at++) {
    napi_value element;
    check(env, napi_get_element(env, values[i], at, &element));
    result.push_back(read_tensor(env, bridge, element, where_of(*this, name) + "[" + std::to_string(at) + "]"));
  }
  return result;
}

std::vector<int64_t> Args::integers(size_t i, const char* name) const {
  bool is_array = false;
  if (i < count) check(env, napi_is_array(env, values[i], &is_array));
  if (!is_array) type_error(where_of(*this, name) + " must be an array of whole numbers");
  uint32_t length = 0;
  check(env, napi_get_array_length(env, values[i], &length));
  std::vector<int64_t> result;
  for (uint32_t at = 0; at < length; at++) {
    napi_value element;
    double value;
    check(env, napi_get_element(env, values[i], at, &element));
    if (napi_get_value_double(env, element, &value) != napi_ok || !(std::abs(value) <= largest_safe) || value != std::trunc(value)) {
      type_error(where_of(*this, name) + " must be an array of whole numbers");
    }
    result.push_back(static_cast<int64_t>(value));
  }
  return result;
}

napi_value Args::undefined() const {
  napi_value value;
  check(env, napi_get_undefined(env, &value));
  return value;
}

}  // namespace dsd
