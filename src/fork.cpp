#include "shard/detail/fork.hpp"

#include <cstring>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace shard::detail {

namespace {

constexpr std::size_t kPage = 4096;

}  // namespace

WipedOnFork::WipedOnFork() : memory_(nullptr), mapped_(false) {
#if defined(__linux__) && defined(MADV_WIPEONFORK)
  void* const page =
      mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page != MAP_FAILED) {
    madvise(page, kPage, MADV_WIPEONFORK);  // an old kernel refuses: then a child is not noticed
    memory_ = page;
    mapped_ = true;
    return;
  }
#endif
  memory_ = ::operator new (kPage, std::align_val_t{kPage});
  std::memset(memory_, 0, kPage);
}

WipedOnFork::~WipedOnFork() {
#if defined(__linux__)
  if (mapped_) {
    munmap(memory_, kPage);
    return;
  }
#endif
  ::operator delete (memory_, std::align_val_t{kPage});
}

namespace {

struct Kept {
  std::shared_ptr<const void> object;
  Kept* next;
};
Kept* g_kept =
    nullptr;  // a child has one thread unless it starts others; those keep their own pipelines

}  // namespace

void keep_forever(std::shared_ptr<const void> object) noexcept {
  if (auto* const kept = new (std::nothrow) Kept{std::move(object), g_kept}) {
    g_kept = kept;
  }
}

}  // namespace shard::detail
