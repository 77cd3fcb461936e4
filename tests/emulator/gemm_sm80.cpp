// The kernels as C++, over the headers of include/.
#include "backend/cuda/gemm/gemm_sm80.cu"
