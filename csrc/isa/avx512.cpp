#include <utility>

#include "kernels.h"
//
#include "isa/vec_avx512.inl.h"
//
#include "kernels/all.inl.h"

const fastce::Kernels fastce::kernels_avx512 = fastce::kKernels;
