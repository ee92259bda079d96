#include "plan.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <stdexcept>

#include "parallel.h"

namespace fastce {

namespace {

void widen(std::size_t& width, std::size_t other) { width = std::max(width, other); }

// Whether a pooled query sees all keys, with no position in its scores.
bool is_foldable(const program::Attention& attention) {
  return std::holds_alternative<std::monostate>(attention.relation) && !attention.window && !attention.is_causal &&
         !attention.qk_norm;
}

// Of the scores: DeBERTa's are sums of several products.
float scale_of(const program::Attention& attention) {
  const auto* relation = std::get_if<program::DisentangledAttention>(&attention.relation);
  const std::size_t terms =
      relation == nullptr ? 1 : 1 + relation->has_content_to_position + relation->has_position_to_content;
  return 1.0f / std::sqrt(static_cast<float>(attention.head_dim * terms));
}

// A linear layer's parameters under a name of its own, which says whether it has a bias.
struct NamedLinear {
  std::string name;
  LinearParameters parameters;
};

// Fills a plan.
class Planner {
 public:
  Planner(Plan& plan, const Parameters& parameters) : plan_(plan), parameters_(parameters) {}

  void plan_embeddings(const program::Embeddings& embeddings) {
    const std::size_t size = embeddings.size;
    const auto add = [&](const char* ids_name, const std::int32_t* Batch::* ids, const char* table, std::size_t rows) {
      const std::string name = std::string("embeddings.") + table + ".weight";
      plan_.tables.push_back({ids_name, ids, parameters_.matrix(name, rows, size), rows});
    };
    add("input_ids", &Batch::input_ids, "word", embeddings.vocab_size);
    if (embeddings.position_rows) add("position_ids", &Batch::position_ids, "position", *embeddings.position_rows);
    if (embeddings.token_types > 0) add("token_type_ids", &Batch::token_type_ids, "token_type", embeddings.token_types);
    plan_.embedding_size = size;
    plan_.embedding_norm = norm(embeddings.norm, "embeddings.norm", size);
    if (size != hidden_) {
      plan_.embedding_projection = pack(Format::fp32, {linear("embeddings.projection", hidden_, size, true)});
    }
    widen(plan_.widths.product, std::max(size, hidden_));
  }

  void plan_steps(const program::AddNorm& first, const std::vector<program::Step>& steps) {
    const auto behind = [&](std::size_t i) { return i < steps.size() ? &steps[i] : nullptr; };
    plan_.first = end(first, behind(0));
    for (std::size_t i = 0; i < steps.size(); ++i) {
      const auto add = [&](const auto& step) { plan_.sublayers.push_back({part(step), end(step.end, behind(i + 1))}); };
      std::visit(add, steps[i]);
    }
  }

  void plan_head(const program::Head& head) {
    plan_.pooling = head.pooling;
    std::size_t width = hidden_;
    for (const program::HeadStep& step : head.steps) {
      if (const auto* dense = std::get_if<program::Dense>(&step.part)) {
        const PackedLinear* packed = pack(Format::fp32, {linear(step.name, dense->size, width, dense->has_bias)});
        plan_.head.push_back(DensePart{packed, dense->activation});
        width = dense->size;
      } else {
        plan_.head.push_back(*norm(std::get<program::Norm>(step.part), step.name, width));
      }
      widen(plan_.widths.head, width);
    }
    plan_.num_labels = width;
  }

  void finish() {
    plan_.shares_prefixes &= is_pooled_ && plan_.pooling == program::Pooling::last;
    parameters_.expect_none_left();
    parallel_for(packings_.size(), default_num_threads(), [&](std::size_t i, std::size_t) { packings_[i](); });
  }

 private:
  // `next` is the step that reads what this one ends with; null: the head.
  End end(const program::AddNorm& end, const program::Step* next) {
    const auto* attend = next == nullptr ? nullptr : std::get_if<program::Attend>(next);
    const bool is_pooled = attend != nullptr && attend->is_pooled;
    const bool is_operand = next != nullptr && !(is_pooled && is_foldable(attend->attention));
    const std::optional<Norm> packed = norm(end.norm, end.name, hidden_);
    if (!packed || !end.keeps_sum) return {packed, Normed::stream, is_operand};
    if (next != nullptr && !is_pooled) return {packed, Normed::passing, is_operand};
    widen(plan_.widths.normed, hidden_);
    return {packed, Normed::kept, is_operand};
  }

  AttentionPart part(const program::Attend& step) {
    if (is_pooled_) throw std::invalid_argument(step.name + ": attention follows where one row is left");
    is_pooled_ = step.is_pooled;
    const program::Attention& attention = step.attention;
    const std::size_t inner = attention.heads * attention.head_dim;
    const std::size_t kv_inner = attention.kv_heads * attention.head_dim;
    AttentionPart part{};
    part.heads = attention.heads;
    part.kv_heads = attention.kv_heads;
    part.head_dim = attention.head_dim;
    part.format = attention.head_dim % 2 != 0 ? Format::fp32 : plan_.attention_format;
    part.before = attention.window.value_or(kAnyDistance);
    part.after = attention.is_causal ? 0 : part.before;
    part.scale = scale_of(attention);
    if (attention.qk_norm) {
      part.norms = {*norm(attention.qk_norm, step.name + ".query_norm", attention.head_dim),
                    *norm(attention.qk_norm, step.name + ".key_norm", attention.head_dim)};
    }
    std::visit([&](const auto& relation) { relate(part, step, relation); }, attention.relation);
    part.rows = attended_rows(step, inner, kv_inner);
    plan_.shares_prefixes &= attention.is_causal && part.relative == nullptr;
    part.output =
        pack(plan_.format, {linear(step.name + ".attention_output", hidden_, inner, attention.has_output_bias)});
    plan_.shared_bytes += 2 * part.kv_heads * words_for(part.format, part.head_dim) * sizeof(std::uint32_t);
    Widths& widths = plan_.widths;
    widen(part.format == Format::fp32 ? widths.projected_fp32 : widths.projected_bf16, inner + 2 * kv_inner);
    widen(widths.product, inner + 2 * kv_inner);
    widen(widths.context, inner);
    return part;
  }

  AttendedRows attended_rows(const program::Attend& step, std::size_t inner, std::size_t kv_inner) {
    const program::Attention& attention = step.attention;
    const NamedLinear query = linear(step.name + ".query", inner, hidden_, attention.has_bias);
    const NamedLinear key = linear(step.name + ".key", kv_inner, hidden_, attention.has_bias);
    const NamedLinear value = linear(step.name + ".value", kv_inner, hidden_, attention.has_bias);
    if (!step.is_pooled) return AllRows{pack(plan_.format, {query, key, value})};
    if (!is_foldable(attention)) return PooledRow{pack(plan_.format, {query}), pack(plan_.format, {key, value})};
    FoldedRow folded{pack(plan_.format, {query}), {}, {}};
    for (std::size_t head = 0; head < attention.kv_heads; ++head) {
      const std::string suffix = " of head " + std::to_string(head);
      const std::size_t begin = head * attention.head_dim;
      const std::size_t end = begin + attention.head_dim;
      const LinearParameters key_rows = key.parameters.outputs(begin, end);
      const LinearParameters value_rows = value.parameters.outputs(begin, end);
      folded.keys.push_back(pack(Format::fp32, {{key.name + suffix, {key_rows.weight.transposed(), nullptr}}}));
      folded.values.push_back(pack(Format::fp32, {{value.name + suffix, value_rows}}));
    }
    widen(plan_.widths.folded, hidden_);
    widen(plan_.widths.folded_heads, attention.heads);
    return folded;
  }

  void relate(AttentionPart&, const program::Attend&, std::monostate) {}

  void relate(AttentionPart& part, const program::Attend&, const program::RotaryEmbedding& relation) {
    std::vector<program::RotaryEmbedding>& rotaries = plan_.rotaries;
    const auto found = std::find(rotaries.begin(), rotaries.end(), relation);
    part.rotary = static_cast<std::size_t>(found - rotaries.begin());
    if (found == rotaries.end()) rotaries.push_back(relation);
  }

  void relate(AttentionPart& part, const program::Attend& step, const program::RelativeBias& relation) {
    const std::size_t heads = step.attention.heads;
    const float* table = parameters_.matrix("relative_bias.weight", relation.buckets, heads);
    RelativePart& place = plan_.relatives[step.name];
    place = relative_biases(table, relation, heads, part.scale);
    part.relative = &place;
  }

  void relate(AttentionPart& part, const program::Attend& step, const program::DisentangledAttention& relation) {
    const program::Attention& attention = step.attention;
    const std::size_t rows = 2 * relation.span;
    const std::size_t inner = attention.heads * attention.head_dim;
    const float* table = parameters_.matrix("relative_embeddings.weight", rows, hidden_);
    const std::optional<Norm> normed = norm(relation.norm, "relative_norm", hidden_);
    const auto projection = [&](const char* role, bool is_there) -> std::optional<LinearParameters> {
      if (!is_there) return std::nullopt;
      const std::string own = relation.has_shared_projections ? "." : ".position_";
      return parameters_.linear(step.name + own + role, inner, hidden_, attention.has_bias);
    };
    const auto key = projection("key", relation.has_content_to_position);
    const auto query = projection("query", relation.has_position_to_content);
    const auto [place, is_new] = plan_.relatives.try_emplace(step.name);
    part.relative = &place->second;
    if (!is_new) return;
    packings_.push_back([=, &kernels = plan_.kernels, &made = place->second, by_distance = relation.rows,
                         dim = part.head_dim, format = part.format, hidden = hidden_] {
      const PositionTable positions{table, rows, hidden, normed ? &*normed : nullptr};
      made = relative_positions(positions, {key ? &*key : nullptr, query ? &*query : nullptr}, by_distance, dim, format,
                                kernels);
    });
  }

  FeedForwardPart part(const program::Feed& step) {
    const program::FeedForward& feed = step.feed_forward;
    const NamedLinear up = linear(step.name + ".up", feed.size, hidden_, feed.has_bias);
    const NamedLinear down = linear(step.name + ".down", hidden_, feed.size, feed.has_output_bias);
    FeedForwardPart part{feed.size, feed.activation, nullptr, pack(plan_.format, {down})};
    if (feed.is_gated) {
      const NamedLinear gate = linear(step.name + ".gate", feed.size, hidden_, feed.has_bias);
      part.up = pack(gate.name + ", gating " + up.name, [format = plan_.format, gate, up] {
        return PackedLinear::gated(format, gate.parameters, up.parameters);
      });
    } else {
      part.up = pack(plan_.format, {up});
    }
    widen(plan_.widths.product, feed.is_gated ? 2 * round_up(feed.size, kPanel / 2) : feed.size);
    widen(plan_.widths.inner, feed.size);
    return part;
  }

  NamedLinear linear(const std::string& name, std::size_t out, std::size_t in, bool has_bias) {
    return {has_bias ? name : name + " without a bias", parameters_.linear(name, out, in, has_bias)};
  }

  // Several layers are stacked.
  const PackedLinear* pack(Format format, const std::vector<NamedLinear>& layers) {
    std::string name;
    std::vector<LinearParameters> parts;
    for (const NamedLinear& layer : layers) {
      name += (name.empty() ? "" : ", ") + layer.name;
      parts.push_back(layer.parameters);
    }
    return pack(name, [format, parts] { return PackedLinear(format, parts); });
  }

  // What goes by one name is packed once.
  const PackedLinear* pack(const std::string& name, const std::function<PackedLinear()>& make) {
    const auto [place, is_new] = plan_.linears.try_emplace(name);
    PackedLinear& linear = place->second;
    if (is_new) packings_.push_back([&linear, make] { linear = make(); });
    return &linear;
  }

  std::optional<Norm> norm(const std::optional<program::Norm>& norm, const std::string& name, std::size_t size) {
    if (!norm) return std::nullopt;
    const float* weight = vector(name + ".weight", size);
    const float* bias = norm->has_bias ? vector(name + ".bias", size) : zeros(size);
    return Norm{norm->kind, weight, bias, norm->eps};
  }

  const float* vector(const std::string& name, std::size_t size) {
    float* values = zeros(size);
    std::copy_n(parameters_.vector(name, size), size, values);
    return values;
  }

  float* zeros(std::size_t size) {
    plan_.vectors.push_back(AlignedBuffer<float>::zeros(round_up(size, kPanel)));
    return plan_.vectors.back().data();
  }

  Plan& plan_;
  ParameterReader parameters_;
  const std::size_t hidden_ = plan_.hidden_size;
  bool is_pooled_ = false;
  std::vector<std::function<void()>> packings_;  // each makes one PackedLinear
};

}  // namespace

Plan::Plan(const program::Program& program, const Parameters& parameters, Format product_format, const Kernels& level)
    : format(product_format),
      attention_format(product_format == Format::fp32 ? Format::fp32 : level.attention_format),
      kernels(level),
      hidden_size(program.hidden_size) {
  Planner planner(*this, parameters);
  planner.plan_embeddings(program.embeddings);
  planner.plan_steps(program.first, program.steps);
  planner.plan_head(program.head);
  planner.finish();
}

}  // namespace fastce
