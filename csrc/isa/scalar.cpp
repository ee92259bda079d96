#include <utility>

#include "kernels.h"
//
#include "isa/vec_portable.inl.h"
//
#include "kernels/all.inl.h"

const fastce::Kernels fastce::kernels_scalar = fastce::kKernels;
