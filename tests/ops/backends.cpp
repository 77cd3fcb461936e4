#include "ops/backends.h"

#include "backend/cpu/cpu_backend.h"
#include "backend/ref/ref_backend.h"

namespace atom {

const std::vector<Backend*>& all_backends() {
  static const std::vector<std::unique_ptr<Backend>> owned = [] {
    std::vector<std::unique_ptr<Backend>> made;
    made.push_back(make_ref_backend());
    for (const CpuIsa isa : kAllCpuIsas) {
      Result<std::unique_ptr<Backend>> cpu = make_cpu_backend({.isa = isa});
      // Every other failure is one.
      ATOM_CHECK(cpu.ok() || cpu.status().code() == ErrorCode::kUnsupported, "no CPU backend");
      if (cpu.ok()) made.push_back(std::move(cpu).value());
    }
    return made;
  }();
  static const std::vector<Backend*> backends = [] {
    std::vector<Backend*> list;
    for (const auto& backend : owned) list.push_back(backend.get());
    return list;
  }();
  return backends;
}

Backend& ref_backend() { return *all_backends().front(); }

std::vector<Backend*> other_backends() {
  return {all_backends().begin() + 1, all_backends().end()};
}

}  // namespace atom
