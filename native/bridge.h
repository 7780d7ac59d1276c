// What the files of the bridge share: the handle table, the operator table, and the arguments of one call from JavaScript.
#pragma once

#ifndef NAPI_VERSION
#define NAPI_VERSION 8
#endif
#include "optional.h"

#include <node_api.h>

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>
#include <torch/version.h>

#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace dsd {

// An error that becomes a JavaScript error of the given class. Thrown by the bridge itself; libtorch throws c10::Error.
struct JsError : std::exception {
  enum class Kind { error, type, memory };
  Kind kind;
  std::string message;
  JsError(Kind kind, std::string message) : kind(kind), message(std::move(message)) {}
  const char* what() const noexcept override { return message.c_str(); }
};
[[noreturn]] void type_error(std::string message);
[[noreturn]] void plain_error(std::string message);

// A JavaScript exception is already pending (a getter threw, say): unwind without replacing it.
struct JsPending {};
void check(napi_env env, napi_status status);

// Handles are JavaScript numbers: generation * 2^24 + slot. Making one costs no object and leaves nothing to collect; a stale,
// forged or foreign number is recognised by its generation.
class Table {
 public:
  Table();
  double add(at::Tensor tensor);
  const at::Tensor* find(double handle) const;  // null unless alive
  static bool looks_like_handle(double number) { return number >= 0x1p52 && number < 0x1p53; }
  bool dispose(double handle);
  size_t live() const { return live_; }

  // Scopes. A tensor belongs to the innermost scope that was open when it was made and is freed when that scope ends.
  void begin_scope();
  void end_scope(const double* keep, size_t count);  // kept tensors move to the scope around, or to the outside
  bool keep(double handle);                          // out of all scopes
  size_t depth() const { return marks_.size(); }

  // Bytes of CPU storages owned outside of scopes that the garbage collector has not been told of yet.
  int64_t take_external_change();

 private:
  struct Slot {
    at::Tensor tensor;
    uint32_t generation = 0;              // 0: free
    uint32_t owner = 0;                   // depth of the owning scope, 0: outside
    c10::StorageImpl* reported = nullptr;  // storage counted as external memory for this slot
  };
  struct Owned {
    uint32_t slot;
    uint32_t generation;
  };
  struct Storage {
    int64_t bytes;
    uint32_t slots;
  };
  Slot* slot(double handle);
  void free(uint32_t index);
  void leave(uint32_t index);

  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
  std::vector<Owned> owned_;     // tensors of all open scopes, innermost last
  std::vector<size_t> marks_;    // where each open scope begins in owned_
  std::unordered_map<c10::StorageImpl*, Storage> storages_;
  int64_t external_change_ = 0;
  size_t live_ = 0;
  uint32_t next_generation_;
};

// One argument of an operator, read from its schema once.
struct ArgSpec {
  enum class Base { tensor, scalar, integer, number, boolean, string, dtype, layout, memory_format, device, unsupported };
  Base base = Base::unsupported;
  bool list = false;
  bool optional = false;          // the whole argument may be null
  bool optional_element = false;  // Tensor?[]
  int32_t length = 0;             // int[2]: one number stands for this many
  bool has_default = false;
  c10::IValue default_value;
  std::string name;
  std::string type;
};

struct Op {
  explicit Op(c10::OperatorHandle handle);
  c10::OperatorHandle handle;
  std::string name;
  std::vector<ArgSpec> args;
  std::vector<bool> returned;  // false: this result is one of the arguments, changed in place
  bool is_mutable = false;
};

// One instance of the addon: one for each Node environment (main thread or worker).
struct Bridge {
  napi_env env;
  Table table;
  std::vector<std::unique_ptr<Op>> ops;
  std::unordered_map<std::string, uint32_t> by_name;
  int64_t external = 0;        // bytes of elements that the garbage collector has been told of
  napi_ref reclaim = nullptr;  // JavaScript function that frees what it can, called once when memory runs out
  std::unordered_map<double, napi_ref> objects;  // tensors that live as long as an object, weakly held
  int64_t sweep_at_external = 0;
  size_t sweep_at_count = 0;
  std::unordered_map<int64_t, std::shared_ptr<void>> graphs;  // captured work
  int64_t next_graph = 1;
  std::shared_ptr<void> marks;  // in the device's queue
  void report_external_memory();
};

// The arguments of one call from JavaScript.
class Args {
 public:
  static constexpr size_t most = 48;
  Args(napi_env env, Bridge& bridge, const char* function) : env(env), bridge(bridge), function(function) {}
  napi_env env;
  Bridge& bridge;
  const char* function;  // what errors call it: the export, or what src/torch calls that
  size_t count = 0;
  napi_value values[most];

  double number(size_t i, const char* name) const;
  int64_t integer(size_t i, const char* name) const;
  bool boolean(size_t i, const char* name) const;
  bool missing(size_t i) const;  // undefined or null
  std::string string(size_t i, const char* name) const;
  at::Tensor tensor(size_t i, const char* name) const;
  std::vector<at::Tensor> tensors(size_t i, const char* name) const;
  std::vector<int64_t> integers(size_t i, const char* name) const;
  napi_value undefined() const;
};

// A JavaScript array may claim four thousand million elements that are not there, and where null is allowed each of them would do.
constexpr uint32_t longest_list = 1 << 20;
constexpr double largest_safe = 9007199254740991.0;  // Number.MAX_SAFE_INTEGER

using Function = napi_value (*)(Args&);
struct Export {
  const char* name;
  Function function;
};

// values.cc and args.cc
std::vector<ArgSpec> read_arguments(const c10::FunctionSchema& schema);
c10::IValue to_ivalue(const Args& args, const Op& op, const ArgSpec& spec, napi_value value);
napi_value from_ivalue(napi_env env, Bridge& bridge, const c10::IValue& value);
napi_value make_handle(napi_env env, Bridge& bridge, at::Tensor tensor);
napi_value make_string(napi_env env, const std::string& text);
napi_value make_number(napi_env env, double value);
napi_value make_integer(napi_env env, int64_t value);  // a bigint beyond 2^53
napi_value make_boolean(napi_env env, bool value);
at::Tensor read_tensor(napi_env env, Bridge& bridge, napi_value value, const std::string& where);
at::ScalarType read_dtype(double code, const std::string& where);
c10::Device read_device(const std::string& text, const std::string& where);
std::string describe(napi_env env, Bridge& bridge, napi_value value);
std::string describe(const at::Tensor& tensor);
std::string read_string(napi_env env, napi_value value);
const char* dtype_name(at::ScalarType dtype);

// addon.cc
std::string message_of(const std::exception& error);
bool is_out_of_memory(const std::exception& error);
bool run_reclaim(napi_env env, Bridge& bridge);

// memory.cc
void check_available(size_t bytes);

// graph.cc
void use_own_stream(c10::Device device);  // from now on this thread's work on a CUDA device goes to a stream of its own
bool is_capturing();                      // whether this thread's work is being captured instead of done

// The exports of each file.
extern const std::vector<Export> dispatch_exports;
extern const std::vector<Export> tensor_exports;
extern const std::vector<Export> copies_exports;
extern const std::vector<Export> autograd_exports;
extern const std::vector<Export> cuda_exports;
extern const std::vector<Export> graph_exports;
extern const std::vector<Export> profile_exports;

}  // namespace dsd
