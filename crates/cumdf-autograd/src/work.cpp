// Counts the floating-point operations of matrix products and convolutions as libtorch calls them, a
// multiplication and an addition each.
//
// libtorch tells C++ alone of its calls; everything else stays in work.rs.

#include <ATen/record_function.h>

#include <atomic>
#include <mutex>
#include <string_view>

namespace {

std::atomic<uint64_t> operations{0};

// An operation that is counted may call others that do its work.
thread_local int inside = 0;

std::mutex counting;
int users = 0;
at::CallbackHandle handle = 0;

struct Counted final : at::ObserverContext {};

uint64_t of(const at::RecordFunction& call) {
  const std::string_view name(call.name());
  const auto inputs = call.inputs();
  const auto tensor = [&](size_t i) { return inputs[i].toTensor(); };
  // [.., m, k] times [.., k, n]
  const auto product = [&](size_t a, size_t b) {
    return 2 * static_cast<uint64_t>(tensor(a).numel()) * tensor(b).size(-1);
  };
  if (name == "aten::mm" || name == "aten::bmm") return product(0, 1);
  if (name == "aten::addmm" || name == "aten::baddbmm") return product(1, 2);
  if (name == "aten::mv") return 2 * static_cast<uint64_t>(tensor(0).numel());
  if (name == "aten::addmv") return 2 * static_cast<uint64_t>(tensor(1).numel());
  if (name == "aten::convolution") {
    // Every weight of a filter meets every place of the output.
    const auto x = tensor(0), weight = tensor(1);
    const auto stride = inputs[3].toIntVector(), padding = inputs[4].toIntVector(),
               dilation = inputs[5].toIntVector();
    uint64_t places = x.size(0);
    for (int64_t d = 2; d < x.dim(); ++d) {
      const auto at = [&](const std::vector<int64_t>& v) { return v[v.size() == 1 ? 0 : d - 2]; };
      const int64_t reach = at(dilation) * (weight.size(d) - 1) + 1;
      places *= (x.size(d) + 2 * at(padding) - reach) / at(stride) + 1;
    }
    return 2 * places * weight.numel();
  }
  if (name == "aten::convolution_backward") {
    const auto grad = tensor(0), weight = tensor(2);
    const auto wanted = inputs[10].toBoolList();
    const uint64_t one = 2 * static_cast<uint64_t>(grad.numel() / grad.size(1)) * weight.numel();
    return one * (uint64_t(wanted[0]) + uint64_t(wanted[1]));
  }
  if (name == "aten::mkldnn_rnn_layer" || name == "aten::mkldnn_rnn_layer_backward") {
    const auto x = tensor(0);  // [T, B, I]
    const uint64_t one = 2 * static_cast<uint64_t>(x.size(0) * x.size(1)) *
                         (tensor(1).numel() + tensor(2).numel());
    return name == "aten::mkldnn_rnn_layer" ? one : 2 * one;
  }
  return 0;
}

std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction& call) {
  if (inside > 0) return nullptr;
  uint64_t found = 0;
  try {
    found = of(call);
  } catch (const std::exception&) {
    return nullptr;  // another signature than is known: libtorch is pinned, and tests call each
  }
  if (found == 0) return nullptr;
  operations += found;
  ++inside;
  return std::make_unique<Counted>();
}

void end(const at::RecordFunction&, at::ObserverContext* counted) {
  if (counted != nullptr) --inside;
}

}  // namespace

extern "C" {

// Counts in all threads, once whoever asks, until as many have ended it.
void cumdf_count_begin() {
  const std::lock_guard<std::mutex> guard(counting);
  if (users++ == 0)
    handle = at::addGlobalCallback(at::RecordFunctionCallback(begin, end)
                                       .needsInputs(true)
                                       .scopes({at::RecordScope::FUNCTION}));
}

void cumdf_count_end() {
  const std::lock_guard<std::mutex> guard(counting);
  if (--users == 0) at::removeCallback(handle);
}

// Since this process began to count for the first time.
uint64_t cumdf_counted() { return operations; }
}
