// Cache and table handles: conversion only. What is called a million times a second doesn't go
// through pybind11's dispatcher (fastcall.hpp); the rest does.
#include "bindings/bindings.hpp"
#include "bindings/codec.hpp"
#include "bindings/codec_encode.hpp"
#include "bindings/codec_format.hpp"
#include "bindings/entries.hpp"
#include "bindings/errors.hpp"
#include "bindings/fastcall.hpp"
#include "bindings/handles.hpp"
#include "bindings/removal.hpp"
#include "bindings/tally.hpp"

namespace py = pybind11;

namespace celeriac::bindings {
namespace {

py::object get_versioned(CacheHandle& c, py::handle key) {
  ValueBuffer value;
  if (!take(read(c, key_bytes(key), value))) return py::make_tuple(py::none(), 0);
  return py::make_tuple(decode(c, value), value.version);
}

bool compare_and_set(CacheHandle& c, py::handle key, std::uint64_t version, py::handle object,
                     py::handle ttl) {
  Encoded e;
  encode(object, c.pickle_all, &e);
  return take(c.engine->store(key_bytes(key), e.value, expiry(ttl), StoreMode::kCompare, version));
}

bool compare_and_delete(CacheHandle& c, py::handle key, std::uint64_t version) {
  return version != 0 &&
         take(c.engine->erase(key_bytes(key), version, Which::kAll)) != Met::kNothing;
}

// Seconds left; None = no expiry; below zero = missing.
py::object ttl(CacheHandle& c, py::handle key) {
  ValueBuffer value;
  if (!take(c.engine->get(key_bytes(key), value, false))) return py::float_(-1.0);
  if (value.expires == kNever) return py::none();
  const std::uint64_t now = now_ns();
  return py::float_(value.expires > now ? static_cast<double>(value.expires - now) / 1e9 : 0.0);
}

py::tuple counts(CacheHandle& c) {
  const CacheCounts n = take(c.engine->counts());
  return py::make_tuple(n.hits, n.misses, n.sets, n.deletes, n.evictions, n.expirations, n.entries,
                        n.bytes, n.bytes_limit);
}

// (bytes before a prefix, [(prefix, hits, misses, sets, deletes, evictions, expirations)])
py::tuple prefixes(CacheHandle& c) {
  const PrefixRows all = take(c.engine->prefixes());
  py::list rows;
  for (const PrefixCounts& r : all.rows) {
    const CacheCounts& n = r.counts;
    rows.append(py::make_tuple(py::bytes(r.prefix), n.hits, n.misses, n.sets, n.deletes,
                               n.evictions, n.expirations));
  }
  return py::make_tuple(all.lead, rows);
}

py::list items(CacheHandle& c) {
  py::list all;
  check(c.engine->each([&](std::string_view key, const ValueBuffer& value) {
    PyObject* text = PyUnicode_DecodeUTF8(key.data(), static_cast<Py_ssize_t>(key.size()), nullptr);
    if (text == nullptr) PyErr_Clear();
    const py::object name = text != nullptr ? py::reinterpret_steal<py::object>(text)
                                            : py::object(py::bytes(key.data(), key.size()));
    all.append(py::make_tuple(name, decode(c, value)));
    return true;
  }));
  return all;
}

bool wait_for_change(CacheHandle& c, py::handle key, std::uint32_t seen, py::handle timeout) {
  return take(c.engine->wait_for_change(key_bytes(key), seen, expiry(timeout)));
}

// ------------------------------------------------------------------------- the hot calls

// A call's handle and sorted arguments.
template <std::size_t size>
struct Call {
  Call(PyObject* self, const Given& given, const std::array<PyObject*, size>& names,
       std::size_t required)
      : cache(cache_handle(self)) {
    if (!given.sort(names, required, &args)) {
      throw py::type_error("wrong arguments; help() shows those of this method");
    }
  }
  CacheEngine& engine() const { return *cache.engine; }
  std::string_view key() const { return key_bytes(args[0]); }

  CacheHandle& cache;
  std::array<PyObject*, size> args{};
};

PyObject* get(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* names) {
  static const auto& known = *new auto(interned("key", "default"));
  return guarded([&] {
    const Call call(self, {args, n, names}, known, 1);
    ValueBuffer value;
    if (take(read(call.cache, call.key(), value))) {
      return decode(call.cache, value).release().ptr();
    }
    return Py_NewRef(call.args[1] != nullptr ? call.args[1] : Py_None);
  });
}

PyObject* get_many(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* names) {
  static const auto& known = *new auto(interned("keys"));
  return guarded([&] {
    const Call call(self, {args, n, names}, known, 1);
    py::dict found;
    ValueBuffer value;
    for (const py::handle key : py::reinterpret_borrow<py::iterable>(call.args[0])) {
      if (!take(read(call.cache, key_bytes(key), value))) continue;
      const py::object one = decode(call.cache, value);
      if (PyDict_SetItem(found.ptr(), key.ptr(), one.ptr()) != 0) throw py::error_already_set();
    }
    return found.release().ptr();
  });
}

template <StoreMode mode>
PyObject* store(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* names) {
  static const auto& known = *new auto(interned("key", "value", "ttl"));
  return guarded([&] {
    const Call call(self, {args, n, names}, known, 3);
    Encoded e;
    encode(call.args[1], call.cache.pickle_all, &e);
    return truth(take(call.engine().store(call.key(), e.value, expiry(call.args[2]), mode, 0)));
  });
}

// The keys that the store couldn't take. A key that is none, a value that can't be encoded: that
// error, before anything is stored.
PyObject* set_many(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* names) {
  static const auto& known = *new auto(interned("mapping", "ttl"));
  return guarded([&] {
    const Call call(self, {args, n, names}, known, 2);
    const std::uint64_t expires = expiry(call.args[1]);
    const auto items = py::reinterpret_steal<py::list>(PyMapping_Items(call.args[0]));
    if (!items) throw py::error_already_set();
    for (const py::handle item : items) {
      if (!PyTuple_Check(item.ptr()) || PyTuple_GET_SIZE(item.ptr()) != 2) {
        throw py::type_error("the items of a mapping are pairs");
      }
      static_cast<void>(key_bytes(PyTuple_GET_ITEM(item.ptr(), 0)));
    }
    EncodedValues values;
    for (const py::handle item : items) {
      values.add(PyTuple_GET_ITEM(item.ptr(), 1), call.cache.pickle_all);
    }
    py::list failed;
    std::size_t i = 0;
    for (const py::handle item : items) {
      const py::handle key = PyTuple_GET_ITEM(item.ptr(), 0);
      const Result<bool> stored =
          call.engine().store(key_bytes(key), values[i++], expires, StoreMode::kSet, 0);
      if (stored) continue;
      const Code code = stored.status().code();
      if (code == Code::kConfiguration || code == Code::kInterrupted) raise(stored.status());
      failed.append(key);
    }
    return failed.release().ptr();
  });
}

PyObject* erase(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* names) {
  static const auto& known = *new auto(interned("key"));
  return guarded([&] {
    const Call call(self, {args, n, names}, known, 1);
    return truth(take(call.engine().erase(call.key(), 0, Which::kAll)) != Met::kNothing);
  });
}

PyObject* contains(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* names) {
  static const auto& known = *new auto(interned("key"));
  return guarded([&] {
    const Call call(self, {args, n, names}, known, 1);
    return truth(take(call.engine().probe(call.key())) != Met::kNothing);
  });
}

PyObject* touch(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* names) {
  static const auto& known = *new auto(interned("key", "ttl"));
  return guarded([&] {
    const Call call(self, {args, n, names}, known, 2);
    const auto met = take(call.engine().touch(call.key(), expiry(call.args[1]), Which::kAll));
    return truth(met != Met::kNothing);
  });
}

// The next three are for entries that have nothing but a value in them. None: this one may have,
// and nothing was done.

PyObject* answer(const CacheHandle& c, Met met) {
  if (met == Met::kPacked || (met == Met::kPlain && !c.unpickles)) return Py_NewRef(Py_None);
  return truth(met == Met::kPlain);
}

PyObject* probe(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* names) {
  static const auto& known = *new auto(interned("key"));
  return guarded([&] {
    const Call call(self, {args, n, names}, known, 1);
    return answer(call.cache, take(call.engine().probe(call.key())));
  });
}

PyObject* touch_plain(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* names) {
  static const auto& known = *new auto(interned("key", "ttl"));
  return guarded([&] {
    const Call call(self, {args, n, names}, known, 2);
    if (!call.cache.unpickles) return Py_NewRef(Py_None);
    const auto met = take(call.engine().touch(call.key(), expiry(call.args[1]), Which::kPlain));
    return answer(call.cache, met);
  });
}

PyObject* delete_plain(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* names) {
  static const auto& known = *new auto(interned("key", "flights", "space"));
  return guarded([&] {
    const Call call(self, {args, n, names}, known, 3);
    if (!py::isinstance<CacheHandle>(call.args[1])) throw py::type_error("flights is a Cache");
    if (!call.cache.unpickles) return Py_NewRef(Py_None);
    CacheEngine& flights = *cache_handle(call.args[1]).engine;
    const auto removed =
        take(remove_plain(call.engine(), flights, key_bytes(call.args[2]), call.key()));
    return removed ? truth(*removed) : Py_NewRef(Py_None);
  });
}

// The sum; None when the key is missing, False when it isn't an int, True beyond 64 bits.
PyObject* increment(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* names) {
  static const auto& known = *new auto(interned("key", "delta"));
  return guarded([&] {
    const Call call(self, {args, n, names}, known, 2);
    const long long delta = PyLong_AsLongLong(call.args[1]);
    if (delta == -1 && PyErr_Occurred() != nullptr) throw py::error_already_set();
    std::int64_t sum = 0;
    switch (take(call.engine().increment(call.key(), delta, &sum))) {
      case IncrementResult::kDone:
        return PyLong_FromLongLong(sum);
      case IncrementResult::kMissing:
        return Py_NewRef(Py_None);
      case IncrementResult::kNotInteger:
        return truth(false);
      case IncrementResult::kOverflow:
        break;
    }
    return truth(true);
  });
}

PyMethodDef* hot_methods() {
  static PyMethodDef all[] = {
      fast_method("get", &get, "get($self, key, default=None)\n--\n\n"),
      fast_method("get_many", &get_many, "get_many($self, keys)\n--\n\n"),
      fast_method("set", &store<StoreMode::kSet>, "set($self, key, value, ttl)\n--\n\n"),
      fast_method("set_many", &set_many, "set_many($self, mapping, ttl)\n--\n\n"),
      fast_method("add", &store<StoreMode::kAdd>, "add($self, key, value, ttl)\n--\n\n"),
      fast_method("replace", &store<StoreMode::kReplace>,
                  "replace($self, key, value, ttl)\n--\n\n"),
      fast_method("delete", &erase, "delete($self, key)\n--\n\n"),
      fast_method("touch", &touch, "touch($self, key, ttl)\n--\n\n"),
      fast_method("contains", &contains, "contains($self, key)\n--\n\n"),
      fast_method("probe", &probe, "probe($self, key)\n--\n\n"),
      fast_method("touch_plain", &touch_plain, "touch_plain($self, key, ttl)\n--\n\n"),
      fast_method("delete_plain", &delete_plain,
                  "delete_plain($self, key, flights, space)\n--\n\n"),
      fast_method("increment", &increment, "increment($self, key, delta)\n--\n\n"),
      {nullptr, nullptr, 0, nullptr},
  };
  return all;
}

// For tests of the codec alone: (number of the codec, bytes), and back.
py::tuple encode_value(py::handle value) {
  Encoded e;
  encode(value, false, &e);
  return py::make_tuple(static_cast<int>(e.value.codec),
                        py::bytes(e.value.bytes.data(), e.value.bytes.size()));
}

py::object decode_value(std::uint8_t codec, const py::bytes& data) {
  return decode(static_cast<Codec>(codec), std::string_view(data));
}

// What JSON has, in the native codec's form; None for what it has not.
py::object encode_json(py::handle value) {
  Buffer buffer;
  if (!encode_native(value.ptr(), Accepted::kJson, &buffer)) return py::none();
  return py::bytes(buffer.bytes().data(), buffer.bytes().size());
}

py::object decode_json(const py::bytes& data) {
  return decode(kNativeCodec, std::string_view(data));
}

}  // namespace

void register_cache(py::module_& m) {
  py::class_<CacheHandle> type(m, "Cache");
  add_methods(reinterpret_cast<PyTypeObject*>(type.ptr()), hot_methods());
  m.def("encode_value", &encode_value, py::arg("value"));
  m.def("decode_value", &decode_value, py::arg("codec"), py::arg("data"));
  m.def("encode_json", &encode_json, py::arg("value"));
  m.def("decode_json", &decode_json, py::arg("data"));
  type.def("get_versioned", &get_versioned, py::arg("key"))
      .def("compare_and_set", &compare_and_set, py::arg("key"), py::arg("version"),
           py::arg("value"), py::arg("ttl"))
      .def("compare_and_delete", &compare_and_delete, py::arg("key"), py::arg("version"))
      .def("ttl", &ttl, py::arg("key"))
      .def("clear", [](CacheHandle& c) { return take(c.engine->clear()); })
      .def(
          "cull", [](CacheHandle& c, std::uint64_t n) { return take(c.engine->cull(n)); },
          py::arg("n"))
      .def(
          "limit",
          [](CacheHandle& c, std::uint32_t max_entries) { check(c.engine->limit(max_entries)); },
          py::arg("max_entries"))
      .def("entries", [](CacheHandle& c) { return take(c.engine->entries()); })
      .def(
          "missed",
          [](CacheHandle& c, py::handle key) {
            check(c.engine->missed(key_bytes(key)));
            tally_miss(c);
          },
          py::arg("key"))
      .def("counts", &counts)
      .def("prefixes", &prefixes)
      .def("items", &items)
      .def("examine", &examine, py::arg("key"), py::arg("whole"))
      .def("scan", &scan, py::arg("cursor"), py::arg("most"))
      .def(
          "change_count",
          [](CacheHandle& c, py::handle key) {
            return take(c.engine->change_count(key_bytes(key)));
          },
          py::arg("key"))
      .def("wait_for_change", &wait_for_change, py::arg("key"), py::arg("seen"),
           py::arg("timeout"));
  m.def("pack", &pack, py::arg("value"), py::arg("pickle_all"));
  m.def("unpack", &unpack, py::arg("data"));
  m.def("set_named_type", &set_named_type, py::arg("type"));
}

}  // namespace celeriac::bindings
