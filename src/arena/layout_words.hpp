// The words that everything in shared memory is made of: a part of layout.hpp.
#pragma once

#include <atomic>
#include <cstdint>

namespace celeriac::layout {

using Word = std::atomic<std::uint64_t>;
using HalfWord = std::atomic<std::uint32_t>;
static_assert(Word::is_always_lock_free && HalfWord::is_always_lock_free);
static_assert(sizeof(Word) == 8 && sizeof(HalfWord) == 4);

// sync/owner_mutex: who holds it, and the blocks that the holder is linking or unlinking, so that
// whoever takes the mutex from a dead holder can settle them.
struct MutexWord {
  HalfWord word;
  HalfWord reserved;
  Word pending[2];
};
static_assert(sizeof(MutexWord) == 24);

}  // namespace celeriac::layout
