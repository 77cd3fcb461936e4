// What this machine and its system let us execute.
#pragma once

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/kernels.h"

namespace atom::cpu {

// The kernels for an instruction set; null when the processor lacks it, or the system does not save
// its registers. Asks the system for permission to use AMX where that is wanted.
const Kernels* select_kernels(CpuIsa isa);

}  // namespace atom::cpu
