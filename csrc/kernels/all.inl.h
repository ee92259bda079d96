// All kernels of one ISA level, over the Vec and the products that the level has included before.
#include "kernels/activation_training.inl.h"
#include "kernels/attention.inl.h"
#include "kernels/attention_training.inl.h"
#include "kernels/convert.inl.h"
#include "kernels/elementary.inl.h"
#include "kernels/embed.inl.h"
#include "kernels/linear.inl.h"
#include "kernels/multiply.inl.h"
#include "kernels/norm.inl.h"
#include "kernels/norm_training.inl.h"
#include "kernels/peak.inl.h"
#include "kernels/values.inl.h"

namespace fastce {
namespace {

#if defined(FASTCE_NATIVE_BF16)
constexpr Format kAttentionFormat = Format::bf16;
#else
constexpr Format kAttentionFormat = Format::fp32;
#endif

constexpr Kernels kKernels = {kAttentionFormat,
                              embed,
                              normalize,
                              convert,
                              linear,
                              attention,
                              peak,
                              norm_forward,
                              norm_backward,
                              activate_forward,
                              activate_backward,
                              varlen_attention_forward,
                              varlen_attention_backward,
                              dropout_factors};

}  // namespace
}  // namespace fastce
