// All kernels of one ISA level, over the Vec and the products that the level has included before.
#include "kernels/elementary.inl.h"
#include "kernels/multiply.inl.h"
//
#include "kernels/convert.inl.h"
#include "kernels/layer_norm.inl.h"
//
#include "kernels/attention.inl.h"
#include "kernels/embed.inl.h"
#include "kernels/linear.inl.h"
#include "kernels/peak.inl.h"

namespace fastce {
namespace {

#if defined(FASTCE_NATIVE_BF16)
constexpr Format kAttentionFormat = Format::bf16;
#else
constexpr Format kAttentionFormat = Format::fp32;
#endif

constexpr Kernels kKernels = {kAttentionFormat, embed, convert, linear, attention, peak};

}  // namespace
}  // namespace fastce
