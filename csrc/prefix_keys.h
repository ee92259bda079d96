// Keys and values of the tokens that several sequences begin with, of every attention.
#pragma once

#include <vector>

#include "plan.h"
#include "rows.h"

namespace fastce {

class PrefixKeys {
 public:
  // For so many tokens of all prefixes together.
  PrefixKeys(const Plan& plan, std::size_t tokens) : sublayers_(tokens == 0 ? 0 : plan.sublayers.size()) {
    for (std::size_t i = 0; i < sublayers_.size(); ++i) {
      const auto* part = std::get_if<AttentionPart>(&plan.sublayers[i].part);
      if (part != nullptr) sublayers_[i] = OperandRows(part->format, tokens, 2 * part->kv_heads * part->head_dim);
    }
  }

  // Keys, then values, of the tokens from `row` on.
  Operand operand(std::size_t sublayer, std::size_t row) const { return sublayers_[sublayer].operand(row); }

 private:
  std::vector<OperandRows> sublayers_;
};

}  // namespace fastce
