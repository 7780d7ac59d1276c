// The module: one table of exports, one place where C++ exceptions become JavaScript errors.
#include "bridge.h"

#include <c10/util/Exception.h>
#include <c10/util/Logging.h>

#include <new>

namespace dsd {

void type_error(std::string message) { throw JsError(JsError::Kind::type, std::move(message)); }
void plain_error(std::string message) { throw JsError(JsError::Kind::error, std::move(message)); }

void check(napi_env env, napi_status status) {
  if (status == napi_ok) return;
  bool pending = false;
  napi_is_exception_pending(env, &pending);
  if (pending) throw JsPending{};
  const napi_extended_error_info* info = nullptr;
  napi_get_last_error_info(env, &info);
  plain_error(info && info->error_message ? info->error_message : "Node-API call failed");
}

std::string message_of(const std::exception& error) {
  std::string text;
  if (auto torch = dynamic_cast<const c10::Error*>(&error)) {
    text = torch->what_without_backtrace();
  } else {
    text = error.what();
  }
  // Where in libtorch's own sources it was thrown helps nobody here.
  for (const char* tail : {"\nException raised from", "\n\nException raised from", "\nThe above operation failed"}) {
    auto at = text.find(tail);
    if (at != std::string::npos) text.resize(at);
  }
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text.empty() ? "unknown error" : text;
}

bool is_out_of_memory(const std::exception& error) {
  if (dynamic_cast<const std::bad_alloc*>(&error) || dynamic_cast<const c10::OutOfMemoryError*>(&error)) return true;
  if (auto own = dynamic_cast<const JsError*>(&error)) return own->kind == JsError::Kind::memory;
  std::string text = error.what();
  return text.find("can't allocate memory") != std::string::npos || text.find("not enough memory") != std::string::npos ||
         text.find("CUDA out of memory") != std::string::npos;
}

bool run_reclaim(napi_env env, Bridge& bridge) {
  if (!bridge.reclaim) return false;
  napi_value function, undefined, result;
  if (napi_get_reference_value(env, bridge.reclaim, &function) != napi_ok || !function) return false;
  napi_get_undefined(env, &undefined);
  check(env, napi_call_function(env, undefined, function, 0, nullptr, &result));
  return true;
}

void Bridge::report_external_memory() {
  if (int64_t change = table.take_external_change()) {
    int64_t total;
    napi_adjust_external_memory(env, change, &total);
    external += change;
  }
}

namespace {

struct Entry {
  Bridge* bridge;
  Export exported;
};

// What the addon keeps for an environment; freed by Node when the environment ends.
struct Instance {
  Bridge bridge;
  std::vector<std::unique_ptr<Entry>> entries;
};

void raise(napi_env env, JsError::Kind kind, const std::string& message) {
  bool pending = false;
  napi_is_exception_pending(env, &pending);
  if (pending) return;
  switch (kind) {
    case JsError::Kind::type: napi_throw_type_error(env, "ERR_TORCH_TYPE", message.c_str()); break;
    case JsError::Kind::memory: napi_throw_error(env, "ERR_TORCH_MEMORY", message.c_str()); break;
    case JsError::Kind::error: napi_throw_error(env, "ERR_TORCH", message.c_str()); break;
  }
}

// Every call from JavaScript passes here.
napi_value enter(napi_env env, napi_callback_info info) noexcept {
  void* data = nullptr;
  napi_value argv[Args::most];
  size_t argc = Args::most;
  if (napi_get_cb_info(env, info, &argc, argv, nullptr, &data) != napi_ok) return nullptr;
  auto* entry = static_cast<Entry*>(data);
  Args args(env, *entry->bridge, entry->exported.name);
  try {
    if (argc > Args::most) type_error(std::string(args.function) + ": too many arguments");
    args.count = argc;
    std::copy(argv, argv + argc, args.values);
    return entry->exported.function(args);
  } catch (const JsPending&) {
  } catch (const JsError& error) {
    raise(env, error.kind, error.message);
  } catch (const std::exception& error) {
    auto kind = is_out_of_memory(error) ? JsError::Kind::memory : JsError::Kind::error;
    raise(env, kind, std::string(args.function) + ": " + message_of(error));
  } catch (...) {
    raise(env, JsError::Kind::error, std::string(args.function) + ": unknown C++ exception");
  }
  return nullptr;
}

// libtorch's warnings are written for people who wrote Python, and would stand amid the progress line.
struct Silent : c10::WarningHandler {
#if TORCH_VERSION_MAJOR >= 2
  void process(const c10::Warning&) override {}
#else
  void process(const c10::SourceLocation&, const std::string&, const bool) override {}
#endif
};

void prepare_process() {
  static Silent silent;
#if TORCH_VERSION_MAJOR >= 2
  c10::WarningUtils::set_warning_handler(&silent);
#else
  c10::Warning::set_warning_handler(&silent);
#endif
  // Symbolising a C++ backtrace for every error takes milliseconds and is then thrown away.
  static bool once = [] {
    c10::SetStackTraceFetcher(std::function<std::string()>([] { return std::string(); }));
    return true;
  }();
  (void)once;
}

}  // namespace
}  // namespace dsd

extern "C" NAPI_MODULE_EXPORT napi_value napi_register_module_v1(napi_env env, napi_value exports) {
  using namespace dsd;
  try {
    prepare_process();
    auto instance = std::make_unique<Instance>();
    instance->bridge.env = env;
    for (const auto* table : {&dispatch_exports, &tensor_exports, &copies_exports, &autograd_exports, &cuda_exports, &graph_exports,
                              &profile_exports}) {
      for (const Export& exported : *table) {
        instance->entries.push_back(std::unique_ptr<Entry>(new Entry{&instance->bridge, exported}));
        napi_value function;
        check(env, napi_create_function(env, exported.name, NAPI_AUTO_LENGTH, enter, instance->entries.back().get(), &function));
        check(env, napi_set_named_property(env, exports, exported.name, function));
      }
    }
    check(env, napi_set_instance_data(
                   env, instance.get(), [](napi_env, void* data, void*) { delete static_cast<Instance*>(data); }, nullptr));
    instance.release();
    return exports;
  } catch (const JsPending&) {
  } catch (const std::exception& error) {
    napi_throw_error(env, "ERR_TORCH", error.what());
  }
  return nullptr;
}
