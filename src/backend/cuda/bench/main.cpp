// cuda_bench [w4a8|w8a8|w4a4|attention|norm] [--all] [--no-vendor] [NxKxM ...]
#include <cstdio>
#include <cstring>
#include <string>

#include "backend/cuda/bench/bench.h"
#include "backend/cuda/bench/timing.h"

int main(int argc, char** argv) {
  using namespace atom::cuda;
  bool all = false, vendor = true;
  std::string what = "w4a8";
  std::vector<bench::GemmSize> sizes;
  for (int i = 1; i < argc; ++i) {
    long n, k, m;
    if (std::strcmp(argv[i], "--all") == 0) {
      all = true;
    } else if (std::strcmp(argv[i], "--no-vendor") == 0) {
      vendor = false;
    } else if (std::sscanf(argv[i], "%ldx%ldx%ld", &n, &k, &m) == 3) {
      sizes.push_back({.n = n, .k = k, .m = m});
    } else {
      what = argv[i];
    }
  }
  const double copy = bench::copy_gbps();
  std::printf("copy %.0f GB/s\n", copy);
  if (what == "w4a8") bench::bench_gemm(GemmFormat::kW4A8, sizes, all, vendor, copy);
  if (what == "w8a8") bench::bench_gemm(GemmFormat::kW8A8, sizes, all, vendor, copy);
  if (what == "w4a4") bench::bench_gemm(GemmFormat::kW4A4, sizes, all, vendor, copy);
  if (what == "attention") bench::bench_attention(copy);
  if (what == "norm") bench::bench_norm(sizes, copy);
}
