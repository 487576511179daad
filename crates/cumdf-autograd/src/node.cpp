// A node of libtorch's graph whose backward pass is a closure of another language.
//
// libtorch has no C interface to this; everything else stays in lib.rs.

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>

namespace {

using at::Tensor;
using torch::autograd::Node;
using torch::autograd::variable_list;

// Gives the gradient of every input that needs one, or null for no gradient; false when it failed.
using Backward = bool (*)(void* closure, const Tensor* grad, const bool* needed, Tensor** grads);
using Drop = void (*)(void* closure);

class ClosureNode final : public Node {
 public:
  ClosureNode(void* closure, Backward backward, Drop drop)
      : closure_(closure), backward_(backward), drop_(drop) {}

  ~ClosureNode() override { release_variables(); }

  std::string name() const override { return "RustBackward"; }

  // Called when the graph is not kept: what the closure has saved may go.
  void release_variables() override {
    if (closure_ != nullptr) {
      drop_(closure_);
      closure_ = nullptr;
    }
  }

 protected:
  variable_list apply(variable_list&& grads) override {
    TORCH_CHECK(closure_ != nullptr, "a second backward pass through a graph that was not kept");
    const size_t n = num_outputs();
    variable_list found(n);
    if (!grads[0].defined()) return found;

    std::unique_ptr<bool[]> needed(new bool[n]);
    for (size_t i = 0; i < n; ++i) needed[i] = task_should_compute_output(i);
    std::vector<Tensor*> raw(n, nullptr);
    const bool well = backward_(closure_, &grads[0], needed.get(), raw.data());
    for (size_t i = 0; i < n; ++i) {
      std::unique_ptr<Tensor> owned(raw[i]);
      if (owned) found[i] = std::move(*owned);
    }
    TORCH_CHECK(well, "a backward pass written in Rust panicked; its message stands above");
    return found;
  }

 private:
  void* closure_;
  Backward backward_;
  Drop drop_;
};

}  // namespace

extern "C" {

// Whether a function of these inputs belongs into the graph.
bool cumdf_wants_gradient(const Tensor* const* inputs, size_t n) {
  if (!at::GradMode::is_enabled()) return false;
  for (size_t i = 0; i < n; ++i)
    if (inputs[i]->requires_grad()) return true;
  return false;
}

// Makes `output` the outcome of a function of `inputs`. Owns `closure` from now on. False when
// libtorch refuses.
bool cumdf_record(const Tensor* const* inputs, size_t n, const Tensor* output, void* closure,
                  Backward backward, Drop drop) {
  try {
    std::shared_ptr<Node> node(new ClosureNode(closure, backward, drop),
                               torch::autograd::deleteNode);
    variable_list all;
    for (size_t i = 0; i < n; ++i) all.push_back(*inputs[i]);
    node->set_next_edges(torch::autograd::collect_next_edges(all));
    torch::autograd::set_history(*output, node);
    return true;
  } catch (const std::exception&) {
    return false;
  }
}
}
