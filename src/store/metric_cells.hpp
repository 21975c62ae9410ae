// What a process does to a metric's value: one word, alone, which no lock guards.
//
// A cell holds the bits of a double, turned so that 0 means "nothing was put in here". Only the
// process whose stripe it lies in writes it (store/metrics.hpp), with several threads at most, and
// its handlers of signals and of garbage collection: add_cell() is one CAS in the end, so each of
// them either happens before the other's or after it, and none can find the other half done.
// Everything is relaxed: a cell publishes nothing but itself, and who reads wants a value that it
// had a moment ago. Killed at any instruction: it has happened or not.
//
// The most recent of several needs a time too, in the cell behind it. The value is stored first:
// a reader that finds the time of a set finds its value, or a later one. Killed in between, the
// value counts with the time of the set before it.
#pragma once

#include <bit>
#include <cstdint>

#include "arena/layout.hpp"

namespace celeriac {

constexpr std::uint64_t kCellTurn = 0x7FF80000C0FFEE01ULL;  // a NaN that no arithmetic gives

constexpr std::uint64_t cell_word(double value) {
  const std::uint64_t word = std::bit_cast<std::uint64_t>(value) ^ kCellTurn;
  return word != 0 ? word : 0x7FF8000000000000ULL ^ kCellTurn;
}
// What is nothing counts as 0.
constexpr double cell_value(std::uint64_t word) {
  return word == 0 ? 0.0 : std::bit_cast<double>(word ^ kCellTurn);
}

// Thread-safe, lock-free, safe in signal handlers. Crash-safe: one CAS.
inline void add_cell(layout::Word& cell, double amount) {
  std::uint64_t word = cell.load(std::memory_order_relaxed);
  while (!cell.compare_exchange_weak(word, cell_word(cell_value(word) + amount),
                                     std::memory_order_relaxed)) {
  }
}

// Thread-safe, wait-free, safe in signal handlers. Crash-safe: one store.
inline void set_cell(layout::Word& cell, double value) {
  cell.store(cell_word(value), std::memory_order_relaxed);
}

// The same for the most recent: `cells` are the value and its time.
// Crash-safe: as above; a time never comes before its value.
inline void set_recent(layout::Word* cells, double value, double time) {
  set_cell(cells[0], value);
  // release pairs with the acquire in Metrics' reading: see above
  cells[1].store(cell_word(time), std::memory_order_release);
}

}  // namespace celeriac
