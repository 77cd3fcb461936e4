// GPTQ's factor of a Hessian: with J the reversal of indices and J (H + damp I) J = L L^T (L
// lower), the wanted U = J L^-1 J, as quant/hessian.cpp has it. Everything is in double, in place,
// by blocks of kFactorBlock rows and columns:
//
//   Cholesky, for each block j of columns          inverse, for each block i of rows
//     L_jj, and L_jj^-1 beside the matrix            X_i,c = L_ii^-1 A_i,c   for c < i;  X_ii =
//     L_ii^-1 A_r,j := A_r,j L_jj^-T   for r > j             A_r,c -= L_r,i X_i,c    for r > i, c
//     <= i A_r,c -= A_r,j A_c,j^T   for r >= c > j          (c = i: = - L_r,i X_ii)
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace atom::cuda {

inline constexpr int kFactorBlock = 64;

// A of J (H + damp I) J, its lower triangle, and the diagonal of H + damp I.
struct ReverseParams {
  const float* gram = nullptr;      // [n, n], its lower triangle
  const int32_t* order = nullptr;   // [n] or null
  const float* divisors = nullptr;  // [n] or null
  double damp = 0;
  int n = 0;
  double* matrix = nullptr;   // [n, n]
  float* diagonal = nullptr;  // [n]
};
void launch_reverse(const ReverseParams& params, cudaStream_t stream);

struct FactorParams {
  double* matrix = nullptr;    // [n, n]
  double* inverses = nullptr;  // [blocks][kFactorBlock, kFactorBlock] of the diagonal blocks of L
  double* panel = nullptr;     // [n, kFactorBlock] scratch
  int* failed = nullptr;       // the first pivot that was not positive, from 1; 0 before
  int n = 0;
  int block = 0;  // set by the launcher
};
// A becomes L, then L^-1, in its lower triangle.
void launch_invert_factor(FactorParams params, cudaStream_t stream);

// U [n, n] row-major, zero below the diagonal, of L^-1.
struct UpperParams {
  const double* matrix = nullptr;
  float* upper = nullptr;
  int n = 0;
};
void launch_upper(const UpperParams& params, cudaStream_t stream);

// to[i] = square[i][i].
struct DiagonalParams {
  const float* square = nullptr;
  float* to = nullptr;
  int n = 0;
};
void launch_diagonal(const DiagonalParams& params, cudaStream_t stream);

}  // namespace atom::cuda
