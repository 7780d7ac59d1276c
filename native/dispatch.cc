// Any operator of libtorch by name: find it once, then call it by index.
#include "bridge.h"

#include <c10/util/Exception.h>

#include <chrono>
#include <sstream>

namespace dsd {

Op::Op(c10::OperatorHandle found) : handle(found) {
  const auto& schema = handle.schema();
  name = schema.name();
  if (!schema.overload_name().empty()) name += "." + schema.overload_name();
  args = read_arguments(schema);
  is_mutable = schema.is_mutable();
  for (const auto& result : schema.returns()) {
    returned.push_back(!(result.alias_info() && result.alias_info()->isWrite()));
  }
}

namespace {

Optional<c10::OperatorHandle> find(const std::string& name) {
  auto dot = name.find('.');
  auto base = name.substr(0, dot);
  auto overload = dot == std::string::npos ? std::string() : name.substr(dot + 1);
  return c10::Dispatcher::singleton().findSchema({base, overload});
}

napi_value resolve(Args& a) {
  auto name = a.string(0, "name");
  auto known = a.bridge.by_name.find(name);
  if (known != a.bridge.by_name.end()) return make_number(a.env, known->second);
  auto found = find(name);
  if (!found) plain_error("this libtorch (" TORCH_VERSION ") has no operator '" + name + "'");
  auto index = static_cast<uint32_t>(a.bridge.ops.size());
  a.bridge.ops.push_back(std::make_unique<Op>(*found));
  a.bridge.by_name[name] = index;
  return make_number(a.env, index);
}

napi_value has(Args& a) { return make_boolean(a.env, find(a.string(0, "name")).has_value()); }

napi_value schema(Args& a) {
  auto found = find(a.string(0, "name"));
  if (!found) return a.undefined();
  std::ostringstream text;
  text << found->schema();
  return make_string(a.env, text.str());
}

// "self=float32[2, 3] cpu, other=2.5": what an operator was called with.
std::string called_with(Args& a, const Op& op) {
  std::string text;
  for (size_t i = 1; i < a.count && i <= op.args.size(); i++) {
    if (a.missing(i)) continue;
    if (!text.empty()) text += ", ";
    text += op.args[i - 1].name + "=" + describe(a.env, a.bridge, a.values[i]);
  }
  return text.empty() ? "no arguments" : text;
}

c10::IValue argument(Args& a, const Op& op, size_t i) {
  const ArgSpec& spec = op.args[i];
  bool given = false;
  if (i + 1 < a.count) {
    napi_valuetype type;
    check(a.env, napi_typeof(a.env, a.values[i + 1], &type));
    given = type != napi_undefined;
  }
  if (given) return to_ivalue(a, op, spec, a.values[i + 1]);
  if (spec.has_default) return spec.default_value;
  if (spec.optional) return c10::IValue();
  type_error(op.name + ": argument '" + spec.name + "' (" + spec.type + ") is missing");
}

void run(Args& a, const Op& op, torch::jit::Stack& stack) {
  stack.clear();
  stack.reserve(op.args.size());
  for (size_t i = 0; i < op.args.size(); i++) stack.push_back(argument(a, op, i));
  op.handle.callBoxed(&stack);
}

napi_value results(Args& a, const Op& op, const torch::jit::Stack& stack) {
  size_t first = stack.size() - op.returned.size();
  size_t count = 0, only = 0;
  for (size_t i = 0; i < op.returned.size(); i++) {
    if (op.returned[i]) {
      count++;
      only = i;
    }
  }
  if (count == 0) return a.undefined();
  if (count == 1) return from_ivalue(a.env, a.bridge, stack[first + only]);
  napi_value array;
  check(a.env, napi_create_array_with_length(a.env, count, &array));
  uint32_t at = 0;
  for (size_t i = 0; i < op.returned.size(); i++) {
    if (op.returned[i]) check(a.env, napi_set_element(a.env, array, at++, from_ivalue(a.env, a.bridge, stack[first + i])));
  }
  return array;
}

// call(index, ...arguments): trailing arguments that are left out or undefined take the schema's defaults.
napi_value call(Args& a) {
  uint32_t index = 0;
  if (a.count == 0 || napi_get_value_uint32(a.env, a.values[0], &index) != napi_ok || index >= a.bridge.ops.size()) {
    type_error("call: the first argument must be an index that resolve() gave");
  }
  const Op& op = *a.bridge.ops[index];
  for (napi_valuetype type; a.count > 1; a.count--) {
    check(a.env, napi_typeof(a.env, a.values[a.count - 1], &type));
    if (type != napi_undefined) break;
  }
  if (a.count - 1 > op.args.size()) {
    type_error(op.name + ": takes at most " + std::to_string(op.args.size()) + " arguments, got " + std::to_string(a.count - 1));
  }
  torch::jit::Stack stack;
  for (int attempt = 0;; attempt++) {
    try {
      run(a, op, stack);
      napi_value result = results(a, op, stack);
      a.bridge.report_external_memory();
      return result;
    } catch (const JsError&) {
      throw;
    } catch (const std::exception& error) {
      std::string message = op.name + ": " + message_of(error);
      if (is_out_of_memory(error)) {
        stack.clear();
        // An operator that changes its arguments may have begun to: it cannot be tried again.
        if (attempt == 0 && !op.is_mutable && run_reclaim(a.env, a.bridge)) continue;
        throw JsError(JsError::Kind::memory, "out of memory in " + message + "; called with " + called_with(a, op));
      }
      throw JsError(JsError::Kind::error, message + "; called with " + called_with(a, op));
    }
  }
}

// timeCall(times, index, ...arguments): nanoseconds that libtorch itself needs for a call, without JavaScript: what the bridge's cost is
// measured against.
napi_value time_call(Args& a) {
  auto times = a.integer(0, "times");
  auto index = a.integer(1, "index");
  if (times < 1 || index < 0 || static_cast<size_t>(index) >= a.bridge.ops.size()) type_error("timeCall: expected (times, index, ...arguments)");
  const Op& op = *a.bridge.ops[index];
  Args rest(a.env, a.bridge, a.function);
  rest.count = a.count - 1;
  std::copy(a.values + 1, a.values + a.count, rest.values);
  torch::jit::Stack arguments, stack;
  for (size_t i = 0; i < op.args.size(); i++) arguments.push_back(argument(rest, op, i));
  auto begun = std::chrono::steady_clock::now();
  for (int64_t i = 0; i < times; i++) {
    stack = arguments;
    op.handle.callBoxed(&stack);
  }
  std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - begun;
  return make_number(a.env, took.count() / static_cast<double>(times));
}

napi_value on_memory(Args& a) {
  napi_valuetype type = napi_undefined;
  if (a.count > 0) check(a.env, napi_typeof(a.env, a.values[0], &type));
  if (type != napi_function) type_error("onMemory: expected a function");
  if (a.bridge.reclaim) napi_delete_reference(a.env, a.bridge.reclaim);
  check(a.env, napi_create_reference(a.env, a.values[0], 1, &a.bridge.reclaim));
  return a.undefined();
}

}  // namespace

const std::vector<Export> dispatch_exports = {
    {"resolve", resolve}, {"has", has}, {"schema", schema}, {"call", call}, {"timeCall", time_call}, {"onMemory", on_memory}};

}  // namespace dsd
