// A device in the CPU's memory for PyTorch's PrivateUse1, which refuses to mix its tensors with the CPU's as a GPU does.
// Operations are done by the CPU's kernels.
#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/extension.h>

using at::IntArrayRef, at::Tensor, c10::SymIntArrayRef, std::optional;
constexpr auto TYPE = c10::DeviceType::PrivateUse1;
const c10::Device HERE{TYPE, 0};
const c10::Stream STREAM(c10::Stream::DEFAULT, HERE);

struct Memory final : c10::Allocator {
  static void free(void* p) { if (p) c10::free_cpu(p); }
  c10::DataPtr allocate(size_t n) override { void* p = n ? c10::alloc_cpu(n) : nullptr; return {p, p, &free, HERE}; }
  c10::DeleterFnPtr raw_deleter() const override { return &free; }
  void copy_data(void* to, const void* from, std::size_t n) const override { std::memcpy(to, from, n); }
};
Memory memory;
REGISTER_ALLOCATOR(TYPE, &memory);

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return TYPE; }
  c10::Device exchangeDevice(c10::Device) const override { return HERE; }
  c10::Device getDevice() const override { return HERE; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const override { return STREAM; }
  c10::Stream getDefaultStream(c10::Device) const override { return STREAM; }
  c10::Stream exchangeStream(c10::Stream) const override { return STREAM; }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Hooks final : at::PrivateUse1HooksInterface {
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
} hooks;
const bool hooked = (at::RegisterPrivateUse1HooksInterface(&hooks), true);

Tensor on_cpu(const Tensor& t) {  // the same memory
  return t.device() == HERE ? at::from_blob(const_cast<void*>(t.const_data_ptr()), t.sizes(), t.strides(), t.options().device(at::kCPU)) : t;
}

Tensor empty(IntArrayRef size, optional<at::ScalarType> dtype, optional<at::Layout>, optional<at::Device>, optional<bool>, optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(size, &memory, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), c10::dtype_or_default(dtype), format);
}

Tensor empty_strided(IntArrayRef size, IntArrayRef stride, optional<at::ScalarType> dtype, optional<at::Layout>, optional<at::Device>, optional<bool>) {
  return at::detail::empty_strided_generic(size, stride, &memory, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), c10::dtype_or_default(dtype));
}

Tensor copy_from(const Tensor& self, const Tensor& to, bool) { on_cpu(to).copy_(on_cpu(self)); return to; }

Tensor copy_from_and_resize(const Tensor& self, const Tensor& to) { to.resize_(self.sizes()); return copy_from(self, to, false); }

Tensor convolution(const Tensor& x, const Tensor& w, const optional<Tensor>& bias, SymIntArrayRef stride, SymIntArrayRef padding, SymIntArrayRef dilation, bool transposed, SymIntArrayRef more, c10::SymInt groups) {
  auto b = bias && bias->defined() ? optional<Tensor>(on_cpu(*bias)) : std::nullopt;
  return at::convolution_symint(on_cpu(x), on_cpu(w), b, stride, padding, dilation, transposed, more, groups).to(HERE);
}

std::tuple<Tensor, Tensor, Tensor> convolution_backward(const Tensor& dy, const Tensor& x, const Tensor& w, SymIntArrayRef stride, SymIntArrayRef padding, SymIntArrayRef dilation, bool transposed, SymIntArrayRef more, c10::SymInt groups, std::array<bool, 3> wanted) {
  std::vector<c10::SymInt> bias{dy.sym_size(1)};
  auto [dx, dw, db] = at::convolution_backward_symint(on_cpu(dy), on_cpu(x), on_cpu(w), at::OptionalSymIntArrayRef(bias), stride, padding, dilation, transposed, more, groups, wanted);
  auto there = [](const Tensor& t) { return t.defined() ? t.to(HERE) : t; };
  return {there(dx), there(dw), there(db)};
}

void by_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  bool here = false, elsewhere = false;  // a number without axes may be anywhere, and indices on the CPU
  auto look = [&](const Tensor& t) { if (t.defined()) (t.device() == HERE ? here : elsewhere) |= t.device() == HERE || t.dim() > 0; };
  for (auto i = stack->size() - op.schema().arguments().size(); i < stack->size(); i++) {
    auto& v = (*stack)[i];
    if (v.isTensor()) look(v.toTensor());
    else if (v.isTensorList()) for (const Tensor& t : v.toTensorVector()) look(t);
  }
  TORCH_CHECK(!(here && elsewhere), op.schema().name(), ": tensors on two devices");
  at::native::cpu_fallback(op, stack, false);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&by_cpu>()); }
TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("convolution_overrideable", &convolution);
  m.impl("convolution_backward_overrideable", &convolution_backward);
  m.impl("as_strided", [](const Tensor& t, IntArrayRef size, IntArrayRef stride, optional<int64_t> offset) { return at::native::as_strided_tensorimpl(t, size, stride, offset); });
  m.impl("view", [](const Tensor& t, IntArrayRef size) { return at::native::view(t, size); });
  m.impl("unfold", [](const Tensor& t, int64_t dim, int64_t size, int64_t step) { return at::native::unfold(t, dim, size, step); });
  m.impl("_reshape_alias", [](const Tensor& t, IntArrayRef size, IntArrayRef stride) { return at::native::_reshape_alias(t, size, stride); });
  m.impl("resize_", [](const Tensor& t, IntArrayRef size, optional<at::MemoryFormat> format) -> const Tensor& { return at::native::resize_(t, size, format); });
}
PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {}
