// The few BLAS and LAPACK routines that GPTQ calls (OpenBLAS, serial build: threads are ours, so
// that results do not depend on their number).
#pragma once

#include <cblas.h>

extern "C" {
void dpotrf_(const char* uplo, const int* n, double* a, const int* lda, int* info);
void dtrtri_(const char* uplo, const char* diag, const int* n, double* a, const int* lda,
             int* info);
}
