// The kernel as C++, over the headers of include/.
#include "backend/cuda/gemm/nvfp4_sm100a.cu"
