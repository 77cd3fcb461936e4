#include "backend/cpu/cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace atom {

const char* cpu_isa_name(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kAuto:
      return "auto";
    case CpuIsa::kAmx:
      return "amx";
    case CpuIsa::kAvx512Vnni:
      return "avx512-vnni";
    case CpuIsa::kAvxVnni:
      return "avx-vnni";
    case CpuIsa::kAvx2:
      return "avx2";
    case CpuIsa::kPortable:
      return "portable";
  }
  return "?";
}

namespace cpu {
namespace {

#if defined(__x86_64__)

struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
  Registers r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

bool all(unsigned word, unsigned bits) { return (word & bits) == bits; }

// The register sets that the system saves on a context switch (XCR0).
unsigned saved_state(const Registers& leaf1) {
  constexpr unsigned kOsxsave = 1u << 27;
  if (!all(leaf1.ecx, kOsxsave)) return 0;
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

// Linux gives a process AMX registers only when it asks.
bool amx_permitted() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

bool supported(CpuIsa isa) {
  const Registers leaf1 = cpuid(1, 0), leaf7 = cpuid(7, 0), leaf71 = cpuid(7, 1);
  const unsigned saved = saved_state(leaf1);
  const bool avx2 =
      all(saved, 0x6) && all(leaf1.ecx, bit_FMA | bit_AVX | bit_F16C) && all(leaf7.ebx, bit_AVX2);
  const bool avx512 = avx2 && all(saved, 0xe6) &&
                      all(leaf7.ebx, bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ) &&
                      all(leaf7.ecx, bit_AVX512VNNI);
  constexpr unsigned kAmxBits = (1u << 24) | (1u << 25);  // TILE, INT8
  switch (isa) {
    case CpuIsa::kAmx:
      return avx512 && all(saved, 0x60000) && all(leaf7.edx, kAmxBits) && amx_permitted();
    case CpuIsa::kAvx512Vnni:
      return avx512;
    case CpuIsa::kAvxVnni:
      return avx2 && all(leaf71.eax, bit_AVXVNNI);
    case CpuIsa::kAvx2:
      return avx2;
    default:
      return true;
  }
}

const Kernels* kernels_of(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kAmx:
      return &kAmxKernels;
    case CpuIsa::kAvx512Vnni:
      return &kAvx512Kernels;
    case CpuIsa::kAvxVnni:
      return &kAvxVnniKernels;
    case CpuIsa::kAvx2:
      return &kAvx2Kernels;
    default:
      return &kPortableKernels;
  }
}

#else

bool supported(CpuIsa isa) { return isa == CpuIsa::kPortable; }
const Kernels* kernels_of(CpuIsa) { return &kPortableKernels; }

#endif

}  // namespace

const Kernels* select_kernels(CpuIsa isa) {
  if (isa != CpuIsa::kAuto) return supported(isa) ? kernels_of(isa) : nullptr;
  for (const CpuIsa candidate : kAllCpuIsas) {
    if (supported(candidate)) return kernels_of(candidate);
  }
  return &kPortableKernels;
}

}  // namespace cpu
}  // namespace atom
