// LayerNorm of single rows (https://arxiv.org/abs/1607.06450), in two passes as its accuracy asks for.
namespace fastce {
namespace {

// In place; `sum` is the row's sum. Padding of the row must be finite and becomes 0.
inline void normalize_row(std::size_t columns, float* row, float sum, const Norm& norm) {
  const float count = static_cast<float>(columns);
  const Vec mean = broadcast(sum / count);
  Vec squares = broadcast(0.0f);
  std::size_t j = 0;
  for (; j + kLanes <= columns; j += kLanes) {
    const Vec centered = load(row + j) - mean;
    squares = multiply_add(centered, centered, squares);
  }
  if (j < columns) {
    const Vec centered = keep_first(load(row + j) - mean, columns - j, broadcast(0.0f));
    squares = multiply_add(centered, centered, squares);
  }
  const Vec inverse = broadcast(1.0f / __builtin_sqrtf(reduce_sum(squares) / count + norm.eps));
  for (j = 0; j < columns; j += kLanes) {
    store(row + j, multiply_add((load(row + j) - mean) * inverse, load(norm.weight + j), load(norm.bias + j)));
  }
}

// residual = LayerNorm(x + residual); the padding of both must be 0.
inline void add_and_normalize_row(std::size_t columns, const float* x, float* residual, const Norm& norm) {
  Vec sums = broadcast(0.0f);
  for (std::size_t j = 0; j < columns; j += kLanes) {
    const Vec sum = load(x + j) + load(residual + j);
    sums = sums + sum;
    store(residual + j, sum);
  }
  normalize_row(columns, residual, reduce_sum(sums), norm);
}

}  // namespace
}  // namespace fastce
