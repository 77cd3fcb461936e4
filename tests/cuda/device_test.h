// Helpers of the GPU tests: outputs poisoned with NaN between guards, and the error measure.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "backend/cuda/runtime/device.h"
#include "tensor/dtype.h"

namespace atom::cuda {

template <class T>
DeviceArray<T> to_device(const std::vector<T>& host) {
  return DeviceArray<T>::copy_of(host).value();
}

// An output of `size` elements of `type`: every byte 0xff (NaN in all our types), guards behind it.
class PoisonedOutput {
 public:
  PoisonedOutput(int64_t size, DType type)
      : size_(size),
        type_(type),
        bytes_(DeviceArray<uint8_t>::allocate(size * dtype_bytes(type) + kGuard).value()) {
    bytes_.fill_bytes(0xff);
  }
  void* data() { return bytes_.data(); }
  void set(const std::vector<float>& values) {
    std::vector<uint8_t> raw(static_cast<size_t>(bytes_.size()), 0xff);
    for (size_t i = 0; i < values.size(); ++i) {
      if (type_ == DType::kF32) {
        std::memcpy(&raw[4 * i], &values[i], 4);
      } else {
        const uint16_t half = type_ == DType::kF16 ? f32_to_f16(values[i]) : f32_to_bf16(values[i]);
        std::memcpy(&raw[2 * i], &half, 2);
      }
    }
    bytes_ = to_device(raw);
  }
  // Values as floats; fails the test when the kernel wrote behind the end.
  std::vector<float> values() const {
    const std::vector<uint8_t> raw = bytes_.to_host();
    std::vector<float> out(static_cast<size_t>(size_));
    for (size_t i = 0; i < out.size(); ++i) {
      if (type_ == DType::kF32) {
        std::memcpy(&out[i], &raw[4 * i], 4);
      } else {
        uint16_t half;
        std::memcpy(&half, &raw[2 * i], 2);
        out[i] = type_ == DType::kF16 ? f16_to_f32(half) : bf16_to_f32(half);
      }
    }
    for (size_t i = raw.size() - kGuard; i < raw.size(); ++i) {
      EXPECT_EQ(raw[i], 0xff) << "written behind the end";
    }
    return out;
  }

 private:
  static constexpr int64_t kGuard = 256;
  int64_t size_;
  DType type_;
  DeviceArray<uint8_t> bytes_;
};

// Normalised mean squared error; NaN anywhere makes it NaN, which no limit passes.
inline double nmse(const std::vector<float>& got, const std::vector<double>& want) {
  double error = 0, power = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    error += (got[i] - want[i]) * (got[i] - want[i]);
    power += want[i] * want[i];
  }
  return error / power;
}

// Rounding to the type alone costs about 4e-8 (f16), 3e-6 (bf16) on normal values.
inline double nmse_limit(DType type) {
  return type == DType::kF16 ? 3e-7 : type == DType::kBF16 ? 1e-5 : 1e-12;
}

}  // namespace atom::cuda
