// Eight lanes of AVX2 with FMA.
#include <immintrin.h>

namespace fastce {
namespace {

constexpr std::size_t kLanes = 8;
constexpr std::size_t kTileRows = 6;
constexpr std::size_t kTileVectors = 2;

struct Vec {
  __m256 v;
};

struct IntVec {
  __m256i v;
};

inline __m256i first_lanes(std::size_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

inline Vec load(const float* from) { return {_mm256_loadu_ps(from)}; }
inline Vec load_first(const float* from, std::size_t count) { return {_mm256_maskload_ps(from, first_lanes(count))}; }
inline Vec keep_first(Vec x, std::size_t count, Vec others) {
  return {_mm256_blendv_ps(others.v, x.v, _mm256_castsi256_ps(first_lanes(count)))};
}
inline void store(float* to, Vec x) { _mm256_storeu_ps(to, x.v); }
inline void store_first(float* to, Vec x, std::size_t count) { _mm256_maskstore_ps(to, first_lanes(count), x.v); }
inline Vec broadcast(float x) { return {_mm256_set1_ps(x)}; }
inline Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
inline Vec multiply_add(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec maximum(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
inline Vec minimum(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }
inline Vec absolute(Vec x) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), x.v)}; }
// x where a >= b, else 0
inline Vec keep_at_least(Vec a, Vec b, Vec x) { return {_mm256_and_ps(_mm256_cmp_ps(a.v, b.v, _CMP_GE_OQ), x.v)}; }

template <class Combine>
inline float reduce(__m256 x, Combine combine) {
  __m128 half = combine(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  half = combine(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(combine(half, _mm_movehdup_ps(half)));
}
inline float reduce_sum(Vec x) {
  return reduce(x.v, [](__m128 a, __m128 b) { return _mm_add_ps(a, b); });
}
inline float reduce_max(Vec x) {
  return reduce(x.v, [](__m128 a, __m128 b) { return _mm_max_ps(a, b); });
}
inline float reduce_min(Vec x) {
  return reduce(x.v, [](__m128 a, __m128 b) { return _mm_min_ps(a, b); });
}

inline IntVec load(const std::int32_t* from) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))}; }
inline IntVec load_low16(const std::uint16_t* from) {
  return {_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)))};
}
inline void store(std::int32_t* to, IntVec x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), x.v); }
inline void store_low16(std::uint16_t* to, IntVec x) {  // of values below 2^16
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(x.v, x.v), 0xd8);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(packed));
}
inline void store_low8(std::uint8_t* to, IntVec x) {  // of values below 2^8
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(x.v, x.v), 0xd8);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(_mm256_packus_epi16(words, words)));
}
inline IntVec broadcast(std::int32_t x) { return {_mm256_set1_epi32(x)}; }
inline IntVec operator+(IntVec a, IntVec b) { return {_mm256_add_epi32(a.v, b.v)}; }
inline IntVec operator-(IntVec a, IntVec b) { return {_mm256_sub_epi32(a.v, b.v)}; }
inline IntVec operator*(IntVec a, IntVec b) { return {_mm256_mullo_epi32(a.v, b.v)}; }
inline IntVec operator|(IntVec a, IntVec b) { return {_mm256_or_si256(a.v, b.v)}; }
inline IntVec operator&(IntVec a, IntVec b) { return {_mm256_and_si256(a.v, b.v)}; }
inline IntVec operator^(IntVec a, IntVec b) { return {_mm256_xor_si256(a.v, b.v)}; }
template <int bits>
inline IntVec shift_left(IntVec x) {
  return {_mm256_slli_epi32(x.v, bits)};
}
template <int bits>
inline IntVec shift_right(IntVec x) {
  return {_mm256_srli_epi32(x.v, bits)};
}
inline Vec to_float(IntVec x) { return {_mm256_cvtepi32_ps(x.v)}; }
inline IntVec to_nearest_int(Vec x) { return {_mm256_cvtps_epi32(x.v)}; }
inline IntVec bits_of(Vec x) { return {_mm256_castps_si256(x.v)}; }
inline Vec from_bits(IntVec x) { return {_mm256_castsi256_ps(x.v)}; }
// table[lowest four bits of each index]
inline Vec look_up(const float (&table)[16], IntVec index) {
  const __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), index.v);
  const __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), index.v);
  return {_mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(index.v, 28)))};
}

// to[j][i] = from[i][j] for kLanes x kLanes words
inline void transpose_square(const std::uint32_t* from, std::size_t from_stride, std::uint32_t* to,
                             std::size_t to_stride) {
  for (std::size_t i = 0; i < kLanes; ++i) {
    for (std::size_t j = 0; j < kLanes; ++j) to[j * to_stride + i] = from[i * from_stride + j];
  }
}

// Products of words: accumulator += a * b in each lane, for the values that the words hold.
inline __m256i load_words(const std::uint32_t* words) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words));
}
inline __m256i broadcast_word(const std::uint32_t* word) { return _mm256_set1_epi32(static_cast<int>(*word)); }

struct FloatDot {
  using Accumulator = __m256;
  using Left = __m256;
  using Right = __m256;
  static Accumulator zero() { return _mm256_setzero_ps(); }
  static Left broadcast(const std::uint32_t* word) { return _mm256_castsi256_ps(broadcast_word(word)); }
  static Right load(const std::uint32_t* words) { return _mm256_castsi256_ps(load_words(words)); }
  static void step(Accumulator& sum, Left a, Right b) { asm("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b)); }
  static void store(std::uint32_t* to, Accumulator sum) { _mm256_storeu_ps(reinterpret_cast<float*>(to), sum); }
};

struct BFloat16Dot {
  struct Halves {
    __m256 low, high;
  };
  using Accumulator = __m256;
  using Left = Halves;
  using Right = Halves;
  static Halves split(__m256i words) {
    const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(words, 16)), _mm256_castsi256_ps(_mm256_and_si256(words, high))};
  }
  static Accumulator zero() { return _mm256_setzero_ps(); }
  static Left broadcast(const std::uint32_t* word) { return split(broadcast_word(word)); }
  static Right load(const std::uint32_t* words) { return split(load_words(words)); }
  static void step(Accumulator& sum, Left a, Right b) {
    sum = _mm256_fmadd_ps(a.high, b.high, _mm256_fmadd_ps(a.low, b.low, sum));
  }
  static void store(std::uint32_t* to, Accumulator sum) { _mm256_storeu_ps(reinterpret_cast<float*>(to), sum); }
};

// Even and odd bytes widened to 16 bits: vpmaddubsw, which multiplies bytes, saturates.
struct Int8Dot {
  struct Halves {
    __m256i even, odd;
  };
  using Accumulator = __m256i;
  using Left = Halves;
  using Right = Halves;
  static Accumulator zero() { return _mm256_setzero_si256(); }
  static Left broadcast(const std::uint32_t* word) {
    const __m256i bytes = broadcast_word(word);
    return {_mm256_and_si256(bytes, _mm256_set1_epi16(0xff)), _mm256_srli_epi16(bytes, 8)};
  }
  static Right load(const std::uint32_t* words) {
    const __m256i bytes = load_words(words);
    return {_mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8), _mm256_srai_epi16(bytes, 8)};
  }
  static void step(Accumulator& sum, Left a, Right b) {
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(a.even, b.even));
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(a.odd, b.odd));
  }
  static void store(std::uint32_t* to, Accumulator sum) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), sum); }
};

}  // namespace
}  // namespace fastce
