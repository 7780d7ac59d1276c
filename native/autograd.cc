// Gradients: backward, grad, the gradients of leaves, and the mode that records nothing.
#include "bridge.h"

#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

namespace dsd {
namespace {

using torch::autograd::variable_list;

// A list of tensors that may hold null: no gradient is given for that output.
variable_list optional_tensors(Args& a, size_t i, const char* name) {
  variable_list result;
  if (a.missing(i)) return result;
  bool is_array = false;
  check(a.env, napi_is_array(a.env, a.values[i], &is_array));
  if (!is_array) type_error(std::string(a.function) + ": argument '" + name + "' must be an array of tensors");
  uint32_t length = 0;
  check(a.env, napi_get_array_length(a.env, a.values[i], &length));
  if (length > longest_list) type_error(std::string(a.function) + ": argument '" + name + "' is longer than any list of tensors");
  for (uint32_t at = 0; at < length; at++) {
    napi_value element;
    napi_valuetype type;
    check(a.env, napi_get_element(a.env, a.values[i], at, &element));
    check(a.env, napi_typeof(a.env, element, &type));
    bool nothing = type == napi_null || type == napi_undefined;
    result.push_back(nothing ? at::Tensor() : read_tensor(a.env, a.bridge, element, std::string(a.function) + ": argument '" + name + "'"));
  }
  return result;
}

[[noreturn]] void rethrow(const char* function, const std::exception& error, const variable_list& tensors) {
  std::string shapes;
  for (const auto& tensor : tensors) shapes += (shapes.empty() ? "" : ", ") + describe(tensor);
  auto kind = is_out_of_memory(error) ? JsError::Kind::memory : JsError::Kind::error;
  const char* start = kind == JsError::Kind::memory ? "out of memory in " : "";
  throw JsError(kind, start + std::string(function) + ": " + message_of(error) + "; called with " + shapes);
}

// backward(outputs, gradients | null, retainGraph)
napi_value backward(Args& a) {
  auto outputs = a.tensors(0, "outputs");
  auto gradients = optional_tensors(a, 1, "gradients");
  bool retain = !a.missing(2) && a.boolean(2, "retainGraph");
  try {
    torch::autograd::backward(outputs, gradients, retain, /*create_graph=*/false);
  } catch (const std::exception& error) {
    rethrow("backward", error, outputs);
  }
  return a.undefined();
}

// grad(outputs, inputs, gradients | null, retainGraph, createGraph, allowUnused): handles, null where an input was not used.
napi_value grad(Args& a) {
  auto outputs = a.tensors(0, "outputs");
  auto inputs = a.tensors(1, "inputs");
  auto gradients = optional_tensors(a, 2, "gradients");
  bool retain = !a.missing(3) && a.boolean(3, "retainGraph");
  bool create = !a.missing(4) && a.boolean(4, "createGraph");
  bool unused = !a.missing(5) && a.boolean(5, "allowUnused");
  variable_list result;
  try {
    result = torch::autograd::grad(outputs, inputs, gradients, retain || create, create, unused);
  } catch (const std::exception& error) {
    rethrow("grad", error, outputs);
  }
  napi_value array;
  check(a.env, napi_create_array_with_length(a.env, result.size(), &array));
  for (size_t i = 0; i < result.size(); i++) {
    check(a.env, napi_set_element(a.env, array, static_cast<uint32_t>(i), make_handle(a.env, a.bridge, std::move(result[i]))));
  }
  return array;
}

// gradMode(on): sets it and returns what it was.
napi_value grad_mode(Args& a) {
  bool before = c10::GradMode::is_enabled();
  if (!a.missing(0)) c10::GradMode::set_enabled(a.boolean(0, "on"));
  return make_boolean(a.env, before);
}

napi_value gradient(Args& a) { return make_handle(a.env, a.bridge, a.tensor(0, "self").grad()); }

// gradients(tensors): the gradient of each, or null: one call for a whole model.
napi_value gradients(Args& a) {
  auto tensors = a.tensors(0, "tensors");
  napi_value array;
  check(a.env, napi_create_array_with_length(a.env, tensors.size(), &array));
  for (size_t i = 0; i < tensors.size(); i++) {
    check(a.env, napi_set_element(a.env, array, static_cast<uint32_t>(i), make_handle(a.env, a.bridge, tensors[i].grad())));
  }
  return array;
}

napi_value clear_gradients(Args& a) {
  for (auto& tensor : a.tensors(0, "tensors")) tensor.mutable_grad() = at::Tensor();
  return a.undefined();
}

napi_value requires_grad(Args& a) { return make_boolean(a.env, a.tensor(0, "self").requires_grad()); }
napi_value is_leaf(Args& a) { return make_boolean(a.env, a.tensor(0, "self").is_leaf()); }

}  // namespace

const std::vector<Export> autograd_exports = {
    {"backward", backward},           {"grad", grad},           {"gradMode", grad_mode}, {"gradient", gradient}, {"gradients", gradients},
    {"clearGradients", clear_gradients}, {"requiresGrad", requires_grad}, {"isLeaf", is_leaf}};

}  // namespace dsd
