// Handles and their scopes, and what a tensor is (shape, dtype, device).
#include "bridge.h"

#include <algorithm>
#include <cmath>
#include <random>

namespace dsd {

namespace {

constexpr uint32_t slot_bits = 24;
constexpr uint32_t most_slots = 1u << slot_bits;
constexpr uint32_t first_generation = 1u << 28;  // so that every handle lies in [2^52, 2^53)
constexpr uint32_t end_generation = 1u << 29;

}  // namespace

Table::Table() {
  // A random start: a number kept from another process, or made up, is not by chance a live tensor.
  std::random_device device;
  next_generation_ = first_generation + device() % (end_generation - first_generation);
}

double Table::add(at::Tensor tensor) {
  uint32_t index;
  if (!free_.empty()) {
    index = free_.back();
    free_.pop_back();
  } else {
    if (slots_.size() >= most_slots) plain_error("more than 16 million live tensors: a scope() or dispose() is missing");
    index = static_cast<uint32_t>(slots_.size());
    slots_.emplace_back();
  }
  Slot& slot = slots_[index];
  if (++next_generation_ >= end_generation) next_generation_ = first_generation;
  slot.generation = next_generation_;
  slot.tensor = std::move(tensor);
  slot.owner = static_cast<uint32_t>(marks_.size());
  live_++;
  if (slot.owner) {
    owned_.push_back({index, slot.generation});
  } else {
    leave(index);
  }
  return static_cast<double>((static_cast<uint64_t>(slots_[index].generation) << slot_bits) | index);
}

Table::Slot* Table::slot(double handle) {
  if (!looks_like_handle(handle)) return nullptr;
  auto bits = static_cast<uint64_t>(handle);
  auto index = static_cast<uint32_t>(bits & (most_slots - 1));
  if (index >= slots_.size() || slots_[index].generation != bits >> slot_bits) return nullptr;
  return &slots_[index];
}

const at::Tensor* Table::find(double handle) const {
  auto* found = const_cast<Table*>(this)->slot(handle);
  return found ? &found->tensor : nullptr;
}

void Table::free(uint32_t index) {
  Slot& slot = slots_[index];
  if (slot.reported) {
    auto storage = storages_.find(slot.reported);
    if (storage != storages_.end() && --storage->second.slots == 0) {
      external_change_ -= storage->second.bytes;
      storages_.erase(storage);
    }
    slot.reported = nullptr;
  }
  slot.generation = 0;
  slot.owner = 0;
  live_--;
  free_.push_back(index);
  slot.tensor = at::Tensor();  // last: freeing a graph can take long, and the slot is already consistent
}

bool Table::dispose(double handle) {
  Slot* found = slot(handle);
  if (!found) return false;
  free(static_cast<uint32_t>(found - slots_.data()));
  return true;
}

// From now on only the garbage collector's finalizer frees this tensor: let the collector know what it weighs.
void Table::leave(uint32_t index) {
  Slot& slot = slots_[index];
  slot.owner = 0;
  if (slot.reported || !slot.tensor.has_storage() || !slot.tensor.device().is_cpu()) return;
  auto* storage = slot.tensor.storage().unsafeGetStorageImpl();
  auto bytes = static_cast<int64_t>(storage->nbytes());
  if (bytes < 1024) return;  // the JavaScript object weighs as much
  auto& entry = storages_.emplace(storage, Storage{bytes, 0}).first->second;
  if (entry.slots++ == 0) external_change_ += entry.bytes;
  slot.reported = storage;
}

void Table::begin_scope() { marks_.push_back(owned_.size()); }

void Table::end_scope(const double* keep, size_t count) {
  if (marks_.empty()) plain_error("no scope is open");
  auto depth = static_cast<uint32_t>(marks_.size());
  size_t mark = marks_.back();
  for (size_t i = 0; i < count; i++) {
    Slot* kept = slot(keep[i]);
    if (kept && kept->owner == depth) kept->owner = depth - 1;
  }
  size_t out = mark;
  for (size_t i = mark; i < owned_.size(); i++) {
    Owned owned = owned_[i];
    Slot& slot = slots_[owned.slot];
    if (slot.generation != owned.generation) continue;  // disposed by hand
    if (slot.owner == depth) {
      free(owned.slot);
    } else if (slot.owner == depth - 1 && depth > 1) {
      owned_[out++] = owned;
    } else if (depth == 1) {
      leave(owned.slot);
    }
  }
  owned_.resize(out);
  marks_.pop_back();
}

bool Table::keep(double handle) {
  Slot* found = slot(handle);
  if (!found) return false;
  if (found->owner) leave(static_cast<uint32_t>(found - slots_.data()));
  return true;
}

int64_t Table::take_external_change() {
  // Small changes are gathered: telling the collector of each costs more than it helps.
  if (std::abs(external_change_) < (1 << 20)) return 0;
  int64_t change = external_change_;
  external_change_ = 0;
  return change;
}

namespace {

napi_value integers(napi_env env, at::IntArrayRef sizes) {
  napi_value array;
  check(env, napi_create_array_with_length(env, sizes.size(), &array));
  for (size_t i = 0; i < sizes.size(); i++) {
    check(env, napi_set_element(env, array, static_cast<uint32_t>(i), make_number(env, static_cast<double>(sizes[i]))));
  }
  return array;
}

napi_value shape(Args& a) { return integers(a.env, a.tensor(0, "self").sizes()); }
napi_value strides(Args& a) { return integers(a.env, a.tensor(0, "self").strides()); }
napi_value dtype(Args& a) { return make_number(a.env, static_cast<int>(a.tensor(0, "self").scalar_type())); }
napi_value device(Args& a) { return make_string(a.env, a.tensor(0, "self").device().str()); }

// Of a tensor outside of scopes, beside its elements: libtorch's objects for it, its reference and its places in the tables. Without it the
// collector would see a few bytes of JavaScript for each of many small tensors, and find no reason to look for those that have grown old.
constexpr int64_t bytes_beside_elements = 768;

void weigh(napi_env env, int64_t change) {
  int64_t total;
  check(env, napi_adjust_external_memory(env, change, &total));
}

void forget(Args& a, double handle) {
  auto object = a.bridge.objects.find(handle);
  if (object == a.bridge.objects.end()) return;
  napi_delete_reference(a.env, object->second);
  a.bridge.objects.erase(object);
  weigh(a.env, -bytes_beside_elements);
}

napi_value dispose(Args& a) {
  double handle = a.number(0, "handle");
  bool freed = a.bridge.table.dispose(handle);
  if (freed) forget(a, handle);
  a.bridge.report_external_memory();
  return make_boolean(a.env, freed);
}

napi_value alive(Args& a) { return make_boolean(a.env, a.bridge.table.find(a.number(0, "handle")) != nullptr); }

// Frees the tensors whose objects the garbage collector has taken.
void free_orphans(Args& a) {
  std::vector<double> orphans;
  for (const auto& [handle, reference] : a.bridge.objects) {
    napi_handle_scope local;
    napi_value object = nullptr;
    check(a.env, napi_open_handle_scope(a.env, &local));
    napi_status status = napi_get_reference_value(a.env, reference, &object);
    if (status == napi_ok && !object) orphans.push_back(handle);
    check(a.env, napi_close_handle_scope(a.env, local));
  }
  for (double handle : orphans) {
    a.bridge.table.dispose(handle);
    forget(a, handle);
  }
  a.bridge.report_external_memory();
  a.bridge.sweep_at_external = a.bridge.external + (int64_t(256) << 20);
  a.bridge.sweep_at_count = a.bridge.objects.size() + std::max<size_t>(1 << 16, a.bridge.objects.size() / 4);
}

// adopt(handle, object): from now on the tensor lives as long as the object; false if there is no such tensor or it has an object already.
// The reference is Node-API's, since a WeakRef of JavaScript holds its object until the running job ends. Finalizers wait for that end too:
// so that a long job outside of scopes does not keep all it ever made, adopting looks now and then for what was collected.
napi_value adopt(Args& a) {
  double handle = 0;
  bool is_new = a.count == 2 && napi_get_value_double(a.env, a.values[0], &handle) == napi_ok && a.bridge.table.find(handle) &&
                !a.bridge.objects.count(handle);
  if (is_new) {
    napi_ref reference;
    check(a.env, napi_create_reference(a.env, a.values[1], 0, &reference));
    a.bridge.objects.emplace(handle, reference);
    weigh(a.env, bytes_beside_elements);
    if (a.bridge.external > a.bridge.sweep_at_external || a.bridge.objects.size() > a.bridge.sweep_at_count) free_orphans(a);
  }
  return make_boolean(a.env, is_new);
}

napi_value sweep(Args& a) {
  free_orphans(a);
  return a.undefined();
}

napi_value begin_scope(Args& a) {
  a.bridge.table.begin_scope();
  return a.undefined();
}

// endScope(keep, depth): ends the scopes deeper than `depth`, innermost first: more than one where JavaScript ran out of stack before it could
// end its own. Frees what they made but the handles in keep.
napi_value end_scope(Args& a) {
  std::vector<double> keep;
  bool is_array = false;
  if (a.count > 0) check(a.env, napi_is_array(a.env, a.values[0], &is_array));
  uint32_t length = 0;
  if (is_array) check(a.env, napi_get_array_length(a.env, a.values[0], &length));
  for (uint32_t i = 0; i < length; i++) {
    napi_value element;
    double handle = 0;
    check(a.env, napi_get_element(a.env, a.values[0], i, &element));
    if (napi_get_value_double(a.env, element, &handle) == napi_ok) keep.push_back(handle);
  }
  auto depth = a.integer(1, "depth");
  while (static_cast<int64_t>(a.bridge.table.depth()) > std::max<int64_t>(0, depth)) a.bridge.table.end_scope(keep.data(), keep.size());
  a.bridge.report_external_memory();
  return a.undefined();
}

napi_value keep(Args& a) {
  a.tensor(0, "self");
  a.bridge.table.keep(a.number(0, "self"));
  a.bridge.report_external_memory();
  return a.undefined();
}

napi_value live(Args& a) { return make_number(a.env, static_cast<double>(a.bridge.table.live())); }

}  // namespace

const std::vector<Export> tensor_exports = {
    {"shape", shape}, {"strides", strides}, {"dtype", dtype}, {"device", device},          {"dispose", dispose},    {"alive", alive},
    {"keep", keep},   {"live", live},       {"adopt", adopt}, {"beginScope", begin_scope}, {"endScope", end_scope}, {"sweep", sweep}};

}  // namespace dsd
