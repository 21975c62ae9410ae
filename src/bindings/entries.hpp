// Entries that carry more than a value (celeriac/entries.py), and looks that count as no reads.
//
// Codec::kNamed is a value that Python packed itself. It goes in and comes out as an object of one
// type, a subclass of bytes that Python names once; what its bytes say is Python's affair.
#pragma once

#include <pybind11/pybind11.h>

#include <string_view>
#include <tuple>

#include "bindings/codec.hpp"
#include "bindings/handles.hpp"

namespace celeriac::bindings {

void set_named_type(pybind11::type type);
// True and encoded when `object` is of that type.
bool encode_named(pybind11::handle object, Encoded* to);
pybind11::object decode_named(std::string_view bytes);

// A value as bytes that say how to read them, and back. SerializationError.
pybind11::bytes pack(pybind11::handle object, bool pickle_all);
pybind11::object unpack(pybind11::bytes data);

// (value, version, seconds left or None), not counted as a read; None when the key is missing.
// Unless `whole`, only a kNamed value is given, and None for others.
pybind11::object examine(CacheHandle& c, pybind11::handle key, bool whole);

using Cursor = std::tuple<std::uint64_t, std::uint64_t, std::uint64_t>;

// One step of a walk: (next cursor, or None at the end; keys; those of them that are kNamed; the
// bytes of each key and value).
pybind11::tuple scan(CacheHandle& c, Cursor cursor, std::size_t most);

}  // namespace celeriac::bindings
