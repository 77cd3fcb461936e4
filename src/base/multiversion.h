// A function compiled for several instruction sets, the best chosen when the program starts. The
// results are the same on all of them: nothing is contracted or reassociated.
#pragma once

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && \
    !defined(__clang__)
#define ATOM_MULTIVERSION \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define ATOM_MULTIVERSION
#endif
