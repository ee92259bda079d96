// Sixteen lanes of AVX-512. Inline assembly in the products keeps each accumulator in one register: gcc's own
// allocation of the intrinsics spills them.
#include <immintrin.h>

namespace fastce {
namespace {

constexpr std::size_t kLanes = 16;
constexpr std::size_t kTileRows = 12;
constexpr std::size_t kTileVectors = 2;

struct Vec {
  __m512 v;
};

struct IntVec {
  __m512i v;
};

inline __mmask16 first_lanes(std::size_t count) { return static_cast<__mmask16>((1u << count) - 1); }

inline Vec load(const float* from) { return {_mm512_loadu_ps(from)}; }
inline Vec load_first(const float* from, std::size_t count) {
  return {_mm512_maskz_loadu_ps(first_lanes(count), from)};
}
inline Vec keep_first(Vec x, std::size_t count, Vec others) {
  return {_mm512_mask_mov_ps(others.v, first_lanes(count), x.v)};
}
inline void store(float* to, Vec x) { _mm512_storeu_ps(to, x.v); }
inline void store_first(float* to, Vec x, std::size_t count) { _mm512_mask_storeu_ps(to, first_lanes(count), x.v); }
inline Vec broadcast(float x) { return {_mm512_set1_ps(x)}; }
inline Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Vec multiply_add(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec maximum(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Vec minimum(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Vec absolute(Vec x) { return {_mm512_abs_ps(x.v)}; }
// x where a >= b, else 0
inline Vec keep_at_least(Vec a, Vec b, Vec x) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ), x.v)};
}
inline float reduce_sum(Vec x) { return _mm512_reduce_add_ps(x.v); }
inline float reduce_max(Vec x) { return _mm512_reduce_max_ps(x.v); }
inline float reduce_min(Vec x) { return _mm512_reduce_min_ps(x.v); }

inline IntVec load(const std::int32_t* from) { return {_mm512_loadu_si512(from)}; }
inline IntVec load_low16(const std::uint16_t* from) {
  return {_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)))};
}
inline void store(std::int32_t* to, IntVec x) { _mm512_storeu_si512(to, x.v); }
inline void store_low16(std::uint16_t* to, IntVec x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(x.v));
}
inline void store_low8(std::uint8_t* to, IntVec x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(x.v));
}
inline IntVec broadcast(std::int32_t x) { return {_mm512_set1_epi32(x)}; }
inline IntVec operator+(IntVec a, IntVec b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline IntVec operator-(IntVec a, IntVec b) { return {_mm512_sub_epi32(a.v, b.v)}; }
inline IntVec operator*(IntVec a, IntVec b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
inline IntVec operator|(IntVec a, IntVec b) { return {_mm512_or_si512(a.v, b.v)}; }
inline IntVec operator&(IntVec a, IntVec b) { return {_mm512_and_si512(a.v, b.v)}; }
inline IntVec operator^(IntVec a, IntVec b) { return {_mm512_xor_si512(a.v, b.v)}; }
template <int bits>
inline IntVec shift_left(IntVec x) {
  return {_mm512_slli_epi32(x.v, bits)};
}
template <int bits>
inline IntVec shift_right(IntVec x) {
  return {_mm512_srli_epi32(x.v, bits)};
}
inline Vec to_float(IntVec x) { return {_mm512_cvtepi32_ps(x.v)}; }
inline IntVec to_nearest_int(Vec x) { return {_mm512_cvtps_epi32(x.v)}; }
inline IntVec bits_of(Vec x) { return {_mm512_castps_si512(x.v)}; }
inline Vec from_bits(IntVec x) { return {_mm512_castsi512_ps(x.v)}; }
// table[lowest four bits of each index]
inline Vec look_up(const float (&table)[16], IntVec index) {
  return {_mm512_permutexvar_ps(index.v, _mm512_loadu_ps(table))};
}

// to[j][i] = from[i][j] for kLanes x kLanes words
inline void transpose_square(const std::uint32_t* from, std::size_t from_stride, std::uint32_t* to,
                             std::size_t to_stride) {
  __m512i rows[16], pairs[16], quads[16], halves[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) rows[i] = _mm512_loadu_si512(from + i * from_stride);
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    quads[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
    quads[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
    quads[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
    quads[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
  }
  // Lane group g of quads[4 i + r] holds column 4 g + r of rows 4 i to 4 i + 3.
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    halves[i] = _mm512_shuffle_i32x4(quads[i], quads[i + 4], 0x88);      // groups 0 and 2
    halves[i + 4] = _mm512_shuffle_i32x4(quads[i], quads[i + 4], 0xdd);  // groups 1 and 3
    halves[i + 8] = _mm512_shuffle_i32x4(quads[i + 8], quads[i + 12], 0x88);
    halves[i + 12] = _mm512_shuffle_i32x4(quads[i + 8], quads[i + 12], 0xdd);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    _mm512_storeu_si512(to + i * to_stride, _mm512_shuffle_i32x4(halves[i], halves[i + 8], 0x88));
    _mm512_storeu_si512(to + (i + 4) * to_stride, _mm512_shuffle_i32x4(halves[i + 4], halves[i + 12], 0x88));
    _mm512_storeu_si512(to + (i + 8) * to_stride, _mm512_shuffle_i32x4(halves[i], halves[i + 8], 0xdd));
    _mm512_storeu_si512(to + (i + 12) * to_stride, _mm512_shuffle_i32x4(halves[i + 4], halves[i + 12], 0xdd));
  }
}

#if defined(__AVX512BF16__)
#define FASTCE_NATIVE_BF16
inline void store_bf16(std::uint16_t* to, Vec x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x.v)));
}
#endif

// Products of words: accumulator += a * b in each lane, for the values that the words hold.
struct FloatDot {
  using Accumulator = __m512;
  using Left = __m512;
  using Right = __m512;
  static Accumulator zero() { return _mm512_setzero_ps(); }
  static Left broadcast(const std::uint32_t* word) {
    return _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(*word)));
  }
  static Right load(const std::uint32_t* words) { return _mm512_loadu_ps(words); }
  static void step(Accumulator& sum, Left a, Right b) { asm("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b)); }
  static void store(std::uint32_t* to, Accumulator sum) { _mm512_storeu_ps(to, sum); }
};

struct BFloat16Dot {
  using Accumulator = __m512;
  static Accumulator zero() { return _mm512_setzero_ps(); }
  static void store(std::uint32_t* to, Accumulator sum) { _mm512_storeu_ps(to, sum); }
#if defined(FASTCE_NATIVE_BF16)
  using Left = __m512i;
  using Right = __m512i;
  static Left broadcast(const std::uint32_t* word) { return _mm512_set1_epi32(static_cast<int>(*word)); }
  static Right load(const std::uint32_t* words) { return _mm512_loadu_si512(words); }
  static void step(Accumulator& sum, Left a, Right b) { asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b)); }
#else
  struct Halves {
    __m512 low, high;
  };
  using Left = Halves;
  using Right = Halves;
  static Halves split(__m512i words) {
    const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(words, 16)), _mm512_castsi512_ps(_mm512_and_si512(words, high))};
  }
  static Left broadcast(const std::uint32_t* word) { return split(_mm512_set1_epi32(static_cast<int>(*word))); }
  static Right load(const std::uint32_t* words) { return split(_mm512_loadu_si512(words)); }
  static void step(Accumulator& sum, Left a, Right b) {
    sum = _mm512_fmadd_ps(a.high, b.high, _mm512_fmadd_ps(a.low, b.low, sum));
  }
#endif
};

struct Int8Dot {
  using Accumulator = __m512i;
  static Accumulator zero() { return _mm512_setzero_si512(); }
  static void store(std::uint32_t* to, Accumulator sum) { _mm512_storeu_si512(to, sum); }
#if defined(__AVX512VNNI__)
  using Left = __m512i;
  using Right = __m512i;
  static Left broadcast(const std::uint32_t* word) { return _mm512_set1_epi32(static_cast<int>(*word)); }
  static Right load(const std::uint32_t* words) { return _mm512_loadu_si512(words); }
  static void step(Accumulator& sum, Left a, Right b) { asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b)); }
#else
  // Even and odd bytes widened to 16 bits: vpmaddubsw, which multiplies bytes, saturates.
  struct Halves {
    __m512i even, odd;
  };
  using Left = Halves;
  using Right = Halves;
  static Left broadcast(const std::uint32_t* word) {
    const __m512i bytes = _mm512_set1_epi32(static_cast<int>(*word));
    return {_mm512_and_si512(bytes, _mm512_set1_epi16(0xff)), _mm512_srli_epi16(bytes, 8)};
  }
  static Right load(const std::uint32_t* words) {
    const __m512i bytes = _mm512_loadu_si512(words);
    return {_mm512_srai_epi16(_mm512_slli_epi16(bytes, 8), 8), _mm512_srai_epi16(bytes, 8)};
  }
  static void step(Accumulator& sum, Left a, Right b) {
    sum = _mm512_add_epi32(sum, _mm512_madd_epi16(a.even, b.even));
    sum = _mm512_add_epi32(sum, _mm512_madd_epi16(a.odd, b.odd));
  }
#endif
};

}  // namespace
}  // namespace fastce
