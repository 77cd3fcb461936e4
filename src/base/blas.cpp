#include "base/blas.h"

#include <cblas.h>

#include <mutex>

#include "base/check.h"

extern "C" {
void dpotrf_(const char* uplo, const int* n, double* a, const int* lda, int* info);
void dtrtri_(const char* uplo, const char* diag, const int* n, double* a, const int* lda,
             int* info);
}

namespace atom::blas {
namespace {

// OpenBLAS's OpenMP build, held to one thread a call. (Its serial build is not safe to call from
// several threads: they may be handed the same packing buffer.) It asks OpenMP for the number of
// threads, which is a setting of each calling thread.
void hold_to_one_thread() {
  static std::mutex mutex;
  static thread_local const bool held = [] {
    const std::lock_guard lock(mutex);
    openblas_set_num_threads(1);
    return true;
  }();
  (void)held;
}

int index(int64_t value) {
  ATOM_CHECK(value >= 0 && value <= INT32_MAX, "a matrix too large for BLAS");
  return static_cast<int>(value);
}

CBLAS_TRANSPOSE transposed(bool yes) { return yes ? CblasTrans : CblasNoTrans; }

}  // namespace

void gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
          const float* a, int64_t lda, const float* b, int64_t ldb, float beta, float* c,
          int64_t ldc) {
  hold_to_one_thread();
  cblas_sgemm(CblasRowMajor, transposed(transpose_a), transposed(transpose_b), index(m), index(n),
              index(k), alpha, a, index(lda), b, index(ldb), beta, c, index(ldc));
}

void add_gram(int64_t n, int64_t k, const float* a, int64_t lda, float* c, int64_t ldc) {
  hold_to_one_thread();
  cblas_ssyrk(CblasRowMajor, CblasLower, CblasTrans, index(n), index(k), 1.0f, a, index(lda), 1.0f,
              c, index(ldc));
}

// LAPACK is column-major: its upper triangle is the lower one of our rows.
int64_t cholesky(int64_t n, double* a) {
  hold_to_one_thread();
  const int order = index(n);
  int info = 0;
  dpotrf_("U", &order, a, &order, &info);
  return info;
}

int64_t invert_lower(int64_t n, double* l) {
  hold_to_one_thread();
  const int order = index(n);
  int info = 0;
  dtrtri_("U", "N", &order, l, &order, &info);
  return info;
}

}  // namespace atom::blas
