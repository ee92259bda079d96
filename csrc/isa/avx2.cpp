#include <utility>

#include "kernels.h"
//
#include "isa/vec_avx2.inl.h"
//
#include "kernels/all.inl.h"

const fastce::Kernels fastce::kernels_avx2 = fastce::kKernels;
