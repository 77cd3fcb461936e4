// The CPU backend: integer linears on AMX, AVX-512 VNNI or AVX2, chosen at run time, float linears
// through OpenBLAS, KV pages in the layout of backend/cpu/kv_cache.h.
#pragma once

#include <memory>

#include "ops/backend.h"

namespace atom {

// Instruction sets that kernels exist for, best first; each includes what the ones below it need.
enum class CpuIsa : uint8_t {
  kAuto,        // the best that this machine has
  kAmx,         // AMX-INT8 and AVX-512 VNNI
  kAvx512Vnni,  // AVX-512 F, BW, VL, DQ, VNNI
  kAvxVnni,     // AVX2 and AVX-VNNI
  kAvx2,        // AVX2, FMA, F16C
  kPortable,
};
inline constexpr CpuIsa kAllCpuIsas[] = {CpuIsa::kAmx, CpuIsa::kAvx512Vnni, CpuIsa::kAvxVnni,
                                         CpuIsa::kAvx2, CpuIsa::kPortable};
// "amx", "avx512-vnni" ...
const char* cpu_isa_name(CpuIsa isa);

struct CpuOptions {
  CpuIsa isa = CpuIsa::kAuto;
};

// Fails (kUnsupported) when this machine lacks the instruction set asked for. The number of threads
// is that of base/parallel.h.
Result<std::unique_ptr<Backend>> make_cpu_backend(const CpuOptions& options);

}  // namespace atom
