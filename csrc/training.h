// The ops of training over whole tensors: the kernels with the threads that share their work.
#pragma once

#include <vector>

#include "kernels.h"
#include "parallel.h"

namespace fastce {

// What all ops need to know besides their tensors.
struct Workers {
  const Kernels& kernels;
  std::size_t num_threads;
  OpenMpParallel openmp;
};

void norm_forward(const Workers& workers, const NormForwardCall& call, std::size_t rows);

// Writes the gradients of the parameters, summed over all rows, to those that are not null.
void norm_backward(const Workers& workers, const NormBackwardCall& call, std::size_t rows,
                   const NormGradients& gradients);

void activate_forward(const Workers& workers, const ActivateForwardCall& call, std::size_t rows);

// Writes the gradients of the biases, summed over all rows, to those that are not null.
void activate_backward(const Workers& workers, const ActivateBackwardCall& call, std::size_t rows,
                       const ActivateGradients& gradients);

void varlen_attention_forward(const Workers& workers, const VarlenAttention& call, const VarlenForward& results,
                              std::size_t sequences);
void varlen_attention_backward(const Workers& workers, const VarlenAttention& call, const VarlenBackward& tensors,
                               std::size_t sequences);

// Rows of an embedding table [rows][columns], one for each token.
template <class Float>
struct Lookup {
  const std::int32_t* ids;  // [tokens]
  Float* table;             // or its gradient
};

// sums[tokens][columns] = the sum of each token's rows
void embedding_forward(const Workers& workers, const std::vector<Lookup<const float>>& lookups, std::size_t tokens,
                       std::size_t columns, float* sums);

// Adds each token's gradient [tokens][columns] to its rows of the tables' gradients.
void embedding_backward(const Workers& workers, const std::vector<Lookup<float>>& lookups, std::size_t tokens,
                        std::size_t columns, const float* gradient);

}  // namespace fastce
