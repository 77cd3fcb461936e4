#include "backend/cuda/step_graphs.h"

#include <algorithm>

#include "backend/cuda/runtime/device.h"

namespace atom::cuda {
namespace {

constexpr size_t kMostRecords = 512;  // a record of 300 launches takes about half a megabyte

}  // namespace

StepGraphs::~StepGraphs() { clear(); }

void StepGraphs::clear() {
  for (auto& [key, record] : records_) {
    if (record.graph != nullptr) (void)cudaGraphExecDestroy(record.graph);
  }
  records_.clear();
}

void StepGraphs::run(const StepKey& key, cudaStream_t stream,
                     const std::function<void()>& operators) {
  const auto found = records_.find(key);
  if (found == records_.end()) {
    operators();  // which may clear()
    if (records_.size() >= kMostRecords) drop_oldest();
    records_[key].last_use = ++uses_;
    return;
  }
  Record& record = found->second;
  record.last_use = ++uses_;
  if (record.graph == nullptr) {
    cudaGraph_t graph = nullptr;
    ATOM_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    operators();
    ATOM_CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
    ATOM_CUDA_CHECK(cudaGraphInstantiate(&record.graph, graph, 0));
    ATOM_CUDA_CHECK(cudaGraphDestroy(graph));
  }
  ATOM_CUDA_CHECK(cudaGraphLaunch(record.graph, stream));
}

void StepGraphs::drop_oldest() {
  const auto oldest = std::min_element(
      records_.begin(), records_.end(),
      [](const auto& a, const auto& b) { return a.second.last_use < b.second.last_use; });
  if (oldest->second.graph != nullptr) {
    ATOM_CUDA_CHECK(cudaGraphExecDestroy(oldest->second.graph));
  }
  records_.erase(oldest);
}

}  // namespace atom::cuda
