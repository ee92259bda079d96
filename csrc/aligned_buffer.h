// Memory on cache lines, uninitialised unless asked for.
#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "kernels.h"

namespace fastce {

template <class T>
class AlignedBuffer {
 public:
  AlignedBuffer() = default;

  explicit AlignedBuffer(std::size_t size) {
    constexpr std::size_t kCacheLine = 64;
    if (size == 0) return;
    data_.reset(static_cast<T*>(std::aligned_alloc(kCacheLine, round_up(size * sizeof(T), kCacheLine))));
    if (data_ == nullptr) throw std::bad_alloc();
  }

  static AlignedBuffer zeros(std::size_t size) {
    AlignedBuffer buffer(size);
    if (size != 0) std::memset(buffer.data(), 0, size * sizeof(T));
    return buffer;
  }

  T* data() const { return data_.get(); }
  T& operator[](std::size_t index) const { return data_.get()[index]; }

 private:
  struct Free {
    void operator()(T* pointer) const { std::free(pointer); }
  };

  std::unique_ptr<T[], Free> data_;
};

}  // namespace fastce
