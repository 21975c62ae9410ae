// DjangoCalls: the calls of the Django backend that a page makes a hundred times, from the caller's
// line to the engine without a line of Python in between.
//
// A class puts DjangoCalls before the class that has the same calls in Python (its *next* class in
// method resolution order), which are the specification: each call here either does exactly what
// the next class's does, or does nothing and hands its arguments on to it.
//
// A call is handed on, whole and as it came, when
//   - the object isn't ready: its state (below) couldn't be had;
//   - the key isn't a str, or the key made of it would have Django warn: longer than 250
//     characters, or with a character up to the space, or DEL;
//   - a version isn't the object's own (another has another cache), a timeout isn't a finite number
//     above zero, None or the default;
//   - an argument has a name that is not known here;
//   - an entry is there that Python packed (Codec::kNamed), or may be, where that matters;
//   - a missing key that is asked for is a lock's, or one that is deleted is being computed;
//   - the store or the codec says no: what happens then (a miss, an error, the old value goes) is
//     Python's to decide. The next class then does the call once more from the start, which is
//     right because nothing was done: an engine's call that fails has changed nothing.
//
// The state is what the object's _native_state() gives: the cache, what stands before a key
// ("prefix:", and "1:" for the version), the default timeout, what stands for it, and in a tuple
// the store for its locks, the table of flights, and what stands before a key there. It says None
// while there is no state yet, and False when there never will be with these attributes: another
// key function,
// a subclass with a make_key() of its own, a bound on entries. The state, or the False, holds until
// any attribute of the object is set (__setattr__ is watched; the key function is swapped that
// way), or any attribute of its class or of a base changes (CPython then changes the class's
// version tag), or a call fails.
#include <cmath>
#include <string>

#include "bindings/bindings.hpp"
#include "bindings/codec.hpp"
#include "bindings/django_key.hpp"
#include "bindings/errors.hpp"
#include "bindings/fastcall.hpp"
#include "bindings/handles.hpp"
#include "bindings/removal.hpp"
#include "bindings/tally.hpp"

namespace py = pybind11;

namespace celeriac::bindings {
namespace {

enum class Ready : unsigned char { kUnknown, kYes, kNever };

struct DjangoCalls {
  PyObject ob_base;
  Ready ready;
  unsigned class_version;
  PyObject* cache;     // _core.Cache
  PyObject* standard;  // Django's DEFAULT_TIMEOUT, a value that stands for "not given"
  PyObject* beside;    // (locks: _core.Store, flights: _core.Cache; bytes before a key there)
  double timeout;      // infinite: never
  Head head;
};

PyTypeObject* g_type = nullptr;

DjangoCalls& calls(PyObject* self) { return *reinterpret_cast<DjangoCalls*>(self); }

// Zero when CPython has given the class none; then nothing is known of its changes.
unsigned class_version(PyObject* self) {
  const PyTypeObject* type = Py_TYPE(self);
#if PY_VERSION_HEX < 0x030D0000  // since 3.13 a tag is valid if it isn't zero
  if (PyType_HasFeature(Py_TYPE(self), Py_TPFLAGS_VALID_VERSION_TAG) == 0) return 0;
#endif
  return type->tp_version_tag;
}

// ------------------------------------------------------------------------------- the state

// Asks the object for its state.
Ready ask(PyObject* self) {
  const py::object state =
      py::reinterpret_steal<py::object>(PyObject_CallMethod(self, "_native_state", nullptr));
  if (!state) throw py::error_already_set();
  DjangoCalls& o = calls(self);
  o.class_version = class_version(self);
  if (state.is_none() || o.class_version == 0) return Ready::kUnknown;
  if (state.ptr() == Py_False) return Ready::kNever;
  const auto parts = state.cast<py::tuple>();
  const auto beside = parts.size() == 6 ? parts[5].cast<py::tuple>() : py::tuple();
  if (beside.size() != 3 || !py::isinstance<CacheHandle>(parts[0]) ||
      !py::isinstance<StoreHandle>(beside[0]) || !py::isinstance<CacheHandle>(beside[1]) ||
      !py::isinstance<py::bytes>(beside[2])) {
    throw py::type_error("_native_state() gives what bind_django.cpp says");
  }
  Py_XSETREF(o.beside, Py_NewRef(beside.ptr()));
  Py_XSETREF(o.cache, Py_NewRef(parts[0].ptr()));
  o.timeout = parts[3].is_none() ? INFINITY : parts[3].cast<double>();
  Py_XSETREF(o.standard, Py_NewRef(parts[4].ptr()));
  const bool fits = o.head.set(py::str(parts[1]).ptr(), py::str(parts[2]).ptr());
  return fits && o.timeout > 0 ? Ready::kYes : Ready::kNever;
}

bool is_ready(PyObject* self) {
  DjangoCalls& o = calls(self);
  if (o.ready == Ready::kUnknown || o.class_version != class_version(self)) o.ready = ask(self);
  return o.ready == Ready::kYes;
}

// ------------------------------------------------------------------------------- arguments

// False when this isn't for us.
bool expires_at(const DjangoCalls& o, PyObject* timeout, std::uint64_t* at) {
  double seconds = o.timeout;
  if (timeout == Py_None) {
    seconds = INFINITY;
  } else if (timeout != nullptr && timeout != o.standard) {
    if (!PyLong_CheckExact(timeout) && !PyFloat_CheckExact(timeout)) return false;
    seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1 && PyErr_Occurred() != nullptr) PyErr_Clear();
    if (!(seconds > 0) || std::isinf(seconds)) return false;
  }
  *at = std::isinf(seconds) ? kNever : deadline_after(seconds);
  return true;
}

// ------------------------------------------------------------------------------- calling

PyObject* hand_on(PyObject* self, const char* name, const Given& given) {
  PyObject* next = PyObject_CallFunctionObjArgs(reinterpret_cast<PyObject*>(&PySuper_Type),
                                                reinterpret_cast<PyObject*>(g_type), self, nullptr);
  if (next == nullptr) return nullptr;
  PyObject* call = PyObject_GetAttrString(next, name);
  Py_DECREF(next);
  if (call == nullptr) return nullptr;
  PyObject* result =
      PyObject_Vectorcall(call, given.args, static_cast<std::size_t>(given.n), given.names);
  Py_DECREF(call);
  return result;
}

// Nothing, because the store has failed: the call is handed on, and the state asked for anew.
PyObject* failed(PyObject* self) {
  calls(self).ready = Ready::kUnknown;
  return nullptr;
}

PyObject* answer(PyObject* self, const Result<bool>& result) {
  return result ? truth(result.value()) : failed(self);
}

// An entry with more than a value in it is Python's, who knows whether it is stale.
PyObject* answer(PyObject* self, const Result<Met>& result) {
  if (result && result.value() == Met::kPacked) return nullptr;
  return result ? truth(result.value() == Met::kPlain) : failed(self);
}

// Does the call here, or hands it on when `fast` gives nothing. The cache is held meanwhile:
// pickled values run code, which may change the state.
template <std::size_t size, class Fast>
PyObject* attempt(PyObject* self, const char* name, const Given& given,
                  const std::array<PyObject*, size>& known, std::size_t required,
                  const Fast& fast) {
  return guarded([&] {
    std::array<PyObject*, size> args{};
    if (is_ready(self) && given.sort(known, required, &args)) {
      const DjangoCalls& o = calls(self);
      const auto held = py::reinterpret_borrow<py::object>(o.cache);
      try {
        PyObject* done = fast(o, cache_handle(o.cache), args);
        if (done != nullptr || PyErr_Occurred() != nullptr) return done;
      } catch (py::error_already_set& e) {
        if (!e.matches(celeriac_error())) throw;
        failed(self);
      }
    }
    return hand_on(self, name, given);
  });
}

// What is beside the cache; held, for the state may change.
struct Beside {
  explicit Beside(const DjangoCalls& o) : all(py::reinterpret_borrow<py::tuple>(o.beside)) {}
  // As django/locks.py names the locks of keys.
  Result<bool> is_locked(std::string_view key) const {
    const auto& store = py::handle(PyTuple_GET_ITEM(all.ptr(), 0)).cast<const StoreHandle&>();
    return store.engine->is_locked("cache:" + std::string(key));
  }
  CacheEngine& flights() const { return *cache_handle(PyTuple_GET_ITEM(all.ptr(), 1)).engine; }
  std::string_view space() const { return key_bytes(PyTuple_GET_ITEM(all.ptr(), 2)); }

  py::tuple all;
};

// The value of an entry with more than a value in it, or the default: Python's to say.
PyObject* open_packed(PyObject* self, std::string_view key, const ValueBuffer& value,
                      PyObject* otherwise) {
  const py::str name(key.data(), key.size());
  const py::object entry = decode(value.codec, value.bytes());
  return PyObject_CallMethod(self, "_open_packed", "OOO", name.ptr(), entry.ptr(),
                             otherwise != nullptr ? otherwise : Py_None);
}

using Arguments4 = std::array<PyObject*, 4>;
using Arguments3 = std::array<PyObject*, 3>;
using Arguments2 = std::array<PyObject*, 2>;

PyObject* get(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* names) {
  static const auto& known = *new auto(interned("key", "default", "version"));
  return attempt(self, "get", {args, n, names}, known, 1,
                 [&](const DjangoCalls& o, CacheHandle& cache, const Arguments3& a) -> PyObject* {
                   FullKey key;
                   if (!key.make(o.head, a[0], a[2])) return nullptr;
                   ValueBuffer value;
                   const Result<bool> found = read(cache, key.view(), value);
                   if (!found) return failed(self);
                   if (found.value() && value.codec == Codec::kNamed) {
                     return open_packed(self, key.view(), value, a[1]);
                   }
                   if (found.value()) return decode(value.codec, value.bytes()).release().ptr();
                   return Py_NewRef(a[1] != nullptr ? a[1] : Py_None);
                 });
}

template <StoreMode mode>
PyObject* store(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* names) {
  static const auto& known = *new auto(interned("key", "value", "timeout", "version"));
  return attempt(self, mode == StoreMode::kSet ? "set" : "add", {args, n, names}, known, 2,
                 [&](const DjangoCalls& o, CacheHandle& cache, const Arguments4& a) -> PyObject* {
                   FullKey key;
                   std::uint64_t expires = 0;
                   if (!key.make(o.head, a[0], a[3]) || !expires_at(o, a[2], &expires))
                     return nullptr;
                   Encoded e;
                   encode(a[1], cache.pickle_all, &e);
                   const Result<bool> stored =
                       cache.engine->store(key.view(), e.value, expires, mode, 0);
                   if (mode == StoreMode::kAdd && stored && !stored.value()) return nullptr;
                   return answer(self, stored);
                 });
}

PyObject* touch(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* names) {
  static const auto& known = *new auto(interned("key", "timeout", "version"));
  return attempt(self, "touch", {args, n, names}, known, 1,
                 [&](const DjangoCalls& o, CacheHandle& cache, const Arguments3& a) -> PyObject* {
                   FullKey key;
                   std::uint64_t expires = 0;
                   if (!key.make(o.head, a[0], a[2]) || !expires_at(o, a[1], &expires))
                     return nullptr;
                   return answer(self, cache.engine->touch(key.view(), expires, Which::kPlain));
                 });
}

PyObject* erase(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* names) {
  static const auto& known = *new auto(interned("key", "version"));
  return attempt(self, "delete", {args, n, names}, known, 1,
                 [&](const DjangoCalls& o, CacheHandle& cache, const Arguments2& a) -> PyObject* {
                   FullKey key;
                   if (!key.make(o.head, a[0], a[1])) return nullptr;
                   const Beside beside(o);
                   const auto removed =
                       remove_plain(*cache.engine, beside.flights(), beside.space(), key.view());
                   if (!removed) return failed(self);
                   return removed.value() ? truth(*removed.value()) : nullptr;
                 });
}

PyObject* has_key(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* names) {
  static const auto& known = *new auto(interned("key", "version"));
  return attempt(self, "has_key", {args, n, names}, known, 1,
                 [&](const DjangoCalls& o, CacheHandle& cache, const Arguments2& a) -> PyObject* {
                   FullKey key;
                   if (!key.make(o.head, a[0], a[1])) return nullptr;
                   const Result<Met> there = cache.engine->probe(key.view());
                   if (!there || there.value() != Met::kNothing) return answer(self, there);
                   const Result<bool> locked = Beside(o).is_locked(key.view());
                   if (locked && locked.value()) return nullptr;
                   return answer(self, locked);
                 });
}

// Missing keys, and sums beyond 64 bits, are handed on.
PyObject* incr(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* names) {
  static const auto& known = *new auto(interned("key", "delta", "version"));
  return attempt(self, "incr", {args, n, names}, known, 1,
                 [&](const DjangoCalls& o, CacheHandle& cache, const Arguments3& a) -> PyObject* {
                   FullKey key;
                   int overflow = 0;
                   long long delta = 1;
                   if (a[1] != nullptr) {
                     if (!PyLong_CheckExact(a[1])) return nullptr;
                     delta = PyLong_AsLongLongAndOverflow(a[1], &overflow);
                   }
                   if (overflow != 0 || !key.make(o.head, a[0], a[2])) return nullptr;
                   std::int64_t sum = 0;
                   const auto result = cache.engine->increment(key.view(), delta, &sum);
                   if (!result) return failed(self);
                   if (result.value() != IncrementResult::kDone) return nullptr;
                   return PyLong_FromLongLong(sum);
                 });
}

// ------------------------------------------------------------------------------- many keys

// All or nothing: one key that isn't for us, and the whole call is handed on.
PyObject* get_many(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* names) {
  static const auto& known = *new auto(interned("keys", "version"));
  return attempt(
      self, "get_many", {args, n, names}, known, 1,
      [&](const DjangoCalls& o, CacheHandle& cache, const Arguments2& a) -> PyObject* {
        // Others may be iterators, which can't be handed on once they were used.
        if (!PyList_CheckExact(a[0]) && !PyTuple_CheckExact(a[0])) return nullptr;
        const auto all = py::reinterpret_steal<py::object>(PySequence_Tuple(a[0]));
        if (!all) throw py::error_already_set();
        py::dict found;
        auto* const nothing = reinterpret_cast<PyObject*>(g_type);  // no value is it
        const Head head = o.head;                                   // one for all keys
        FullKey full;
        ValueBuffer value;
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(all.ptr()); ++i) {
          PyObject* key = PyTuple_GET_ITEM(all.ptr(), i);
          if (!full.make(head, key, a[1])) return nullptr;
          const Result<bool> there = read(cache, full.view(), value);
          if (!there) return failed(self);
          if (!there.value()) continue;
          py::object one;
          if (value.codec == Codec::kNamed) {
            one = py::reinterpret_steal<py::object>(open_packed(self, full.view(), value, nothing));
            if (!one) throw py::error_already_set();
            if (one.ptr() == nothing) continue;
          } else {
            one = decode(value.codec, value.bytes());
          }
          if (PyDict_SetItem(found.ptr(), key, one.ptr()) != 0) return nullptr;
        }
        return found.release().ptr();
      });
}

// As get_many; the keys are looked at before anything is stored.
PyObject* set_many(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* names) {
  static const auto& known = *new auto(interned("data", "timeout", "version"));
  return attempt(self, "set_many", {args, n, names}, known, 1,
                 [&](const DjangoCalls& o, CacheHandle& cache, const Arguments3& a) -> PyObject* {
                   std::uint64_t expires = 0;
                   if (!PyDict_CheckExact(a[0]) || !expires_at(o, a[1], &expires)) return nullptr;
                   const auto all = py::reinterpret_steal<py::object>(PyDict_Copy(a[0]));
                   if (!all) throw py::error_already_set();
                   const Head head = o.head;
                   FullKey full;
                   Py_ssize_t at = 0;
                   PyObject* key = nullptr;
                   PyObject* value = nullptr;
                   EncodedValues encoded;  // all of them, before the first is stored
                   while (PyDict_Next(all.ptr(), &at, &key, &value) != 0) {
                     if (!full.make(head, key, a[2])) return nullptr;
                     encoded.add(value, cache.pickle_all);
                   }
                   at = 0;
                   std::size_t i = 0;
                   while (PyDict_Next(all.ptr(), &at, &key, &value) != 0) {
                     if (!full.make(head, key, a[2])) return nullptr;
                     const Result<bool> stored = cache.engine->store(full.view(), encoded[i++],
                                                                     expires, StoreMode::kSet, 0);
                     if (!stored) return failed(self);
                   }
                   return PyList_New(0);
                 });
}

// So that copy.copy() works, as it does for objects without C members.
PyObject* get_state(PyObject* self, PyObject*) {
  PyObject* attributes = PyObject_GetAttrString(self, "__dict__");
  PyObject* state = attributes == nullptr ? nullptr : PyDict_Copy(attributes);
  Py_XDECREF(attributes);
  return state;
}

// A function can be called with any object for `self`.
template <FastCall call>
PyObject* checked(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* names) {
  if (PyObject_TypeCheck(self, g_type)) return call(self, args, n, names);
  return PyErr_Format(PyExc_TypeError, "a %s is no cache of celeriac's", Py_TYPE(self)->tp_name);
}

PyMethodDef* methods() {
  static PyMethodDef all[] = {
      fast_method("get", &get,
                  "get($self, key, default=None, version=None)\n--\n\n"
                  "The value of a key, or `default`. A stored None is a value."),
      fast_method("set", &store<StoreMode::kSet>,
                  "set($self, key, value, timeout=..., version=None, *, nx=False, xx=False, "
                  "tags=())\n--\n\n"
                  "Store a value, and say whether it was stored. For `tags` see `invalidate`.\n\n"
                  "With `nx` only if the key is missing, with `xx` only if it is there. A value "
                  "that the store\ncan't hold removes the old one, then raises ValueTooLarge or "
                  "NotEnoughMemory."),
      fast_method("add", &store<StoreMode::kAdd>,
                  "add($self, key, value, timeout=..., version=None, *, tags=())\n--\n\n"
                  "Store a value if the key is missing, in one step; True if it was missing."),
      fast_method("touch", &touch,
                  "touch($self, key, timeout=..., version=None)\n--\n\n"
                  "Give a key a new timeout; False if it is missing."),
      fast_method("delete", &erase,
                  "delete($self, key, version=None)\n--\n\n"
                  "Remove a key; False if it is missing."),
      {"__getstate__", &get_state, METH_NOARGS, "__getstate__($self)\n--\n\n"},
      {nullptr, nullptr, 0, nullptr},
  };
  return all;
}

// Those in which Django 6.1's tests look for `__func__`.
PyMethodDef* bound_methods() {
  static PyMethodDef all[] = {
      fast_method("has_key", &as_function<&checked<&has_key>>,
                  "has_key($self, key, version=None)\n--\n\n"
                  "Whether the key is there, with a value or as that of a `lock` that somebody "
                  "holds."),
      fast_method("incr", &as_function<&checked<&incr>>,
                  "incr($self, key, delta=1, version=None, *, ignore_key_check=False)\n--\n\n"
                  "Add to an integer in one step, and return the sum. The timeout stays.\n\n"
                  "A missing key raises ValueError, or with `ignore_key_check` counts as a 0 that "
                  "never\nexpires. Anything but an integer raises TypeError. There is no largest "
                  "sum."),
      fast_method("get_many", &as_function<&checked<&get_many>>,
                  "get_many($self, keys, version=None)\n--\n\n"
                  "The values of those keys that are there."),
      fast_method("set_many", &as_function<&checked<&set_many>>,
                  "set_many($self, data, timeout=..., version=None, *, tags=())\n--\n\n"
                  "Store several values; returns the keys whose value the store could not hold.\n\n"
                  "Those keys are gone then, as after a `set` that failed."),
      {nullptr, nullptr, 0, nullptr},
  };
  return all;
}

// ------------------------------------------------------------------------------- the type

int set_attribute(PyObject* self, PyObject* name, PyObject* value) {
  calls(self).ready = Ready::kUnknown;
  return PyObject_GenericSetAttr(self, name, value);
}

int traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(calls(self).cache);
  Py_VISIT(calls(self).standard);
  Py_VISIT(calls(self).beside);
  return 0;
}

int clear(PyObject* self) {
  calls(self).ready = Ready::kUnknown;
  Py_CLEAR(calls(self).cache);
  Py_CLEAR(calls(self).standard);
  Py_CLEAR(calls(self).beside);
  return 0;
}

void destroy(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  clear(self);
  type->tp_free(self);
  Py_DECREF(type);
}

}  // namespace

void register_django(py::module_& m) {
  static PyType_Slot slots[] = {
      {Py_tp_doc, const_cast<char*>("The hot calls of the Django backend; a base for its class.")},
      {Py_tp_new, reinterpret_cast<void*>(&PyType_GenericNew)},
      {Py_tp_dealloc, reinterpret_cast<void*>(&destroy)},
      {Py_tp_traverse, reinterpret_cast<void*>(&traverse)},
      {Py_tp_clear, reinterpret_cast<void*>(&clear)},
      {Py_tp_setattro, reinterpret_cast<void*>(&set_attribute)},
      {Py_tp_methods, methods()},
      {0, nullptr},
  };
  static PyType_Spec spec = {"celeriac._core.DjangoCalls", sizeof(DjangoCalls), 0,
                             Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, slots};
  PyObject* type = PyType_FromSpec(&spec);
  if (type == nullptr) throw py::error_already_set();
  g_type = reinterpret_cast<PyTypeObject*>(type);
  for (PyMethodDef* d = bound_methods(); d->ml_name != nullptr; ++d) add_bound_method(type, d);
  m.attr("DjangoCalls") = py::handle(type);
}

}  // namespace celeriac::bindings
