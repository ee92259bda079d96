// What the core can do at most: the products of multiply.inl.h on registers alone, as the measure of all other kernels.
namespace fastce {
namespace {

// Runs `steps` rounds on a full tile of accumulators; returns the multiplications and additions done.
template <class Dot, std::size_t... cells>
double peak(std::index_sequence<cells...>, Format format, std::size_t steps) {
  const std::uint32_t words[kPanel] = {};
  std::uint32_t results[sizeof...(cells) * kLanes];
  // Zeros of which the compiler knows nothing, so that it computes all sums and not one for all.
  typename Dot::Accumulator sums[sizeof...(cells)] = {(static_cast<void>(cells), Dot::zero())...};
  typename Dot::Accumulator* unknown = sums;
  asm volatile("" : "+r"(unknown) : : "memory");
  typename Dot::Accumulator kept[sizeof...(cells)] = {unknown[cells]...};
  for (std::size_t step = 0; step < steps; ++step) {
    (Dot::step(kept[cells], Dot::broadcast(words), Dot::load(words)), ...);
    asm volatile("");
  }
  (Dot::store(results + cells * kLanes, kept[cells]), ...);
  asm volatile("" : : "r"(results) : "memory");
  return 2.0 * static_cast<double>(steps * sizeof...(cells) * kLanes * values_per_word(format));
}

double peak(Format format, std::size_t steps) {
  constexpr auto cells = std::make_index_sequence<kTileRows * kTileVectors>{};
  switch (format) {
    case Format::fp32:
      return peak<FloatDot>(cells, format, steps);
    case Format::bf16:
      return peak<BFloat16Dot>(cells, format, steps);
    case Format::int8:
      return peak<Int8Dot>(cells, format, steps);
  }
  return 0.0;
}

}  // namespace
}  // namespace fastce
