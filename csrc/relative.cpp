#include "relative.h"

#include <algorithm>

namespace fastce {

namespace {

// The table through its norm and a projection, in fp32: [rows][out_features].
Rows projected(const PositionTable& table, const LinearParameters& projection, const Kernels& kernels) {
  const Rows input(table.rows, table.columns);
  for (std::size_t i = 0; i < table.rows; ++i) {
    std::copy_n(table.data + i * table.columns, table.columns, input.row(i));
  }
  if (table.norm != nullptr) {
    kernels.normalize({table.rows, table.columns, table.norm, input.from(0), input.from(0)});
  }
  const PackedLinear packed(Format::fp32, {projection});
  Rows output(table.rows, projection.weight.rows);
  LinearCall call{};
  call.rows = table.rows;
  call.input = input.operand(0);
  call.weight = &packed.weight();
  call.output = output.from(0);
  kernels.linear(call);
  return output;
}

// A head's part of the rows that distances have, as panels of columns.
PackedLinear panels_of(const Rows& positions, const program::RowsByDistance& rows, std::size_t head, std::size_t dim,
                       Format format) {
  std::vector<float> columns(rows.size() * dim);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::copy_n(positions.row(rows[i]) + head * dim, dim, columns.data() + i * dim);
  }
  return PackedLinear(format, {{{columns.data(), rows.size(), dim, dim, 1}, nullptr}});
}

}  // namespace

RelativePart relative_biases(const float* table, const program::RelativeBias& relation, std::size_t heads,
                             float scale) {
  RelativePart part;
  for (std::size_t head = 0; head < heads; ++head) {
    AlignedBuffer<float> bias(relation.rows.size());
    for (std::size_t i = 0; i < relation.rows.size(); ++i) bias[i] = table[relation.rows[i] * heads + head] / scale;
    part.heads.push_back({relation.rows.size() / 2, bias.data(), nullptr, nullptr});
    part.biases.push_back(std::move(bias));
  }
  return part;
}

RelativePart relative_positions(const PositionTable& table, const PositionProjections& projections,
                                const program::RowsByDistance& rows, std::size_t head_dim, Format format,
                                const Kernels& kernels) {
  RelativePart part;
  const auto add = [&](const LinearParameters* projection, const program::RowsByDistance& order,
                       const std::uint32_t* RelativeScores::* panels) {
    if (projection == nullptr) return;
    const Rows positions = projected(table, *projection, kernels);
    part.heads.resize(projection->weight.rows / head_dim, {rows.size() / 2, nullptr, nullptr, nullptr});
    for (std::size_t head = 0; head < part.heads.size(); ++head) {
      part.panels.push_back(panels_of(positions, order, head, head_dim, format));
      part.heads[head].*panels = part.panels.back().weight().words;
    }
  };
  add(projections.key, rows, &RelativeScores::keys);
  add(projections.query, program::RowsByDistance(rows.rbegin(), rows.rend()), &RelativeScores::queries);
  return part;
}

}  // namespace fastce
