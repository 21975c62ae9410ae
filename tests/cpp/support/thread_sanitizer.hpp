// What ThreadSanitizer is told, compiled into each test.
//
// boost::lockfree::queue reads `next` and the value of a node while another thread may have taken
// that node, put it on the free list, or used it again; the tagged CAS that follows throws away
// what was read (boost/lockfree/queue.hpp: pop; detail/freelist.hpp: allocate_impl,
// deallocate_impl). That is Boost's own, and here it only handles hints.
#pragma once

#if defined(__SANITIZE_THREAD__)
extern "C" __attribute__((used, visibility("default"))) inline const char*
__tsan_default_suppressions() {  // NOLINT(bugprone-reserved-identifier): the sanitizer's name
  return "race:boost::lockfree::\n";
}
#endif
