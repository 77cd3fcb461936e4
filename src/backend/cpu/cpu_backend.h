// The CPU backend: integer linears on AMX, AVX-512 VNNI or AVX2, chosen at run time, float linears
// through OpenBLAS, KV pages in the layout of backend/cpu/kv_cache.h.
#pragma once

#include <memory>

#include "ops/backend.h"

namespace atom {

enum class CpuIsa : uint8_t { kAuto, kPortable };
inline constexpr CpuIsa kAllCpuIsas[] = {CpuIsa::kPortable};

struct CpuOptions {
  CpuIsa isa = CpuIsa::kAuto;  // kAuto: the best this machine has
};

// Fails (kUnsupported) when this machine lacks the instruction set asked for. The number of threads
// is that of base/parallel.h.
Result<std::unique_ptr<Backend>> make_cpu_backend(const CpuOptions& options);

}  // namespace atom
