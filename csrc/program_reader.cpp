#include "program_reader.h"

#include <algorithm>

#include "names.h"

namespace py = pybind11;

namespace fastce::program {

namespace {

std::string class_of(py::handle object) { return py::type::of(object).attr("__name__").cast<std::string>(); }

// An object, and where it is, for messages.
struct Value {
  std::string place;
  py::object object;

  bool is_none() const { return object.is_none(); }
  bool is_int() const { return py::isinstance<py::int_>(object) && !py::isinstance<py::bool_>(object); }

  std::size_t size(std::size_t least = 1) const {
    if (!is_int() || object < py::int_(least)) throw expected("a whole number of at least " + std::to_string(least));
    return object.cast<std::size_t>();
  }

  float number() const {
    if (!is_int() && !py::isinstance<py::float_>(object)) throw expected("a number");
    return object.cast<float>();
  }

  bool flag() const {
    if (!py::isinstance<py::bool_>(object)) throw expected("True or False");
    return object.cast<bool>();
  }

  std::string text() const {
    if (!py::isinstance<py::str>(object)) throw expected("a string");
    return object.cast<std::string>();
  }

  template <class T>
  T one_of(const Names<T>& names) const {
    return named(names, place + ":", text());
  }

  std::vector<Value> items() const {
    if (!py::isinstance<py::tuple>(object)) throw expected("a tuple");
    std::vector<Value> values;
    for (py::handle item : object) {
      values.push_back({place + "[" + std::to_string(values.size()) + "]", py::reinterpret_borrow<py::object>(item)});
    }
    return values;
  }

  std::invalid_argument expected(const std::string& what) const {
    return std::invalid_argument(place + ": expected " + what + ", got " + py::repr(object).cast<std::string>());
  }
};

// The fields of a dataclass's instance, each to be taken once.
class Fields {
 public:
  explicit Fields(const py::object& object) : object_(object), class_(class_of(object)) {
    for (py::handle field : py::module_::import("dataclasses").attr("fields")(object)) {
      left_.push_back(field.attr("name").cast<std::string>());
    }
  }

  Value take(const char* name) {
    const auto found = std::find(left_.begin(), left_.end(), name);
    if (found == left_.end()) throw std::invalid_argument(class_ + " has no field '" + name + "'");
    left_.erase(found);
    return {class_ + "." + name, object_.attr(name)};
  }

  // A field that inference has no need of.
  void pass(const char* name) { take(name); }

  void expect_none_left() const {
    if (left_.empty()) return;
    throw std::invalid_argument(class_ + "." + left_.front() + ": the C++ engine does not know this field");
  }

 private:
  py::object object_;
  std::string class_;
  std::vector<std::string> left_;
};

// How to read an object of each class that may stand in a place.
template <class T>
using Readers = Names<T (*)(Fields&)>;

template <class T>
T read(const Value& value, const Readers<T>& readers) {
  const auto reader = named(readers, value.place + ":", class_of(value.object));
  Fields fields(value.object);
  T result = reader(fields);
  fields.expect_none_left();
  return result;
}

template <class T>
std::optional<T> read_optional(const Value& value, const Readers<T>& readers) {
  if (value.is_none()) return std::nullopt;
  return read(value, readers);
}

Norm read_layer_norm(Fields& fields) {
  const float eps = fields.take("eps").number();
  return {NormKind::layer, eps, fields.take("bias").flag()};
}

Norm read_rms_norm(Fields& fields) { return {NormKind::rms, fields.take("eps").number(), false}; }

const Readers<Norm> kNorms = {{"LayerNorm", read_layer_norm}, {"RMSNorm", read_rms_norm}};

Relation read_rotary(Fields& fields) {
  RotaryEmbedding rotary{};
  for (const Value& frequency : fields.take("frequencies").items()) rotary.frequencies.push_back(frequency.number());
  rotary.scale = fields.take("scale").number();
  return rotary;
}

RowsByDistance read_rows(const Value& value, std::size_t table_rows) {
  RowsByDistance rows;
  for (const Value& row : value.items()) {
    rows.push_back(row.size(0));
    if (rows.back() >= table_rows) throw row.expected("a row below " + std::to_string(table_rows));
  }
  if (rows.size() % 2 == 0) throw value.expected("a row for each distance from -n to n");
  return rows;
}

Relation read_relative_bias(Fields& fields) {
  const std::size_t buckets = fields.take("buckets").size();
  return RelativeBias{buckets, read_rows(fields.take("rows"), buckets)};
}

Relation read_disentangled(Fields& fields) {
  DisentangledAttention relation{};
  relation.span = fields.take("span").size();
  relation.rows = read_rows(fields.take("rows"), 2 * relation.span);
  relation.has_content_to_position = fields.take("content_to_position").flag();
  relation.has_position_to_content = fields.take("position_to_content").flag();
  relation.has_shared_projections = fields.take("shared_projections").flag();
  relation.norm = read_optional(fields.take("norm"), kNorms);
  fields.pass("dropout");
  return relation;
}

const Readers<Relation> kRelations = {{"RotaryEmbedding", read_rotary},
                                      {"RelativeBias", read_relative_bias},
                                      {"DisentangledAttention", read_disentangled}};

Attention read_attention(Fields& fields) {
  Attention attention{};
  attention.heads = fields.take("heads").size();
  attention.head_dim = fields.take("head_dim").size();
  const Value kv_heads = fields.take("kv_heads");
  attention.kv_heads = kv_heads.is_none() ? attention.heads : kv_heads.size();
  if (attention.heads % attention.kv_heads != 0) {
    throw kv_heads.expected("a divisor of the " + std::to_string(attention.heads) + " heads");
  }
  attention.has_bias = fields.take("bias").flag();
  attention.has_output_bias = fields.take("output_bias").flag();
  const Value relation = fields.take("relation");
  if (!relation.is_none()) attention.relation = read(relation, kRelations);
  const auto* rotary = std::get_if<RotaryEmbedding>(&attention.relation);
  if (rotary != nullptr && 2 * rotary->frequencies.size() > attention.head_dim) {
    throw relation.expected("at most " + std::to_string(attention.head_dim / 2) + " frequencies");
  }
  const Value window = fields.take("window");
  if (!window.is_none()) attention.window = window.size(0);
  attention.is_causal = fields.take("causal").flag();
  attention.qk_norm = read_optional(fields.take("qk_norm"), kNorms);
  fields.pass("dropout");
  fields.pass("output_dropout");
  return attention;
}

const Readers<Attention> kAttentions = {{"Attention", read_attention}};

FeedForward read_feed_forward(Fields& fields) {
  FeedForward feed_forward{};
  feed_forward.size = fields.take("size").size();
  feed_forward.activation = fields.take("activation").one_of(kActivations);
  feed_forward.is_gated = fields.take("gated").flag();
  feed_forward.has_bias = fields.take("bias").flag();
  feed_forward.has_output_bias = fields.take("output_bias").flag();
  fields.pass("dropout");
  fields.pass("output_dropout");
  return feed_forward;
}

const Readers<FeedForward> kFeedForwards = {{"FeedForward", read_feed_forward}};

AddNorm read_add_norm(Fields& fields) {
  AddNorm end{};
  end.norm = read_optional(fields.take("norm"), kNorms);
  end.name = fields.take("name").text();
  end.keeps_sum = fields.take("keep").one_of<bool>({{"normed", false}, {"sum", true}});
  return end;
}

const Readers<AddNorm> kEnds = {{"AddNorm", read_add_norm}};

Step read_attend(Fields& fields) {
  Attend step{};
  step.name = fields.take("name").text();
  step.attention = read(fields.take("attention"), kAttentions);
  step.end = read(fields.take("end"), kEnds);
  step.is_pooled = fields.take("pooled").flag();
  return step;
}

Step read_feed(Fields& fields) {
  Feed step{};
  step.name = fields.take("name").text();
  step.feed_forward = read(fields.take("feed_forward"), kFeedForwards);
  step.end = read(fields.take("end"), kEnds);
  return step;
}

const Readers<Step> kSteps = {{"Attend", read_attend}, {"Feed", read_feed}};

std::size_t read_position_rows(Fields& fields) {
  fields.pass("offset");  // the caller counts the positions
  fields.pass("padding_id");
  return fields.take("rows").size();
}

const Readers<std::size_t> kPositions = {{"AbsolutePositions", read_position_rows}};

Embeddings read_embeddings(Fields& fields) {
  Embeddings embeddings{};
  embeddings.vocab_size = fields.take("vocab_size").size();
  embeddings.size = fields.take("size").size();
  embeddings.norm = read_optional(fields.take("norm"), kNorms);
  embeddings.token_types = fields.take("token_types").size(0);
  embeddings.position_rows = read_optional(fields.take("positions"), kPositions);
  fields.pass("dropout");
  return embeddings;
}

const Readers<Embeddings> kEmbeddings = {{"Embeddings", read_embeddings}};

using HeadPart = std::optional<std::variant<Dense, Norm>>;

HeadPart read_dense(Fields& fields) {
  Dense dense{};
  dense.size = fields.take("size").size();
  const Value activation = fields.take("activation");
  dense.activation = activation.is_none() ? Activation::none : activation.one_of(kActivations);
  dense.has_bias = fields.take("bias").flag();
  return dense;
}

// One row: the parameter is the difference already.
HeadPart read_token_difference(Fields& fields) {
  fields.pass("positive_id");
  fields.pass("negative_id");
  return Dense{1, Activation::none, false};
}

HeadPart read_normalize(Fields& fields) { return read(fields.take("norm"), kNorms); }

HeadPart read_dropout(Fields& fields) {
  fields.pass("probability");
  return std::nullopt;
}

const Readers<HeadPart> kHeadParts = {{"Dense", read_dense},
                                      {"Normalize", read_normalize},
                                      {"Dropout", read_dropout},
                                      {"TokenDifference", read_token_difference}};

Head read_head(Fields& fields) {
  Head head{};
  head.pooling = fields.take("pooling").one_of<Pooling>(
      {{"first", Pooling::first}, {"last", Pooling::last}, {"mean", Pooling::mean}});
  const std::vector<Value> steps = fields.take("steps").items();
  for (std::size_t number = 0; number < steps.size(); ++number) {
    const HeadPart part = read(steps[number], kHeadParts);
    if (part) head.steps.push_back({"head." + std::to_string(number), *part});
  }
  return head;
}

const Readers<Head> kHeads = {{"HeadSpec", read_head}};

Program read_fields(Fields& fields) {
  Program program{};
  program.hidden_size = fields.take("hidden_size").size();
  program.embeddings = read(fields.take("embeddings"), kEmbeddings);
  program.first = read(fields.take("first"), kEnds);
  for (const Value& step : fields.take("steps").items()) program.steps.push_back(read(step, kSteps));
  program.head = read(fields.take("head"), kHeads);
  return program;
}

const Readers<Program> kPrograms = {{"Program", read_fields}};

}  // namespace

Program read_program(const py::object& object) { return read({"program", object}, kPrograms); }

}  // namespace fastce::program
