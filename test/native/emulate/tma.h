// The copy engine and the barriers that count its bytes (mbarrier), of one block: clusters have a single one here. See emulate.h.
//
// By the schedule, loads come at once or when nothing else can move, and stores are read at once or when they are waited for.
#pragma once

#include "warp.h"

#include <array>
#include <initializer_list>

namespace emulated {

// As cuTensorMapEncodeTiled has it, for 16-bit elements, a swizzle of 128 bytes and zeros outside.
struct TensorMap {
  unsigned char* first;
  std::array<long long, 3> size;    // in elements, the contiguous dimension first; 1 where there are fewer dimensions
  std::array<long long, 3> stride;  // in bytes
  std::array<int, 3> box;
};
template <typename T>
TensorMap tensor_map(T* first, std::initializer_list<long long> size, std::initializer_list<int> box) {
  TensorMap map{reinterpret_cast<unsigned char*>(first), {1, 1, 1}, {0, 0, 0}, {1, 1, 1}};
  std::copy(size.begin(), size.end(), map.size.begin());
  std::copy(box.begin(), box.end(), map.box.begin());
  if (map.box[0] != 64) fail("a box is 64 elements wide");
  long long stride = 2;
  for (int i = 0; i < 3; i++) map.stride[i] = stride, stride *= map.size[i];
  if (map.stride[1] % 16 || map.stride[2] % 16 || reinterpret_cast<uintptr_t>(first) % 16) fail("a tensor map wants strides of multiples of 16 bytes");
  return map;
}

struct Phases {
  uint16_t arrivals, left;
  int bytes : 31;
  unsigned parity : 1;
};
static_assert(sizeof(Phases) == 8);
inline Phases& phases_of(void* barrier) {
  if (reinterpret_cast<uintptr_t>(barrier) % 8) fail(block.name() + "an mbarrier wants an address at a multiple of 8");
  return *static_cast<Phases*>(barrier);
}
inline void end_phase(Phases& phases) {
  if (phases.left == 0 && phases.bytes == 0) phases.left = phases.arrivals, phases.parity ^= 1;
}
inline void mbarrier_init(void* barrier, int arrivals) { phases_of(barrier) = {static_cast<uint16_t>(arrivals), static_cast<uint16_t>(arrivals), 0, 0}; }
inline void mbarrier_arrive(void* barrier, int bytes) {
  Phases& phases = phases_of(barrier);
  if (phases.left == 0) fail(block.name() + "arrives once too often at an mbarrier");
  phases.bytes = phases.bytes + bytes;
  phases.left--;
  end_phase(phases);
}
inline void mbarrier_wait(void* barrier, unsigned parity) {
  Phases& phases = phases_of(barrier);
  wait_until("?mbarrier", [&] { return phases.parity != (parity & 1); });
}

// The elements of a box, by where they lie in shared memory and in the tensor, null outside of it.
template <typename Move>
void for_box(const TensorMap& map, unsigned char* shared, std::array<int, 3> at, Move move) {
  size_t place = shared - dynamic_shared;
  if (place % 1024) fail("a box with a swizzle of 128 bytes wants an address at a multiple of 1024");
  for (int z = 0; z < map.box[2]; z++) {
    for (int y = 0; y < map.box[1]; y++) {
      for (int x = 0; x < map.box[0]; x++, place += 2) {
        const long long to[3] = {at[0] + x, at[1] + y, at[2] + z};
        unsigned char* element = map.first;
        for (int i = 0; i < 3; i++) {
          if (to[i] < 0 || to[i] >= map.size[i]) element = nullptr;
          if (element) element += to[i] * map.stride[i];
        }
        move(reinterpret_cast<uint16_t*>(dynamic_shared + (place ^ (place >> 7 & 7) << 4)), reinterpret_cast<uint16_t*>(element));
      }
    }
  }
}

// Now or later, by the schedule; then the barrier counts them.
inline void load_later(void* barrier, int bytes, std::function<void()> move) {
  auto load = [=] {
    move();
    Phases& phases = phases_of(barrier);
    phases.bytes = phases.bytes - bytes;
    end_phase(phases);
  };
  if (schedule % 2) load();
  else block.loads.push_back(load);
}
inline void load_bytes(void* to, const void* from, int bytes, void* barrier) {
  if (reinterpret_cast<uintptr_t>(to) % 16 || reinterpret_cast<uintptr_t>(from) % 16 || bytes % 16) fail("the copy engine moves multiples of 16 bytes");
  load_later(barrier, bytes, [=] { std::memcpy(to, from, bytes); });
}
inline void load_box(unsigned char* to, const TensorMap& from, void* barrier, std::array<int, 3> at) {
  load_later(barrier, 2 * from.box[0] * from.box[1] * from.box[2], [=, &from] {
    for_box(from, to, at, [](uint16_t* shared, const uint16_t* element) { *shared = element ? *element : 0; });
  });
}

inline void store_box(const TensorMap& to, const unsigned char* from, std::array<int, 3> at) {
  auto store = [=, &to] {
    for_box(to, const_cast<unsigned char*>(from), at, [](const uint16_t* shared, uint16_t* element) {
      if (element) *element = *shared;
    });
  };
  auto& groups = block.current->stores;
  if (groups.empty()) groups.emplace_back();
  if (schedule % 4 < 2) groups.back().push_back(store);
  else store();
}
inline void bulk_commit() { block.current->stores.emplace_back(); }
// All groups but the newest `pending` have been read out of shared memory.
inline void bulk_wait_read(unsigned pending) {
  auto& groups = block.current->stores;
  while (groups.size() > pending + 1) {
    for (auto& store : groups.front()) store();
    groups.erase(groups.begin());
  }
  if (groups.size() == 1 && groups.front().empty()) groups.clear();
}

}  // namespace emulated
