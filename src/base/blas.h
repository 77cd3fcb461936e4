// The few BLAS and LAPACK routines that we call, each running in the calling thread alone: loops
// over independent tiles are ours (base/parallel.h), so that no result depends on the number of
// threads. All may be called from several threads at once. Matrices are row-major.
#pragma once

#include <cstdint>

namespace atom::blas {

// C[m, n] = alpha * op(A) op(B) + beta * C, op transposing where asked: A is [m, k], or [k, m] with
// transpose_a; B is [k, n], or [n, k] with transpose_b. ld*: elements from one row to the next.
void gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
          const float* a, int64_t lda, const float* b, int64_t ldb, float beta, float* c,
          int64_t ldc);

// The lower triangle of C[n, n] += A^T A, A being [k, n]. The upper triangle is not touched.
void add_gram(int64_t n, int64_t k, const float* a, int64_t lda, float* c, int64_t ldc);

// Replaces the lower triangle of a symmetric positive definite A[n, n] by L with A = L L^T. The
// upper triangle is not touched. Returns 0, or the index (from 1) of the pivot that failed.
int64_t cholesky(int64_t n, double* a);

// Replaces a lower triangular L[n, n] by its inverse. Returns 0, or the index (from 1) of a zero on
// the diagonal.
int64_t invert_lower(int64_t n, double* l);

}  // namespace atom::blas
