// Four lanes in the compiler's own vectors, which every machine has: SSE2 on x86-64, NEON on AArch64.
namespace fastce {
namespace {

constexpr std::size_t kLanes = 4;
constexpr std::size_t kTileRows = 4;
constexpr std::size_t kTileVectors = 2;

typedef float Floats __attribute__((vector_size(16)));
typedef std::int32_t Ints __attribute__((vector_size(16)));
typedef std::uint32_t Words __attribute__((vector_size(16)));

struct Vec {
  Floats v;
};

struct IntVec {
  Ints v;
};

template <class To, class From>
inline To copy_bits(const From* from) {
  To to;
  __builtin_memcpy(&to, from, sizeof(to));
  return to;
}

inline Vec load(const float* from) { return {copy_bits<Floats>(from)}; }
inline Vec load_first(const float* from, std::size_t count) {
  Floats x{};
  for (std::size_t lane = 0; lane < count; ++lane) x[lane] = from[lane];
  return {x};
}
inline Vec keep_first(Vec x, std::size_t count, Vec others) {
  for (std::size_t lane = count; lane < kLanes; ++lane) x.v[lane] = others.v[lane];
  return x;
}
inline void store(float* to, Vec x) { __builtin_memcpy(to, &x.v, sizeof(x.v)); }
inline void store_first(float* to, Vec x, std::size_t count) {
  for (std::size_t lane = 0; lane < count; ++lane) to[lane] = x.v[lane];
}
inline Vec broadcast(float x) { return {Floats{x, x, x, x}}; }
inline Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
inline Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
inline Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
inline Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }
inline Vec multiply_add(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }
inline Vec maximum(Vec a, Vec b) { return {a.v > b.v ? a.v : b.v}; }
inline Vec minimum(Vec a, Vec b) { return {a.v < b.v ? a.v : b.v}; }
inline Vec absolute(Vec x) { return {(Floats)((Ints)x.v & 0x7fffffff)}; }
// x where a >= b, else 0
inline Vec keep_at_least(Vec a, Vec b, Vec x) { return {(Floats)((Ints)x.v & (Ints)(a.v >= b.v))}; }
inline float reduce_sum(Vec x) { return (x.v[0] + x.v[2]) + (x.v[1] + x.v[3]); }
inline float reduce_max(Vec x) {
  float largest = x.v[0];
  for (std::size_t lane = 1; lane < kLanes; ++lane) largest = x.v[lane] > largest ? x.v[lane] : largest;
  return largest;
}
inline float reduce_min(Vec x) { return -reduce_max({-x.v}); }

inline IntVec load(const std::int32_t* from) { return {copy_bits<Ints>(from)}; }
inline IntVec load_low16(const std::uint16_t* from) { return {Ints{from[0], from[1], from[2], from[3]}}; }
inline void store(std::int32_t* to, IntVec x) { __builtin_memcpy(to, &x.v, sizeof(x.v)); }
inline void store_low16(std::uint16_t* to, IntVec x) {
  for (std::size_t lane = 0; lane < kLanes; ++lane) to[lane] = static_cast<std::uint16_t>(x.v[lane]);
}
inline void store_low8(std::uint8_t* to, IntVec x) {
  for (std::size_t lane = 0; lane < kLanes; ++lane) to[lane] = static_cast<std::uint8_t>(x.v[lane]);
}
inline IntVec broadcast(std::int32_t x) { return {Ints{x, x, x, x}}; }
// Modulo 2^32, as the instructions do it.
inline IntVec operator+(IntVec a, IntVec b) { return {(Ints)((Words)a.v + (Words)b.v)}; }
inline IntVec operator-(IntVec a, IntVec b) { return {(Ints)((Words)a.v - (Words)b.v)}; }
inline IntVec operator*(IntVec a, IntVec b) { return {(Ints)((Words)a.v * (Words)b.v)}; }
inline IntVec operator|(IntVec a, IntVec b) { return {a.v | b.v}; }
inline IntVec operator&(IntVec a, IntVec b) { return {a.v & b.v}; }
inline IntVec operator^(IntVec a, IntVec b) { return {a.v ^ b.v}; }
template <int bits>
inline IntVec shift_left(IntVec x) {
  return {(Ints)((Words)x.v << bits)};
}
template <int bits>
inline IntVec shift_right(IntVec x) {
  return {(Ints)((Words)x.v >> bits)};
}
inline Vec to_float(IntVec x) { return {__builtin_convertvector(x.v, Floats)}; }
inline IntVec bits_of(Vec x) { return {(Ints)x.v}; }
inline Vec from_bits(IntVec x) { return {(Floats)x.v}; }
// table[lowest four bits of each index]
inline Vec look_up(const float (&table)[16], IntVec index) {
  return {Floats{table[index.v[0] & 15], table[index.v[1] & 15], table[index.v[2] & 15], table[index.v[3] & 15]}};
}
// Adding 1.5 * 2^23 leaves the nearest integer (to even) in the lowest bits, for |x| < 2^22.
inline IntVec to_nearest_int(Vec x) {
  const Vec shift = broadcast(12582912.0f);
  return bits_of(x + shift) - bits_of(shift);
}

// to[j][i] = from[i][j] for kLanes x kLanes words
inline void transpose_square(const std::uint32_t* from, std::size_t from_stride, std::uint32_t* to,
                             std::size_t to_stride) {
  for (std::size_t i = 0; i < kLanes; ++i) {
    for (std::size_t j = 0; j < kLanes; ++j) to[j * to_stride + i] = from[i * from_stride + j];
  }
}

// Products of words: accumulator += a * b in each lane, for the values that the words hold.
inline Words broadcast_word(const std::uint32_t* word) { return Words{*word, *word, *word, *word}; }

struct FloatDot {
  using Accumulator = Floats;
  using Left = Floats;
  using Right = Floats;
  static Accumulator zero() { return Floats{}; }
  static Left broadcast(const std::uint32_t* word) { return (Floats)broadcast_word(word); }
  static Right load(const std::uint32_t* words) { return copy_bits<Floats>(words); }
  static void step(Accumulator& sum, Left a, Right b) { sum += a * b; }
  static void store(std::uint32_t* to, Accumulator sum) { __builtin_memcpy(to, &sum, sizeof(sum)); }
};

struct BFloat16Dot {
  struct Halves {
    Floats low, high;
  };
  using Accumulator = Floats;
  using Left = Halves;
  using Right = Halves;
  static Accumulator zero() { return Floats{}; }
  static Halves split(Words words) { return {(Floats)(words << 16), (Floats)(words & 0xffff0000u)}; }
  static Left broadcast(const std::uint32_t* word) { return split(broadcast_word(word)); }
  static Right load(const std::uint32_t* words) { return split(copy_bits<Words>(words)); }
  static void step(Accumulator& sum, Left a, Right b) { sum = sum + a.low * b.low + a.high * b.high; }
  static void store(std::uint32_t* to, Accumulator sum) { __builtin_memcpy(to, &sum, sizeof(sum)); }
};

struct Int8Dot {
  using Accumulator = Ints;
  using Left = Words;
  using Right = Words;
  static Accumulator zero() { return Ints{}; }
  static Left broadcast(const std::uint32_t* word) { return broadcast_word(word); }
  static Right load(const std::uint32_t* words) { return copy_bits<Words>(words); }
  static void step(Accumulator& sum, Left a, Right b) {
    sum += (Ints)(a & 0xff) * ((Ints)(b << 24) >> 24);
    sum += (Ints)(a >> 8 & 0xff) * ((Ints)(b << 16) >> 24);
    sum += (Ints)(a >> 16 & 0xff) * ((Ints)(b << 8) >> 24);
    sum += (Ints)(a >> 24) * ((Ints)b >> 24);
  }
  static void store(std::uint32_t* to, Accumulator sum) { __builtin_memcpy(to, &sum, sizeof(sum)); }
};

}  // namespace
}  // namespace fastce
