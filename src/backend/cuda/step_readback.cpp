#include "backend/cuda/step_readback.h"

namespace atom::cuda {

Result<std::unique_ptr<CudaTokenIds>> CudaTokenIds::create(int64_t size) {
  std::unique_ptr<CudaTokenIds> made(new CudaTokenIds);
  made->ids_ = ATOM_TRY(DeviceArray<int32_t>::allocate(size));
  made->ids_.fill_bytes(0);
  return made;
}

Result<std::unique_ptr<CudaReadback>> CudaReadback::create(int64_t rows, int64_t vocab) {
  std::unique_ptr<CudaReadback> made(new CudaReadback);
  made->rows_ = rows;
  made->capacity_ = rows * vocab;
  ATOM_TRY(made->chosen_.reserve(rows));
  ATOM_TRY(made->logits_.reserve(made->capacity_));
  ATOM_CUDA_CHECK(cudaEventCreate(&made->began_));
  ATOM_CUDA_CHECK(cudaEventCreate(&made->ran_));
  ATOM_CUDA_CHECK(cudaEventCreateWithFlags(&made->copied_, cudaEventDisableTiming));
  return made;
}

CudaReadback::~CudaReadback() {
  // Copies may still be on their way.
  if (copied_ != nullptr) (void)cudaEventSynchronize(copied_);
  for (cudaEvent_t event : {began_, ran_, copied_}) {
    if (event != nullptr) (void)cudaEventDestroy(event);
  }
}

void CudaReadback::begin(cudaStream_t stream) { ATOM_CUDA_CHECK(cudaEventRecord(began_, stream)); }

void CudaReadback::end(const StepArgs& args, cudaStream_t stream) {
  ATOM_CUDA_CHECK(cudaEventRecord(ran_, stream));
  const auto rows = static_cast<int64_t>(args.batch->logit_rows.size());
  const int64_t whole = args.reading.whole_rows;
  ATOM_CHECK(rows <= rows_ && whole <= rows, "more rows than the readback was made for");
  chosen_count_ = static_cast<size_t>(whole < rows ? rows : 0);
  logit_count_ = static_cast<size_t>(whole == 0 ? 0 : whole * args.logits->cols());
  ATOM_CHECK(static_cast<int64_t>(logit_count_) <= capacity_, "a larger vocabulary");
  const auto copy = [&](void* to, const void* from, size_t count) {
    if (count == 0) return;
    ATOM_CUDA_CHECK(cudaMemcpyAsync(to, from, 4 * count, cudaMemcpyDeviceToHost, stream));
  };
  if (chosen_count_ > 0) {
    copy(chosen_.data(), cast(*args.reading.chosen).data(), chosen_count_);
  }
  if (logit_count_ > 0) {
    copy(logits_.data(), cast(*args.logits).data(), logit_count_);
  }
  ATOM_CUDA_CHECK(cudaEventRecord(copied_, stream));
}

StepOutput CudaReadback::wait() {
  ATOM_CUDA_CHECK(cudaEventSynchronize(copied_));
  float milliseconds = 0;
  ATOM_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, began_, ran_));
  return {.chosen = {chosen_.data(), chosen_count_},
          .logits = {reinterpret_cast<float*>(logits_.data()), logit_count_},
          .seconds = static_cast<double>(milliseconds) * 1e-3};
}

}  // namespace atom::cuda
