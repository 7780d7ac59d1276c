// The addon of the decoding processes, dsd_pictures.node: without libtorch, it is loaded in a millisecond.
#include "resize.h"

#ifndef NAPI_VERSION
#define NAPI_VERSION 8
#endif
#include <node_api.h>

#include <cmath>
#include <exception>
#include <new>
#include <sstream>
#include <stdexcept>
#include <string>

namespace dsd {
namespace {

// Become JavaScript's TypeError and RangeError.
struct WrongType : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct WrongValue : std::runtime_error {
  using std::runtime_error::runtime_error;
};

std::string text_of(double number) {
  if (std::isnan(number)) return "NaN";
  if (std::isinf(number)) return number < 0 ? "-Infinity" : "Infinity";
  std::ostringstream text;
  text.precision(17);
  text << number;
  return text.str();
}

std::string describe(napi_env env, napi_value value) {
  napi_valuetype type;
  if (napi_typeof(env, value, &type) != napi_ok) return "something unreadable";
  switch (type) {
    case napi_undefined: return "undefined";
    case napi_null: return "null";
    case napi_boolean: return "a boolean";
    case napi_number: {
      double number = 0;
      napi_get_value_double(env, value, &number);
      return text_of(number);
    }
    case napi_string: {
      char text[40];
      size_t length = 0;
      napi_get_value_string_utf8(env, value, text, sizeof(text), &length);
      return "'" + std::string(text, length) + "'";
    }
    case napi_bigint: return "a bigint";
    case napi_function: return "a function";
    case napi_symbol: return "a symbol";
    default: return "an object";
  }
}

struct Bytes {
  uint8_t* data = nullptr;
  size_t length = 0;
};

// The arguments of one call. Reading them runs no JavaScript, so memory that was looked at stays where it is.
struct Args {
  static constexpr size_t most = 12;
  napi_env env;
  napi_value values[most];  // undefined where fewer were given

  double number(size_t i, const char* name) const {
    double value;
    if (napi_get_value_double(env, values[i], &value) != napi_ok)
      throw WrongType(std::string(name) + " must be a number, found " + describe(env, values[i]));
    return value;
  }

  int64_t whole(size_t i, const char* name, int64_t least, int64_t largest) const {
    const double value = number(i, name);
    if (!(value >= static_cast<double>(least) && value <= static_cast<double>(largest)) || value != std::trunc(value))
      throw WrongValue(std::string(name) + " must be a whole number from " + std::to_string(least) + " to " + std::to_string(largest) + ", found " +
                       text_of(value));
    return static_cast<int64_t>(value);
  }

  Bytes bytes(size_t i, const char* name) const {
    bool is_typed = false;
    napi_typedarray_type type = napi_int8_array;
    Bytes found;
    void* data = nullptr;
    if (napi_is_typedarray(env, values[i], &is_typed) != napi_ok || !is_typed ||
        napi_get_typedarray_info(env, values[i], &type, &found.length, &data, nullptr, nullptr) != napi_ok || type != napi_uint8_array)
      throw WrongType(std::string(name) + " must be a Uint8Array, found " + (is_typed ? "another typed array" : describe(env, values[i])));
    found.data = static_cast<uint8_t*>(data);
    return found;
  }

  Filter filter(size_t i) const {
    const std::string found = describe(env, values[i]);
    if (found == "'box'") return Filter::box;
    if (found == "'bicubic'") return Filter::bicubic;
    if (found == "'lanczos'") return Filter::lanczos;
    throw WrongType("filter must be 'box', 'bicubic' or 'lanczos', found " + found);
  }
};

void check_bytes(const char* name, const Bytes& bytes, int64_t width, int64_t height, int64_t channels) {
  // Sides below 2^31: their product with 3 may be more than an int64 has.
  const double wanted = static_cast<double>(width) * static_cast<double>(height) * static_cast<double>(channels);
  if (static_cast<double>(bytes.length) != wanted)
    throw WrongValue(std::string(name) + " must have " + std::to_string(width) + " x " + std::to_string(height) + " x " + std::to_string(channels) +
                     " bytes, found " + std::to_string(bytes.length));
}

// resize(pixels, width, height, channels, outWidth, outHeight, filter, x, y, windowWidth, windowHeight, out)
void resize(const Args& a) {
  constexpr int64_t longest = (int64_t{1} << 31) - 1;
  const int64_t width = a.whole(1, "width", 1, longest), height = a.whole(2, "height", 1, longest);
  const int64_t channels = a.whole(3, "channels", 1, 3);
  if (channels == 2) throw WrongValue("channels must be 1 or 3, found 2");
  const int64_t out_width = a.whole(4, "outWidth", 1, longest), out_height = a.whole(5, "outHeight", 1, longest);
  const Filter filter = a.filter(6);
  Window window;
  window.x = a.whole(7, "x", 0, out_width - 1);
  window.y = a.whole(8, "y", 0, out_height - 1);
  window.width = a.whole(9, "windowWidth", 1, out_width - window.x);
  window.height = a.whole(10, "windowHeight", 1, out_height - window.y);
  const Bytes pixels = a.bytes(0, "pixels"), out = a.bytes(11, "out");
  check_bytes("pixels", pixels, width, height, channels);
  check_bytes("out", out, window.width, window.height, channels);
  if (out.data < pixels.data + pixels.length && pixels.data < out.data + out.length) throw WrongValue("pixels and out must not overlap");
  resize({pixels.data, width, height, static_cast<int>(channels)}, out_width, out_height, filter, window, out.data);
}

// C++ exceptions become JavaScript errors here.
napi_value enter(napi_env env, napi_callback_info info) noexcept {
  Args args{env, {}};
  size_t count = Args::most;
  if (napi_get_cb_info(env, info, &count, args.values, nullptr, nullptr) != napi_ok) return nullptr;
  const std::string name = "resize: ";
  try {
    resize(args);
  } catch (const WrongType& error) {
    napi_throw_type_error(env, nullptr, (name + error.what()).c_str());
  } catch (const WrongValue& error) {
    napi_throw_range_error(env, nullptr, (name + error.what()).c_str());
  } catch (const std::bad_alloc&) {
    // What the engine of JavaScript throws where a typed array does not fit.
    napi_throw_range_error(env, nullptr, "resize: out of memory");
  } catch (const std::exception& error) {
    napi_throw_error(env, nullptr, (name + error.what()).c_str());
  }
  return nullptr;
}

}  // namespace
}  // namespace dsd

extern "C" NAPI_MODULE_EXPORT napi_value napi_register_module_v1(napi_env env, napi_value exports) {
  napi_value function;
  if (napi_create_function(env, "resize", NAPI_AUTO_LENGTH, dsd::enter, nullptr, &function) != napi_ok ||
      napi_set_named_property(env, exports, "resize", function) != napi_ok)
    napi_throw_error(env, nullptr, "dsd_pictures: it cannot be set up");
  return exports;
}
