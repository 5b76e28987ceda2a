#pragma once

#include <cstddef>
#include <cstring>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "shard/bytes.hpp"

namespace shard {

/// A payload that owns its bytes, to be moved through the library without a copy. Worth it above
/// ManagerOptions::inline_max; it counts against the byte bound of its shard like a copied one.
///
/// Threads: one at a time. Its memory is released by whichever thread pops, evicts or destroys it,
/// with no lock of the library held.
class Buffer {
 public:
  /// Releases the bytes. Called once, must not throw.
  using Release = void (*)(void* context) noexcept;

  Buffer() noexcept = default;
  Buffer(Buffer&& other) noexcept : node_(std::exchange(other.node_, nullptr)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer taken(std::move(other));
    swap(taken);
    return *this;
  }
  ~Buffer() { destroy(node_); }

  /// Takes a container over, moved and not copied. Throws std::bad_alloc.
  [[nodiscard]] static Buffer adopt(std::string text) { return hold(std::move(text)); }
  [[nodiscard]] static Buffer adopt(std::vector<std::byte> bytes) { return hold(std::move(bytes)); }

  /// Takes any memory over; `release(context)` gives it back. Throws std::bad_alloc, and then has
  /// taken nothing over.
  [[nodiscard]] static Buffer adopt(Bytes bytes, Release release, void* context) {
    return Buffer(
        new Node{nullptr, bytes, [](Node* node) noexcept { delete node; }, release, context});
  }

  /// Copies; one allocation. Throws std::bad_alloc.
  [[nodiscard]] static Buffer copy_of(Bytes bytes);

  [[nodiscard]] Bytes bytes() const noexcept { return node_ == nullptr ? Bytes{} : node_->bytes; }
  [[nodiscard]] bool empty() const noexcept { return bytes().empty(); }

  void swap(Buffer& other) noexcept { std::swap(node_, other.node_); }

 private:
  friend struct BufferAccess;

  /// What the ring stores a pointer to. `next` chains the ones that wait to be released.
  struct Node {
    Node* next;
    Bytes bytes;
    void (*destroy)(Node*) noexcept;
    Release release;
    void* context;
  };

  explicit Buffer(Node* node) noexcept : node_(node) {}

  template <class Container>
  static Buffer hold(Container container) {
    struct Holder : Node {
      explicit Holder(Container from) : Node{}, content(std::move(from)) {}
      Container content;
    };
    auto* holder = new Holder(std::move(container));
    holder->bytes = Bytes(holder->content);
    holder->destroy = [](Node* node) noexcept { delete static_cast<Holder*>(node); };
    return Buffer(holder);
  }

  static void destroy(Node* node) noexcept {
    if (node != nullptr) {
      if (node->release != nullptr) {
        node->release(node->context);
      }
      node->destroy(node);
    }
  }

  Node* node_ = nullptr;
};

inline Buffer Buffer::copy_of(Bytes bytes) {
  // One block: the node, then the bytes.
  void* const block = ::operator new(sizeof(Node) + bytes.size());
  auto* const at = static_cast<std::byte*>(block) + sizeof(Node);
  if (!bytes.empty()) {
    std::memcpy(at, bytes.data(), bytes.size());
  }
  const auto destroy = [](Node* node) noexcept { ::operator delete(static_cast<void*>(node)); };
  return Buffer(new (block) Node{nullptr, Bytes{at, bytes.size()}, destroy, nullptr, nullptr});
}

/// For the library: turns a Buffer into the pointer that travels through a ring, and back.
struct BufferAccess {
  using Node = Buffer::Node;

  [[nodiscard]] static Node* release(Buffer& buffer) noexcept {
    return std::exchange(buffer.node_, nullptr);
  }
  [[nodiscard]] static Buffer adopt(Node* node) noexcept { return Buffer(node); }

  /// Buffers that are to be released when no lock is held any more.
  class Chain {
   public:
    Chain() = default;
    Chain(const Chain&) = delete;
    Chain& operator=(const Chain&) = delete;
    ~Chain() {
      while (first_ != nullptr) {
        Buffer::destroy(std::exchange(first_, first_->next));
      }
    }
    void add(Node* node) noexcept {
      node->next = first_;
      first_ = node;
    }

   private:
    Node* first_ = nullptr;
  };
};

}  // namespace shard
