// Attention of one head over one sequence with dropout, and its gradients, in fp32 whatever the tensors' type. The
// weights are computed again in the backward pass (https://arxiv.org/abs/2205.14135, section 3).
namespace fastce {
namespace {

// Hands out parts of a scratch buffer, each on a cache line.
class Scratch {
 public:
  explicit Scratch(float* begin) : next_(begin) {}

  float* take(std::size_t size) {
    float* const taken = next_;
    next_ += round_up(size, kPanel);
    return taken;
  }

 private:
  float* next_;
};

inline std::uint32_t* words_of(float* values) { return reinterpret_cast<std::uint32_t*>(values); }

// One head's part of some rows, padded to whole panels.
class HeadRows {
 public:
  HeadRows(const VarlenAttention& call, std::size_t head, Scratch& scratch, std::size_t rows)
      : head_(head), dim_(call.dim), stride_(round_up(call.dim, kPanel)), data_(scratch.take(rows * stride_)) {}

  void read(const Values& source, std::size_t first, std::size_t rows) {
    with_type(source, [&](const auto* from) {
      for (std::size_t i = 0; i < rows; ++i) {
        for (std::size_t j = 0; j < dim_; j += kLanes) {
          const std::size_t count = dim_ - j;
          Vec x = load_values(from + (first + i) * source.stride + head_ * dim_ + j, count);
          if (count < kLanes) x = keep_first(x, count, broadcast(0.0f));
          store(row(i) + j, x);
        }
      }
    });
  }

  void write(const Values& target, std::size_t first, std::size_t rows, float scale) const {
    with_type(target, [&](auto* to) {
      for (std::size_t i = 0; i < rows; ++i) {
        for (std::size_t j = 0; j < dim_; j += kLanes) {
          store_values(to + (first + i) * target.stride + head_ * dim_ + j, load(row(i) + j) * broadcast(scale),
                       dim_ - j);
        }
      }
    });
  }

  float* row(std::size_t index) const { return data_ + index * stride_; }
  std::uint32_t* words() const { return words_of(data_); }
  std::size_t stride() const { return stride_; }

 private:
  std::size_t head_;
  std::size_t dim_;
  std::size_t stride_;
  float* data_;
};

// b for products a b^T of rows with `rows`.
inline std::uint32_t* transposed_panels(const HeadRows& rows, std::size_t count, std::size_t dim, Scratch& scratch) {
  std::uint32_t* panels = words_of(scratch.take(round_up(count, kPanel) * dim));
  pack_keys(count, dim, rows.words(), rows.stride(), panels);
  return panels;
}

// b for products a b of rows with `rows`.
inline std::uint32_t* panels_of(const HeadRows& rows, std::size_t count, std::size_t dim, Scratch& scratch) {
  std::uint32_t* panels = words_of(scratch.take(round_up(dim, kPanel) * count));
  pack_values(Format::fp32, count, dim, rows.words(), rows.stride(), panels);
  return panels;
}

struct Span {
  std::size_t first;
  std::size_t count;

  Span(const std::int32_t* cu_seqlens, std::size_t sequence)
      : first(static_cast<std::size_t>(cu_seqlens[sequence])),
        count(static_cast<std::size_t>(cu_seqlens[sequence + 1]) - first) {}
};

void varlen_attention_forward(const VarlenAttention& call, std::size_t sequence, std::size_t head, float* buffer) {
  const Span queries(call.cu_queries, sequence);
  const Span keys(call.cu_keys, sequence);
  const std::size_t stride = padded_stride(keys.count);
  Scratch scratch(buffer);
  HeadRows rows(call, head, scratch, keys.count);
  rows.read(call.key, keys.first, keys.count);
  const std::uint32_t* key_panels = transposed_panels(rows, keys.count, call.dim, scratch);
  rows.read(call.value, keys.first, keys.count);
  const std::uint32_t* value_panels = panels_of(rows, keys.count, call.dim, scratch);
  HeadRows query(call, head, scratch, kQueryChunk);
  HeadRows context(call, head, scratch, kQueryChunk);
  float* scores = scratch.take(kQueryChunk * stride);
  for (std::size_t first = 0; first < queries.count; first += kQueryChunk) {
    const std::size_t count = queries.count - first < kQueryChunk ? queries.count - first : kQueryChunk;
    query.read(call.query, queries.first + first, count);
    multiply(Format::fp32, count, query.words(), query.stride(), key_panels, call.dim, keys.count, words_of(scores),
             stride);
    for (std::size_t i = 0; i < count; ++i) {
      float* row = scores + i * stride;
      const std::size_t number = (queries.first + first + i) * call.num_heads + head;
      const Softmax softmax = exponentiate_row(Format::fp32, keys.count, call.scale, row);
      const float inverse = 1.0f / softmax.sum;
      call.softmax[2 * number] = softmax.largest;
      call.softmax[2 * number + 1] = inverse;
      const DropoutRow dropout(call.dropout, number);
      for (std::size_t j = 0; j < keys.count; j += kLanes) {
        store(row + j, dropout.apply(load(row + j) * broadcast(inverse), j));
      }
    }
    multiply(Format::fp32, count, words_of(scores), stride, value_panels, keys.count, call.dim, context.words(),
             context.stride());
    context.write(call.output, queries.first + first, count, 1.0f);
  }
}

// to[columns][kQueryChunk] = the transpose of from[kQueryChunk][stride]
inline void transpose(const float* from, std::size_t stride, std::size_t columns, float* to) {
  for (std::size_t j = 0; j < columns; j += kLanes) {
    for (std::size_t i = 0; i < kQueryChunk; i += kLanes) {
      transpose_square(reinterpret_cast<const std::uint32_t*>(from) + i * stride + j, stride,
                       words_of(to) + j * kQueryChunk + i, kQueryChunk);
    }
  }
}

// sums += the transpose of weights[kQueryChunk][stride], times `rows`
inline void add_transposed_product(const float* weights, std::size_t stride, std::size_t columns, const HeadRows& rows,
                                   std::size_t count, std::size_t dim, const HeadRows& sums, Scratch scratch) {
  const std::uint32_t* panels = panels_of(rows, count, dim, scratch);
  float* transposed = scratch.take(round_up(columns, kLanes) * kQueryChunk);
  transpose(weights, stride, columns, transposed);
  float* product = scratch.take(columns * sums.stride());
  multiply(Format::fp32, columns, words_of(transposed), kQueryChunk, panels, count, dim, words_of(product),
           sums.stride());
  for (std::size_t i = 0; i < columns; ++i) {
    float* sum = sums.row(i);
    for (std::size_t j = 0; j < dim; j += kLanes) store(sum + j, load(sum + j) + load(product + i * sums.stride() + j));
  }
}

// Scores to dropped-out weights, and the gradients of these (in place) to those of the scores.
inline void softmax_backward_row(const VarlenAttention& call, std::size_t number, std::size_t keys, float slope,
                                 float* scores, float* gradients) {
  const DropoutRow dropout(call.dropout, number);
  const Vec largest = broadcast(call.softmax[2 * number]);
  const Vec inverse = broadcast(call.softmax[2 * number + 1]);
  const Vec factor = broadcast(call.scale * 1.44269504f);
  for (std::size_t j = 0; j < keys; j += kLanes) {
    const Vec exponent = maximum((load(scores + j) - largest) * factor, broadcast(-127.0f));
    const Vec weight = exp2(exponent) * inverse;
    const Vec dropped = dropout.is_active() ? dropout.factors(j) : broadcast(1.0f);
    store(gradients + j, weight * (load(gradients + j) * dropped - broadcast(slope)));
    store(scores + j, weight * dropped);
  }
}

inline float dot(const float* a, const float* b, std::size_t size) {
  Vec sum = broadcast(0.0f);
  for (std::size_t j = 0; j < size; j += kLanes) sum = multiply_add(load(a + j), load(b + j), sum);
  return reduce_sum(sum);
}

void varlen_attention_backward(const VarlenAttention& call, const VarlenAttentionGradients& gradients,
                               std::size_t sequence, std::size_t head, float* buffer) {
  const Span queries(call.cu_queries, sequence);
  const Span keys(call.cu_keys, sequence);
  const std::size_t stride = padded_stride(keys.count);
  Scratch scratch(buffer);
  HeadRows key_gradient(call, head, scratch, keys.count);
  HeadRows value_gradient(call, head, scratch, keys.count);
  __builtin_memset(key_gradient.row(0), 0, keys.count * key_gradient.stride() * sizeof(float));
  __builtin_memset(value_gradient.row(0), 0, keys.count * value_gradient.stride() * sizeof(float));
  HeadRows rows(call, head, scratch, keys.count);
  rows.read(call.value, keys.first, keys.count);
  const std::uint32_t* transposed_values = transposed_panels(rows, keys.count, call.dim, scratch);
  rows.read(call.key, keys.first, keys.count);
  const std::uint32_t* transposed_keys = transposed_panels(rows, keys.count, call.dim, scratch);
  const std::uint32_t* key_panels = panels_of(rows, keys.count, call.dim, scratch);
  HeadRows query(call, head, scratch, kQueryChunk);
  HeadRows context(call, head, scratch, kQueryChunk);
  HeadRows context_gradient(call, head, scratch, kQueryChunk);
  float* scores = scratch.take(kQueryChunk * stride);
  float* score_gradients = scratch.take(kQueryChunk * stride);
  for (std::size_t first = 0; first < queries.count; first += kQueryChunk) {
    const std::size_t count = queries.count - first < kQueryChunk ? queries.count - first : kQueryChunk;
    const std::size_t first_query = queries.first + first;
    query.read(call.query, first_query, count);
    context.read(call.output, first_query, count);
    context_gradient.read(gradients.output, first_query, count);
    multiply(Format::fp32, count, query.words(), query.stride(), transposed_keys, call.dim, keys.count,
             words_of(scores), stride);
    multiply(Format::fp32, count, context_gradient.words(), context_gradient.stride(), transposed_values, call.dim,
             keys.count, words_of(score_gradients), stride);
    for (std::size_t i = 0; i < count; ++i) {
      const float slope = dot(context.row(i), context_gradient.row(i), call.dim);
      softmax_backward_row(call, (first_query + i) * call.num_heads + head, keys.count, slope, scores + i * stride,
                           score_gradients + i * stride);
    }
    add_transposed_product(scores, stride, keys.count, context_gradient, count, call.dim, value_gradient, scratch);
    add_transposed_product(score_gradients, stride, keys.count, query, count, call.dim, key_gradient, scratch);
    multiply(Format::fp32, count, words_of(score_gradients), stride, key_panels, keys.count, call.dim, query.words(),
             query.stride());
    query.write(gradients.query, first_query, count, call.scale);
  }
  key_gradient.write(gradients.key, keys.first, keys.count, call.scale);
  value_gradient.write(gradients.value, keys.first, keys.count, 1.0f);
}

}  // namespace
}  // namespace fastce
