// One step of a decoder on a CPU, in one parallel region.
//
// Weights are codes of 4 or 8 bits with a scale and an offset per group of inputs; what goes into such a linear layer is
// rounded to 8 bits, one scale per row and group, so that products are sums of integers. Or weights are bfloat16, and so
// is what goes in. All else is float32, but for keys and values: in the cache they are float32, bfloat16, or codes of 8
// or 4 bits.
//
//     norm -> round -> qkv -> rotate, store -> attend -> round -> o, add -> norm -> round -> gate, up -> silu -> round
//          -> down, add
//
// Every row is computed in the same order of operations however many rows and threads there are: batches change no bit
// of an answer. That is why sums are cut at fixed places, and multiply-adds are written as such.
//
// Compiled with -march=native for CPUs with AVX2, FMA and F16C, or AVX512, or AVX512 and AMX.
// The structs are mirrored in library.py.

#include <immintrin.h>
#include <omp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace {

constexpr int kOutputs = 16;  // of a block: one int32 of each in a vector
constexpr int kSplit = 256;   // tokens attended to by one piece of work
constexpr int kTile = 16;     // tokens whose scores are in one vector
constexpr int kWidestGroup = 256, kWidestHead = 256;
constexpr int kRowsAtOnce = 256;  // their rounded inputs stay in the second-level cache
#ifdef __AVX512F__
constexpr int kRows = 8;  // whose sums are in registers
#else
constexpr int kRows = 3;
#endif

// 16 float32 or int32, 64 bytes: one register with AVX512, else two.
typedef float F16 __attribute__((vector_size(64)));
typedef int32_t I16 __attribute__((vector_size(64)));
typedef uint8_t B64 __attribute__((vector_size(64)));

inline F16 splat(float x) { return x - F16{}; }
template <class T>
inline T load(const void* from) {
    T x;
    memcpy(&x, from, sizeof x);
    return x;
}
template <class T>
inline void store(void* to, T x) { memcpy(to, &x, sizeof x); }
inline F16 as_float(I16 x) { return __builtin_convertvector(x, F16); }

#ifdef __AVX512F__
inline F16 fma(F16 a, F16 b, F16 c) { return (F16)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
inline F16 half16(const uint16_t* x) { return (F16)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)x)); }
inline F16 read16(const uint16_t* x) {  // bfloat16
    return (F16)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)x)), 16);
}
inline F16 floats16(__m128i x) { return as_float((I16)_mm512_cvtepi8_epi32(x)); }  // of int8
inline void write16(int8_t* to, I16 x) { _mm_storeu_si128((__m128i*)to, _mm512_cvtepi32_epi8((__m512i)x)); }
inline float sum(F16 x) { return _mm512_reduce_add_ps((__m512)x); }
inline float largest(F16 x) { return _mm512_reduce_max_ps((__m512)x); }
inline F16 max(F16 a, F16 b) { return (F16)_mm512_max_ps((__m512)a, (__m512)b); }
// The sums of 16 vectors, as one: pairs of vectors, then of pairs, are added crosswise.
inline F16 sums16(const F16* x) {
    __m512 four[4];
    for (int i = 0; i < 4; i++) {
        const __m512 *v = (const __m512*)x + 4 * i;
        const __m512d a = (__m512d)_mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
        const __m512d b = (__m512d)_mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
        four[i] = _mm512_add_ps((__m512)_mm512_unpacklo_pd(a, b), (__m512)_mm512_unpackhi_pd(a, b));
    }
    __m512 two[2];
    for (int i = 0; i < 2; i++) {
        const __m512 a = four[2 * i], b = four[2 * i + 1];
        two[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
    }
    const __m512 a = two[0], b = two[1];
    return (F16)_mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}
#else
union Halves {
    F16 whole;
    __m256 half[2];
};
inline F16 fma(F16 a, F16 b, F16 c) {
    Halves x{a}, y{b}, z{c};
    for (int i = 0; i < 2; i++) z.half[i] = _mm256_fmadd_ps(x.half[i], y.half[i], z.half[i]);
    return z.whole;
}
inline F16 half16(const uint16_t* x) {
    Halves y;
    for (int i = 0; i < 2; i++) y.half[i] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)x + i));
    return y.whole;
}
inline F16 read16(const uint16_t* x) {  // bfloat16
    Halves y;
    for (int i = 0; i < 2; i++) {
        const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)x + i));
        y.half[i] = (__m256)_mm256_slli_epi32(wide, 16);
    }
    return y.whole;
}
inline F16 floats16(__m128i x) {  // of int8
    Halves y;
    y.half[0] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(x));
    y.half[1] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(x, 8)));
    return y.whole;
}
inline void write16(int8_t* to, I16 x) {
    typedef int8_t C16 __attribute__((vector_size(16)));
    store(to, __builtin_convertvector(x, C16));
}
inline float sum(F16 x) {
    float total[8];
    Halves y{x};
    _mm256_storeu_ps(total, _mm256_add_ps(y.half[0], y.half[1]));
    return ((total[0] + total[4]) + (total[1] + total[5])) + ((total[2] + total[6]) + (total[3] + total[7]));
}
inline F16 max(F16 a, F16 b) { return a > b ? a : b; }
inline F16 sums16(const F16* x) {
    F16 y;
    for (int i = 0; i < 16; i++) y[i] = sum(x[i]);
    return y;
}
inline float largest(F16 x) {
    float most = x[0];
    for (int i = 1; i < 16; i++) most = x[i] > most ? x[i] : most;
    return most;
}
#endif

inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

// sums + the products of four codes (0 to 255 if BITS is 8, else to 15) of each output with four inputs.
template <int BITS>
inline I16 dot4(I16 sums, B64 codes, int32_t inputs) {
#if defined(__AVX512VNNI__)
    return (I16)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)codes, _mm512_set1_epi32(inputs));
#else
    union {
        I16 sums;
        __m256i half[2];
    } total{sums};
    union {
        B64 codes;
        __m256i half[2];
    } w{codes};
    const __m256i x = _mm256_set1_epi32(inputs);
    for (int i = 0; i < 2; i++) {
#ifdef __AVXVNNI__
        total.half[i] = _mm256_dpbusd_avx_epi32(total.half[i], w.half[i], x);
#else
        // Pairs of products fit 16 bits if codes have 4: longer ones are taken as two digits.
        const __m256i ones = _mm256_set1_epi16(1), digit = _mm256_set1_epi8(15);
        __m256i pairs = _mm256_maddubs_epi16(_mm256_and_si256(w.half[i], digit), x);
        total.half[i] = _mm256_add_epi32(total.half[i], _mm256_madd_epi16(pairs, ones));
        if (BITS == 8) {
            pairs = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(w.half[i], 4), digit), x);
            total.half[i] = _mm256_add_epi32(total.half[i], _mm256_madd_epi16(pairs, _mm256_set1_epi16(16)));
        }
#endif
    }
    return total.sums;
#endif
}

// e^x for x <= 88; 0 below -87. Within 2e-7 of the value: 2^n by the exponent's bits, the rest by a Taylor polynomial.
inline F16 exp16(F16 x) {
    const I16 tiny = x < splat(-87.0f);
    x = max(x, splat(-87.0f));
    const F16 shift = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number in the low bits
    const F16 shifted = fma(x, splat(1.44269504f), shift);
    const F16 n = shifted - shift;
    F16 r = fma(n, splat(-0.693359375f), x);
    r = fma(n, splat(2.12194440e-4f), r);
    F16 y = splat(1.0f / 5040);
    y = fma(y, r, splat(1.0f / 720));
    y = fma(y, r, splat(1.0f / 120));
    y = fma(y, r, splat(1.0f / 24));
    y = fma(y, r, splat(1.0f / 6));
    y = fma(y, r, splat(0.5f));
    y = fma(y, r, splat(1.0f));
    y = fma(y, r, splat(1.0f));
    const I16 power = ((I16)shifted - (I16)shift + 127) << 23;
    return tiny ? F16{} : y * (F16)power;
}

inline float bfloat16(uint16_t x) {
    const uint32_t bits = (uint32_t)x << 16;
    return load<float>(&bits);
}

inline uint16_t to_bfloat16(float x) {  // to the nearest, ties to even; NaN stays NaN
    uint32_t bits = load<uint32_t>(&x);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fc0;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

inline F16 read16(const float* x) { return load<F16>(x); }
inline float read1(const uint16_t* x) { return bfloat16(*x); }
inline float read1(const float* x) { return *x; }
inline void write1(uint16_t* to, float x) { *to = to_bfloat16(x); }
inline void write1(float* to, float x) { *to = x; }

}  // namespace

extern "C" {

// A weight [outputs, inputs]: codes * scale + offset, or bfloat16; outputs padded to a multiple of 16.
struct Matrix {
    const uint8_t* codes;    // 16 bits, bfloat16: [outputs/16, inputs/2, 16, 2]
                             // 8 bits: [outputs/16, inputs/4, 16, 4]
                             // 4 bits: [outputs/16, inputs/8, 16, 4]; of 8 inputs, j is the low nibble, j + 4 the high
    const uint16_t* affine;  // float16 [outputs/16, inputs/group, 2, 16]: scales, offsets
    const float* bias;       // [outputs] or null
    const int32_t* order;    // [inputs]: codes of input j multiply number order[j] of a row; null: number j
    int32_t outputs, inputs, group, bits;  // bfloat16 has no groups: any length that divides inputs
};

struct Layer {
    Matrix qkv, o, gate_up, down;
    const float *input_norm, *post_norm;  // [hidden]
    const float *q_norm, *k_norm;         // [head_dim] or null
    void* cache;                          // [blocks, 2, kv_heads, block_size] vectors of head_dim; see the cache kinds
    uint16_t* cache_scales;               // float16 of each vector; null but for 8 bits
    int64_t window;                       // tokens that are seen; 0: all
};

enum CacheKind : int32_t { kFloat32, kBFloat16, kInt8, kInt4 };

struct Model {
    Layer* layers;
    const float *cos, *sin;  // [positions, head_dim]; the first half of sin negated
    int32_t hidden, inner, heads, kv_heads, head_dim, block_size;
    int32_t cache_kind;
    float eps;
};

// Rows of a step, and room for what lies between its operations.
struct Step {
    int32_t rows, single;  // the first `single` rows attend one by one, the others in `blocks`
    int32_t blocks, threads, table_width;
    const int64_t* positions;   // [rows]
    const int32_t* sequence;    // [rows]: line of `tables`
    const int32_t* tables;      // [sequences, table_width]: blocks of the cache
    const int32_t* split_start;  // [single + 1]: pieces of work of the rows before
    const int32_t* block_rows;   // [blocks, 2]: first row and number of rows, which follow one another in a sequence
    float* x;                   // [rows, hidden]
    float* qkv;                 // [rows, (heads + 2 kv_heads) * head_dim]
    float* attention;           // [rows, heads * head_dim]
    float* partial;             // [split_start[single], heads, head_dim + 2]: sum of values, largest score, sum
    float* inner;               // [rows, 2 inner]
    int8_t* codes;              // [rows, inputs of a linear layer]; or bfloat16
    float* scales;              // [rows, inputs / group, 2]: of the codes, and times the sum of the codes
};

}  // extern "C"

namespace {

// Rounds `group` numbers to codes -127 to 127 and writes their scale.
inline void round_group(const float* x, int group, int8_t* codes, float* scale) {
    I16 most = {};  // of the bits of |x|, whose order is that of the numbers, with NaN above all
    for (int i = 0; i < group; i += 16) {
        const I16 bits = load<I16>(x + i) & 0x7fffffff;
        most = bits > most ? bits : most;
    }
    int32_t top = 0;
    for (int i = 0; i < 16; i++) top = most[i] > top ? most[i] : top;
    const float size = load<float>(&top);
    const F16 factor = splat(size > 0 ? 127.0f / size : 0.0f), shift = splat(12582912.0f);
    I16 total = {};
    for (int i = 0; i < group; i += 16) {
        const I16 code = (I16)fma(load<F16>(x + i), factor, shift) - (I16)shift;
        total += code;
        write16(codes + i, code);
    }
    int32_t codes_sum = 0;
    for (int i = 0; i < 16; i++) codes_sum += total[i];
    scale[0] = size / 127.0f;
    scale[1] = scale[0] * (float)codes_sum;
}

// 16 numbers of a row, from input j of `w` on.
inline F16 inputs16(const Matrix& w, const float* row, int j) {
    if (!w.order) return load<F16>(row + j);
    float found[16];
    for (int i = 0; i < 16; i++) found[i] = row[w.order[j + i]];
    return load<F16>(found);
}

// A group of numbers as inputs of `w`, the `index`th of all rows.
inline void round_for(const Matrix& w, const float* x, int64_t index, const Step& s) {
    if (w.bits != 16) return round_group(x, w.group, s.codes + index * w.group, s.scales + index * 2);
    uint16_t* to = (uint16_t*)s.codes + index * w.group;
    for (int i = 0; i < w.group; i++) to[i] = to_bfloat16(x[i]);
}

inline void write_outputs(const Matrix& w, int block, F16 out, float* y, bool add) {
    float* to = y + (int64_t)block * kOutputs;
    if (w.bias) out = out + load<F16>(w.bias + block * kOutputs);
    store(to, add ? load<F16>(to) + out : out);
}

// What a group adds to the outputs of one row, whose codes have these `sums` of products.
inline F16 add_group(F16 out, I16 sums, F16 scale, F16 offset, const float* of_row) {
    return fma(scale * splat(of_row[0]), as_float(sums), fma(offset, splat(of_row[1]), out));
}

// A block of outputs for R rows. Inputs of a row are `inputs` codes and 2 * inputs / group scales.
template <int BITS, int R>
inline void multiply_tile(const Matrix& w, int block, const int8_t* x, const float* scales, float* y, int64_t y_stride,
                          bool add) {
    constexpr int kStep = BITS == 4 ? 8 : 4;  // inputs in 64 bytes
    const int groups = w.inputs / w.group;
    const uint8_t* codes = w.codes + (int64_t)block * (w.inputs / kStep) * 64;
    const uint16_t* affine = w.affine + (int64_t)block * groups * 32;
    F16 out[R] = {};
    for (int g = 0; g < groups; g++) {
        I16 sums[R] = {};
        for (int k = 0; k < w.group; k += kStep) {
            const int8_t* at = x + g * w.group + k;
            const B64 both = load<B64>(codes);
            if (BITS == 8) {
                for (int r = 0; r < R; r++) sums[r] = dot4<8>(sums[r], both, load<int32_t>(at + r * w.inputs));
            } else {
                const B64 low = both & 15, high = (B64)((I16)both >> 4) & 15;
                for (int r = 0; r < R; r++) {
                    sums[r] = dot4<4>(sums[r], low, load<int32_t>(at + r * w.inputs));
                    sums[r] = dot4<4>(sums[r], high, load<int32_t>(at + r * w.inputs + 4));
                }
            }
            __builtin_prefetch(codes + 1024);
            codes += 64;
        }
        const F16 scale = half16(affine), offset = half16(affine + 16);
        for (int r = 0; r < R; r++) {
            out[r] = add_group(out[r], sums[r], scale, offset, scales + ((int64_t)r * groups + g) * 2);
        }
        affine += 32;
    }
    for (int r = 0; r < R; r++) write_outputs(w, block, out[r], y + r * y_stride, add);
}

// Products of two bfloat16 inputs with those of each output.
inline F16 add_pairs(F16 sums, const uint8_t* weights, uint32_t inputs) {
#ifdef __AVX512BF16__
    return (F16)_mm512_dpbf16_ps((__m512)sums, load<__m512bh>(weights), (__m512bh)_mm512_set1_epi32(inputs));
#else
    const I16 both = load<I16>(weights);
    const uint32_t even = inputs << 16, odd = inputs & 0xffff0000;
    sums = fma((F16)(both << 16), splat(load<float>(&even)), sums);
    return fma((F16)(both & (int32_t)0xffff0000), splat(load<float>(&odd)), sums);
#endif
}

// The same for a weight of bfloat16.
template <int R>
inline void multiply_tile16(const Matrix& w, int block, const uint16_t* x, float* y, int64_t y_stride, bool add) {
    const uint8_t* weights = w.codes + (int64_t)block * w.inputs * kOutputs * 2;
    F16 out[R] = {};
    for (int k = 0; k < w.inputs; k += 2) {
        for (int r = 0; r < R; r++) out[r] = add_pairs(out[r], weights, load<uint32_t>(x + r * w.inputs + k));
        __builtin_prefetch(weights + 1024);
        weights += 64;
    }
    for (int r = 0; r < R; r++) write_outputs(w, block, out[r], y + r * y_stride, add);
}

template <int BITS>
void multiply_block(const Matrix& w, int block, int rows, const Step& s, int first, float* y, int64_t y_stride,
                    bool add) {
    for (int row = first; row < first + rows;) {
        const int left = first + rows - row, count = left < kRows ? left : kRows;
        const int64_t at = (int64_t)row * w.inputs;
        const float* scales = s.scales + (int64_t)row * (w.inputs / w.group) * 2;
        float* to = y + row * y_stride;
        switch (count) {
#define CASE(R)                                                                                     \
    case R:                                                                                         \
        if (BITS == 16)                                                                             \
            multiply_tile16<R>(w, block, (const uint16_t*)s.codes + at, to, y_stride, add);         \
        else                                                                                        \
            multiply_tile<BITS, R>(w, block, s.codes + at, scales, to, y_stride, add);              \
        break;
            CASE(1) CASE(2) CASE(3)
#ifdef __AVX512F__
            CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
#endif
#undef CASE
        }
        row += count;
    }
}

#ifdef __AMX_INT8__

// AMX multiplies tiles: up to 16 rows of 64 bytes of inputs, and 16 outputs with as many inputs, which lie as codes of
// 8 bits and bfloat16 do. Sums of integers are the same as above. Those of bfloat16 are not, so all rows are computed in
// this way.
constexpr int kTileRows = 16;
constexpr int kSlab = 1024;  // inputs whose codes are laid out at once, in the first-level cache

// Linux asks for a request before a process's first tile.
const bool kTilesAllowed = syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* XTILEDATA */) == 0;

template <int TILE>
inline void tile_zero() { asm volatile("tilezero %%tmm%c0" ::"i"(TILE)); }
template <int TILE>
inline void tile_load(const void* from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(TILE) : "memory");
}
template <int TILE>
inline void tile_store(void* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(TILE) : "memory");
}
template <int SUMS, int INPUTS, int WEIGHTS>
inline void tile_dot_codes() {  // signed inputs, unsigned codes
    asm volatile("tdpbsud %%tmm%c0, %%tmm%c1, %%tmm%c2" ::"i"(WEIGHTS), "i"(INPUTS), "i"(SUMS));
}
template <int SUMS, int INPUTS, int WEIGHTS>
inline void tile_dot16() {
    asm volatile("tdpbf16ps %%tmm%c0, %%tmm%c1, %%tmm%c2" ::"i"(WEIGHTS), "i"(INPUTS), "i"(SUMS));
}

// Tiles 0 and 1 are sums of `upper` rows, 2 and 3 of `lower` rows; 4 and 5 are their inputs, 6 and 7 weights.
void shape_tiles(int upper, int lower, int input_bytes) {
    struct alignas(64) {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t row_bytes[16] = {};
        uint8_t rows[16] = {};
    } shapes;
    for (int tile = 0; tile < 8; tile++) {
        const bool is_lower = tile == 2 || tile == 3 || tile == 5;
        shapes.rows[tile] = tile >= 6 ? input_bytes / 4 : is_lower ? lower : upper;
        shapes.row_bytes[tile] = tile == 4 || tile == 5 ? input_bytes : 64;
    }
    asm volatile("ldtilecfg %0" ::"m"(shapes) : "memory");
}

// What a thread has in tiles is saved wherever it is interrupted, until it lets them go.
inline void release_tiles() {
    if (kTilesAllowed) asm volatile("tilerelease");
}

// Codes of 4 bits as if they were of 8: `inputs` of 16 outputs.
inline void unpack_codes(const uint8_t* codes, int inputs, uint8_t* to) {
    for (int i = 0; i < inputs; i += 8, codes += 64, to += 128) {
        const B64 both = load<B64>(codes);
        store(to, both & 15);
        store(to + 64, (B64)((I16)both >> 4) & 15);
    }
}

// A block of outputs for `rows` rows, a multiple of 16 and at most kRowsAtOnce. Codes of 4 bits are laid out as 8.
template <int BITS>
void multiply_tiles(const Matrix& w, int block, int rows, const int8_t* x, const float* scales, float* y,
                    int64_t y_stride, bool add) {
    alignas(64) static thread_local uint8_t slab[kSlab * kOutputs];
    alignas(64) static thread_local F16 outs[kRowsAtOnce];
    alignas(64) I16 sums[2][kTileRows];
    const int groups = w.inputs / w.group, step = w.group < 64 ? w.group : 64;
    const uint8_t* codes = w.codes + (int64_t)block * w.inputs * kOutputs * BITS / 8;
    const uint16_t* affine = w.affine + (int64_t)block * groups * 32;
    for (int begin = 0; begin < groups; begin += kSlab / w.group) {
        const int end = begin + kSlab / w.group < groups ? begin + kSlab / w.group : groups;
        const uint8_t* laid_out = codes + (int64_t)begin * w.group * kOutputs;
        if (BITS == 4) {
            unpack_codes(codes + (int64_t)begin * w.group * kOutputs / 2, (end - begin) * w.group, slab);
            laid_out = slab;
        }
        for (int row = 0; row < rows; row += kTileRows) {
            F16 out[kTileRows];
#pragma GCC unroll 16
            for (int r = 0; r < kTileRows; r++) out[r] = begin ? outs[row + r] : F16{};
            for (int g = begin; g < end; g++) {
                const uint8_t* of_group = laid_out + (int64_t)(g - begin) * w.group * kOutputs;
                I16* found = sums[g % 2];
                tile_zero<0>();
                for (int k = 0; k < w.group; k += step) {
                    tile_load<4>(x + (int64_t)row * w.inputs + g * w.group + k, w.inputs);
                    tile_load<6>(of_group + k * kOutputs, 64);
                    tile_dot_codes<0, 4, 6>();
                }
                tile_store<0>(found, 64);
                const F16 scale = half16(affine + g * 32), offset = half16(affine + g * 32 + 16);
                const float* of_row = scales + ((int64_t)row * groups + g) * 2;
#pragma GCC unroll 16
                for (int r = 0; r < kTileRows; r++, of_row += 2 * groups)
                    out[r] = add_group(out[r], found[r], scale, offset, of_row);
            }
#pragma GCC unroll 16
            for (int r = 0; r < kTileRows; r++) outs[row + r] = out[r];
        }
    }
    for (int r = 0; r < rows; r++) write_outputs(w, block, outs[r], y + r * y_stride, add);
}

// One block of outputs, or two, for up to 16 rows, or for 16 and as many more as the tiles are shaped for.
template <bool TWO_BLOCKS, bool LOWER>
void multiply_tiles16(const Matrix& w, int block, int rows, const uint16_t* x, float* y, int64_t y_stride, bool add) {
    const int64_t stride = (int64_t)w.inputs * 2, block_bytes = stride * kOutputs;
    const uint8_t* weights = w.codes + block * block_bytes;
    tile_zero<0>();
    tile_zero<1>();
    tile_zero<2>();
    tile_zero<3>();
    for (int k = 0; k < w.inputs; k += 32, weights += 32 * kOutputs * 2) {
        tile_load<4>(x + k, stride);
        tile_load<6>(weights, 64);
        tile_dot16<0, 4, 6>();
        if (TWO_BLOCKS) {
            tile_load<7>(weights + block_bytes, 64);
            tile_dot16<1, 4, 7>();
        }
        if (LOWER) {
            tile_load<5>(x + kTileRows * w.inputs + k, stride);
            tile_dot16<2, 5, 6>();
            if (TWO_BLOCKS) tile_dot16<3, 5, 7>();
        }
    }
    alignas(64) F16 out[4][kTileRows];
    tile_store<0>(out[0], 64);
    tile_store<1>(out[1], 64);
    if (LOWER) {
        tile_store<2>(out[2], 64);
        tile_store<3>(out[3], 64);
    }
    for (int r = 0; r < rows; r++)
        for (int i = 0; i <= TWO_BLOCKS; i++)
            write_outputs(w, block + i, out[r / kTileRows * 2 + i][r % kTileRows], y + r * y_stride, add);
}

// Blocks of outputs from `begin` to `end` for `rows` rows of bfloat16.
void multiply_blocks16(const Matrix& w, int begin, int end, int rows, const uint16_t* x, float* y, int64_t y_stride,
                       bool add) {
    for (int block = begin, shaped = 0; block < end; block += 2)
        for (int row = 0; row < rows; row += 2 * kTileRows) {
            const int count = rows - row < 2 * kTileRows ? rows - row : 2 * kTileRows;
            const int upper = count < kTileRows ? count : kTileRows, lower = count - upper;
            if (count != shaped) shape_tiles(upper, lower ? lower : 1, 64);
            shaped = count;
            const bool two = block + 1 < end;
            const auto compute = two ? lower ? multiply_tiles16<true, true> : multiply_tiles16<true, false>
                                 : lower ? multiply_tiles16<false, true> : multiply_tiles16<false, false>;
            compute(w, block, count, x + (int64_t)row * w.inputs, y + row * y_stride, y_stride, add);
        }
}

// Blocks of outputs for those rows that fill tiles; their number.
int multiply_full_tiles(const Matrix& w, int begin, int end, int rows, const int8_t* x, const float* scales, float* y,
                        int64_t y_stride, bool add) {
    const int full = rows / kTileRows * kTileRows;
    if (full) shape_tiles(kTileRows, kTileRows, w.group < 64 ? w.group : 64);
    for (int block = begin; full && block < end; block++)
        (w.bits == 4 ? multiply_tiles<4> : multiply_tiles<8>)(w, block, full, x, scales, y, y_stride, add);
    return full;
}
#else
inline void release_tiles() {}
#endif

// y [rows, outputs] of rounded inputs, or added to what is there. Called by all threads; each computes its outputs.
void multiply(const Matrix& w, int rows, const Step& s, float* y, int64_t y_stride, bool add) {
    const int thread = omp_get_thread_num(), threads = omp_get_num_threads(), blocks = w.outputs / kOutputs;
    const int begin = (int64_t)blocks * thread / threads, end = (int64_t)blocks * (thread + 1) / threads;
    for (int row = 0; row < rows; row += kRowsAtOnce) {
        int first = row, count = rows - row < kRowsAtOnce ? rows - row : kRowsAtOnce;
#ifdef __AMX_INT8__
        if (kTilesAllowed) {
            const int64_t at = (int64_t)row * w.inputs;
            float* to = y + row * y_stride;
            if (w.bits == 16) {
                multiply_blocks16(w, begin, end, count, (const uint16_t*)s.codes + at, to, y_stride, add);
                continue;
            }
            const float* scales = s.scales + at / w.group * 2;
            const int done = multiply_full_tiles(w, begin, end, count, s.codes + at, scales, to, y_stride, add);
            first += done, count -= done;
        }
#endif
        for (int block = begin; block < end; block++) {  // its weights stay near for all rows
            if (w.bits == 4)
                multiply_block<4>(w, block, count, s, first, y, y_stride, add);
            else if (w.bits == 8)
                multiply_block<8>(w, block, count, s, first, y, y_stride, add);
            else
                multiply_block<16>(w, block, count, s, first, y, y_stride, add);
        }
    }
}

inline float norm_factor(const float* x, int size, float eps) {
    F16 squares = {};
    for (int i = 0; i < size; i += 16) squares = fma(load<F16>(x + i), load<F16>(x + i), squares);
    return 1.0f / sqrtf(sum(squares) / size + eps);
}

// Rows of x, normalized, as inputs of `w`.
void norm_round(const float* x, int rows, const float* weight, float eps, const Matrix& w, const Step& s) {
    float scratch[kWidestGroup];
    const int size = w.inputs, group = w.group;
#pragma omp for schedule(static)
    for (int row = 0; row < rows; row++) {
        const float* from = x + (int64_t)row * size;
        const F16 factor = splat(norm_factor(from, size, eps));
        for (int g = 0; g < size; g += group) {
            for (int i = 0; i < group; i += 16)
                store(scratch + i, inputs16(w, from, g + i) * factor * inputs16(w, weight, g + i));
            round_for(w, scratch, ((int64_t)row * size + g) / group, s);
        }
    }
}

// silu(gate) * up of rows [gate, up], as inputs of `w`.
void silu_round(const float* gate_up, int rows, const Matrix& w, const Step& s) {
    float scratch[kWidestGroup];
    const int inner = w.inputs, group = w.group, groups = inner / group;
#pragma omp for schedule(static)
    for (int item = 0; item < rows * groups; item++) {
        const float* gate = gate_up + (int64_t)(item / groups) * 2 * inner;
        const int g = item % groups * group;
        for (int i = 0; i < group; i += 16) {
            const F16 x = inputs16(w, gate, g + i), up = inputs16(w, gate + inner, g + i);
            store(scratch + i, x / (splat(1.0f) + exp16(-max(x, splat(-87.0f)))) * up);
        }
        round_for(w, scratch, item, s);
    }
}

inline void rotate(float* x, int size, const float* cos, const float* sin) {
    const int half = size / 2;
    for (int i = 0; i < half; i++) {
        const float a = x[i], b = x[i + half];
        x[i] = fma(b, sin[i], a * cos[i]);
        x[i + half] = fma(a, sin[i + half], b * cos[i + half]);
    }
}

inline void norm_head(float* x, int size, const float* weight, float eps) {
    const float factor = norm_factor(x, size, eps);
    for (int i = 0; i < size; i++) x[i] = x[i] * factor * weight[i];
}

// A head's keys in a block of the cache: the first of block_size vectors. Heads of values follow those of keys.
inline int64_t vectors(const Model& m, int64_t block, int head) {
    return (block * 2 * m.kv_heads + head) * m.block_size;
}

inline void prefetch(const void* from, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch((const char*)from + i);
}

// Kinds of cache. Each writes the vector `at`, reads it as numbers that attention takes, in place or in `room` of
// head_dim, and fetches a tile of vectors ahead. Those that round do it as quant/kv.py does.

template <class T>
struct Plain {
    using Number = T;
    static constexpr bool kSpreads = false;  // whether queries and keys are multiplied by a Hadamard matrix

    static T* vector(const Model& m, const Layer& layer, int64_t at) { return (T*)layer.cache + at * m.head_dim; }
    static void write(const Model& m, const Layer& layer, int64_t at, const float* x) {
        T* to = vector(m, layer, at);
        for (int i = 0; i < m.head_dim; i++) write1(to + i, x[i]);
    }
    static const T* read(const Model& m, const Layer& layer, int64_t at, T*) { return vector(m, layer, at); }
    static void prefetch_tile(const Model& m, const Layer& layer, int64_t at) {
        prefetch(vector(m, layer, at), kTile * m.head_dim * sizeof(T));
    }
};

// What codes are read as: what the fastest kernels take. Rounding to bfloat16 adds little to the error of 8 bits.
#ifdef __AVX512BF16__
using Decoded = uint16_t;
inline void write16(uint16_t* to, F16 x) { store(to, _mm512_cvtneps_pbh((__m512)x)); }
#else
using Decoded = float;
inline void write16(float* to, F16 x) { store(to, x); }
#endif

constexpr float kTiny = 1.0f / (1 << 24);  // the smallest scale that divides

inline float half1(const void* x) { return _cvtsh_ss(load<uint16_t>(x)); }
inline uint16_t to_half(float x) { return _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT); }
inline float largest(float a, float b) { return a > b ? a : b; }

// x / scale as whole numbers, ties to even, `least` to `most`.
inline I16 codes16(F16 x, float scale, int least, int most) {
    const F16 shift = splat(12582912.0f);
    const I16 code = (I16)(x / splat(scale) + shift) - (I16)shift;
    return code < least ? least - I16{} : code > most ? most - I16{} : code;
}

struct Int8 {  // code * scale
    using Number = Decoded;
    static constexpr bool kSpreads = false;

    static int8_t* codes(const Model& m, const Layer& layer, int64_t at) {
        return (int8_t*)layer.cache + at * m.head_dim;
    }
    static void write(const Model& m, const Layer& layer, int64_t at, const float* x) {
        F16 size = {};
        for (int i = 0; i < m.head_dim; i += 16) size = max(size, (F16)(load<I16>(x + i) & 0x7fffffff));
        layer.cache_scales[at] = to_half(largest(largest(size) * (1.0f / 127), kTiny));
        const float scale = half1(layer.cache_scales + at);
        int8_t* to = codes(m, layer, at);
        for (int i = 0; i < m.head_dim; i += 16) write16(to + i, codes16(load<F16>(x + i), scale, -127, 127));
    }
    static const Number* read(const Model& m, const Layer& layer, int64_t at, Number* room) {
        const int8_t* from = codes(m, layer, at);
        const F16 scale = splat(half1(layer.cache_scales + at));
        for (int i = 0; i < m.head_dim; i += 16) write16(room + i, floats16(load<__m128i>(from + i)) * scale);
        return room;
    }
    static void prefetch_tile(const Model& m, const Layer& layer, int64_t at) {
        prefetch(codes(m, layer, at), kTile * m.head_dim);
        prefetch(layer.cache_scales + at, kTile * sizeof(uint16_t));
    }
};

// Multiplies by the matrix of `hadamard` in quant/kv.py: blocks of the largest power of two in `size`, at least 16.
inline void hadamard(float* x, int size) {
    const int block = size & -size;
    const F16 factor = splat(1.0f / sqrtf((float)block));
    const I16 places = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    for (int i = 0; i < size; i += 16) {
        F16 y = load<F16>(x + i) * factor;
        for (int half = 1; half < 16; half *= 2) {
            const F16 other = __builtin_shuffle(y, places ^ half);
            y = (places & half) ? other - y : y + other;
        }
        store(x + i, y);
    }
    for (int half = 16; half < block; half *= 2)
        for (int i = 0; i < size; i += 16) {
            if (i & half) continue;
            const F16 a = load<F16>(x + i), b = load<F16>(x + i + half);
            store(x + i, a + b);
            store(x + i + half, a - b);
        }
}

// code * scale + minimum: a record of head_dim / 2 bytes of codes, the earlier in the low nibble; scale; minimum.
struct Int4 {
    using Number = Decoded;
    static constexpr bool kSpreads = true;

    static int record(const Model& m) { return m.head_dim / 2 + 4; }
    static uint8_t* codes(const Model& m, const Layer& layer, int64_t at) {
        return (uint8_t*)layer.cache + at * record(m);
    }
    static void write(const Model& m, const Layer& layer, int64_t at, const float* x) {
        F16 high = load<F16>(x), negative = -high;
        for (int i = 16; i < m.head_dim; i += 16) {
            high = max(high, load<F16>(x + i));
            negative = max(negative, -load<F16>(x + i));
        }
        uint8_t* to = codes(m, layer, at);
        uint8_t* affine = to + m.head_dim / 2;
        store(affine + 2, to_half(-largest(negative)));
        const float minimum = half1(affine + 2);
        store(affine, to_half(largest((largest(high) - minimum) / 15, kTiny)));
        const float scale = half1(affine);
        for (int i = 0; i < m.head_dim; i += 16) {
            int8_t each[16];
            write16(each, codes16(load<F16>(x + i) - splat(minimum), scale, 0, 15));
            const __m128i pairs = _mm_maddubs_epi16(load<__m128i>(each), _mm_set1_epi16(0x1001));  // first + 16 second
            _mm_storel_epi64((__m128i*)(to + i / 2), _mm_packus_epi16(pairs, pairs));
        }
    }
    static const Number* read(const Model& m, const Layer& layer, int64_t at, Number* room) {
        const uint8_t* from = codes(m, layer, at);
        const uint8_t* affine = from + m.head_dim / 2;
        const F16 scale = splat(half1(affine)), minimum = splat(half1(affine + 2));
#ifdef __AVX512BF16__
        const F16 all = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        const __m256i table = (__m256i)_mm512_cvtneps_pbh((__m512)fma(all, scale, minimum));
        for (int i = 0; i < m.head_dim; i += 16) {  // of a place in the table, the low 4 bits count
            const __m256i pairs = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)(from + i / 2)));
            const __m256i places = _mm256_or_si256(pairs, _mm256_slli_epi32(pairs, 12));
            _mm256_storeu_si256((__m256i*)(room + i), _mm256_permutexvar_epi16(places, table));
        }
#else
        for (int i = 0; i < m.head_dim; i += 16) {
            const __m128i pairs = _mm_loadl_epi64((const __m128i*)(from + i / 2)), nibble = _mm_set1_epi8(15);
            const __m128i low = _mm_and_si128(pairs, nibble), high = _mm_and_si128(_mm_srli_epi16(pairs, 4), nibble);
            write16(room + i, fma(floats16(_mm_unpacklo_epi8(low, high)), scale, minimum));
        }
#endif
        return room;
    }
    static void prefetch_tile(const Model& m, const Layer& layer, int64_t at) {
        prefetch(codes(m, layer, at), kTile * record(m));
    }
};

// Rotates queries and keys of all rows in place and stores keys and values.
template <class Cache>
void rotate_store(const Model& m, const Layer& layer, const Step& s) {
    const int all = m.heads + 2 * m.kv_heads, size = m.head_dim;
#pragma omp for schedule(static)
    for (int item = 0; item < s.rows * all; item++) {
        const int row = item / all, head = item % all;
        const int64_t position = s.positions[row];
        float* x = s.qkv + (int64_t)item * size;
        if (head < m.heads + m.kv_heads) {
            const float* weight = head < m.heads ? layer.q_norm : layer.k_norm;
            if (weight) norm_head(x, size, weight, m.eps);
            rotate(x, size, m.cos + position * size, m.sin + position * size);
            if (Cache::kSpreads) hadamard(x, size);
        }
        if (head < m.heads) continue;
        const int64_t found = s.tables[(int64_t)s.sequence[row] * s.table_width + position / m.block_size];
        Cache::write(m, layer, vectors(m, found, head - m.heads) + position % m.block_size, x);
    }
}

// Scores of the keys of a tile for G queries of `size` numbers.
template <int G, class T>
inline void score(const float* q, int size, const T* const* keys, F16* scores) {
    F16 sums[G][kTile];
    for (int t = 0; t < kTile; t++) {
        for (int g = 0; g < G; g++) sums[g][t] = F16{};
        for (int d = 0; d < size; d += 16) {
            const F16 key = read16(keys[t] + d);
            for (int g = 0; g < G; g++) sums[g][t] = fma(load<F16>(q + g * size + d), key, sums[g][t]);
        }
    }
    for (int g = 0; g < G; g++) scores[g] = sums16(sums[g]);
}

#ifdef __AVX512BF16__
// Pairs of bfloat16 are multiplied and added in one instruction; queries are rounded to it.
template <int G>
inline void score(const float* q, int size, const uint16_t* const* keys, F16* scores) {
    constexpr int kMost = 8;  // vectors of 32 numbers
    __m512bh queries[G][kMost];
    const int vectors = size / 32;
    if (size % 32 || vectors > kMost) return score<G, uint16_t>(q, size, keys, scores);
    for (int g = 0; g < G; g++)
        for (int i = 0; i < vectors; i++) {
            const float* at = q + g * size + 32 * i;
            queries[g][i] = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(at + 16), _mm512_loadu_ps(at));
        }
    F16 sums[G][kTile];
    for (int t = 0; t < kTile; t++) {
        __m512 of_token[G] = {};
        for (int i = 0; i < vectors; i++) {
            const __m512bh key = load<__m512bh>(keys[t] + 32 * i);
            for (int g = 0; g < G; g++) of_token[g] = _mm512_dpbf16_ps(of_token[g], queries[g][i], key);
        }
        for (int g = 0; g < G; g++) sums[g][t] = (F16)of_token[g];
    }
    for (int g = 0; g < G; g++) scores[g] = sums16(sums[g]);
}
#endif

// Adds the values of `count` tokens, weighted, to `keep` times what G query heads have found, [G, size + 2].
template <int G, class T>
inline void add_values(const T* const* values, const float (*weights)[kTile], const float* keep, int size, int count,
                       float* out) {
    for (int d = 0; d < size; d += 16) {
        F16 sums[G];
        for (int g = 0; g < G; g++) sums[g] = load<F16>(out + g * (size + 2) + d) * splat(keep[g]);
        for (int t = 0; t < count; t++) {
            const F16 value = read16(values[t] + d);
            for (int g = 0; g < G; g++) sums[g] = fma(splat(weights[g][t]), value, sums[g]);
        }
        for (int g = 0; g < G; g++) store(out + g * (size + 2) + d, sums[g]);
    }
}

#ifdef __AVX512BF16__
// Two tokens at once; weights are rounded to bfloat16. Those of tokens that are not there are 0.
template <int G>
inline void add_values(const uint16_t* const* values, const float (*weights)[kTile], const float* keep, int size,
                       int count, float* out) {
    if (size % 32) return add_values<G, uint16_t>(values, weights, keep, size, count, out);
    const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i second = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    uint32_t pairs[G][kTile / 2];
    for (int g = 0; g < G; g++) store(pairs[g], _mm512_cvtneps_pbh(_mm512_loadu_ps(weights[g])));
    for (int d = 0; d < size; d += 32) {
        __m512 low[G] = {}, high[G] = {};  // of each 8 outputs the first 4, and the others
        for (int t = 0; t < count; t += 2) {
            const __m512i even = load<__m512i>(values[t] + d), odd = load<__m512i>(values[t + 1] + d);
            const __m512bh left = (__m512bh)_mm512_unpacklo_epi16(even, odd);
            const __m512bh right = (__m512bh)_mm512_unpackhi_epi16(even, odd);
            for (int g = 0; g < G; g++) {
                const __m512bh pair = (__m512bh)_mm512_set1_epi32(pairs[g][t / 2]);
                low[g] = _mm512_dpbf16_ps(low[g], left, pair);
                high[g] = _mm512_dpbf16_ps(high[g], right, pair);
            }
        }
        for (int g = 0; g < G; g++) {
            float* to = out + g * (size + 2) + d;
            const F16 sums[2] = {(F16)_mm512_permutex2var_ps(low[g], first, high[g]),
                                 (F16)_mm512_permutex2var_ps(low[g], second, high[g])};
            for (int i = 0; i < 2; i++) store(to + 16 * i, fma(load<F16>(to + 16 * i), splat(keep[g]), sums[i]));
        }
    }
}
#endif

// Adds a tile to what G query heads have found, [G, head_dim + 2] of `partial`; q: their queries.
template <int G, class T>
inline void attend_tile(const float* q, int size, const T* const* keys, const T* const* values, int skipped, int count,
                        float* out) {
    const F16 factor = splat(1.0f / sqrtf((float)size));
    const I16 places = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const I16 hidden = (places < skipped) | (places >= count);
    F16 scores[G];
    score<G>(q, size, keys, scores);
    float keep[G], weights[G][kTile];
    for (int g = 0; g < G; g++) {
        float &most = out[g * (size + 2) + size], &total = out[g * (size + 2) + size + 1];
        const F16 found = hidden ? splat(-INFINITY) : scores[g] * factor;
        const float before = most, now = largest(found);
        most = now > before ? now : before;
        keep[g] = before == most ? 1.0f : expf(before - most);
        const F16 weight = exp16(found - splat(most));
        store(weights[g], weight);
        total = fma(total, keep[g], sum(weight));
    }
    add_values<G>(values, weights, keep, size, count, out);
}

// One query row over one piece of the context, for all query heads of a key-value head: codes are read once for these.
template <class Cache>
void attend_piece(const Model& m, const Layer& layer, const Step& s, int row, int kv_head, int piece) {
    using T = typename Cache::Number;
    const int size = m.head_dim, group = m.heads / m.kv_heads, head = kv_head * group;
    const int64_t position = s.positions[row], begin = (int64_t)piece * kSplit;
    const int64_t first = layer.window && position + 1 > layer.window ? position + 1 - layer.window : 0;
    const int64_t end = position + 1 < begin + kSplit ? position + 1 : begin + kSplit;
    const int64_t to_value = (int64_t)m.kv_heads * m.block_size;  // vectors from a key to its value
    const int32_t* table = s.tables + (int64_t)s.sequence[row] * s.table_width;
    const float* q = s.qkv + ((int64_t)row * (m.heads + 2 * m.kv_heads) + head) * size;
    float* out = s.partial + ((int64_t)(s.split_start[row] + piece) * m.heads + head) * (size + 2);
    alignas(64) T key_room[kTile * kWidestHead], value_room[kTile * kWidestHead];
    for (int g = 0; g < group; g++) {
        memset(out + g * (size + 2), 0, (size + 2) * sizeof(float));
        out[g * (size + 2) + size] = -INFINITY;
    }
    for (int64_t tile = begin; tile < end; tile += kTile) {
        if (tile + kTile <= first) continue;
        const int count = end - tile < kTile ? end - tile : kTile, skipped = first > tile ? first - tile : 0;
        const T *keys[kTile], *values[kTile];
        uint32_t block = tile / m.block_size, offset = tile % m.block_size;
        for (int t = 0; t < count; t++) {
            if (t && ++offset == (uint32_t)m.block_size) block++, offset = 0;
            const int64_t at = vectors(m, table[block], kv_head) + offset;
            keys[t] = Cache::read(m, layer, at, key_room + t * size);
            values[t] = Cache::read(m, layer, at + to_value, value_room + t * size);
        }
        for (int t = count; t < kTile; t++) keys[t] = keys[t - 1], values[t] = values[t - 1];  // hidden
        if (offset + 1 == (uint32_t)m.block_size && tile + kTile < end) {  // what comes next lies elsewhere
            const int64_t next = vectors(m, table[block + 1], kv_head);
            Cache::prefetch_tile(m, layer, next);
            Cache::prefetch_tile(m, layer, next + to_value);
        }
        const auto add = [&](auto heads, int g) {
            constexpr int G = decltype(heads)::value;
            attend_tile<G>(q + g * size, size, keys, values, skipped, count, out + g * (size + 2));
        };
        int g = 0;
        for (; g + 4 <= group; g += 4) add(std::integral_constant<int, 4>{}, g);
        if (group - g == 3) add(std::integral_constant<int, 3>{}, g);
        if (group - g == 2) add(std::integral_constant<int, 2>{}, g);
        if (group - g == 1) add(std::integral_constant<int, 1>{}, g);
    }
}

template <class Cache>
void attend(const Model& m, const Layer& layer, const Step& s) {
    const int pieces = s.split_start[s.single];
#pragma omp for schedule(dynamic)
    for (int item = 0; item < pieces * m.kv_heads; item++) {
        const int found = item / m.kv_heads, kv_head = item % m.kv_heads;
        int low = 0, high = s.single;  // the row with split_start[row] <= found < split_start[row + 1]
        while (high - low > 1) {
            const int middle = (low + high) / 2;
            (s.split_start[middle] <= found ? low : high) = middle;
        }
        attend_piece<Cache>(m, layer, s, low, kv_head, found - s.split_start[low]);
    }
    const int size = m.head_dim;
#pragma omp for schedule(static)
    for (int item = 0; item < s.single * m.heads; item++) {
        const int row = item / m.heads, head = item % m.heads;
        const int64_t stride = (int64_t)m.heads * (size + 2);
        const float* from = s.partial + s.split_start[row] * stride + head * (size + 2);
        const int count = s.split_start[row + 1] - s.split_start[row];
        float most = -INFINITY, total = 0;
        for (int i = 0; i < count; i++) most = from[i * stride + size] > most ? from[i * stride + size] : most;
        float* to = s.attention + (int64_t)item * size;
        memset(to, 0, size * sizeof(float));
        for (int i = 0; i < count; i++) {
            const float* piece = from + i * stride;
            const float factor = expf(piece[size] - most);
            total = fma(factor, piece[size + 1], total);
            for (int d = 0; d < size; d += 16)
                store(to + d, fma(splat(factor), load<F16>(piece + d), load<F16>(to + d)));
        }
        for (int d = 0; d < size; d += 16) store(to + d, load<F16>(to + d) / splat(total));
    }
}

// Keys and values of up to kSpan tokens, laid out for many queries: float32, or pairs that one instruction multiplies.
constexpr int kSpan = 64, kQueries = 64;

#ifdef __AVX512BF16__
// Makes columns of the rows of 16 x 16 numbers of 32 bits.
inline void transpose16(__m512i* x) {
    __m512i y[16];
    for (int i = 0; i < 16; i += 2) {
        y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {  // now quarter q of x[i + c] is column 4 q + c of rows i to i + 3
        x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
        x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
        x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
        x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
    }
    for (int c = 0; c < 4; c++) {
        const __m512i even0 = _mm512_shuffle_i32x4(x[c], x[c + 4], 0x88);
        const __m512i odd0 = _mm512_shuffle_i32x4(x[c], x[c + 4], 0xdd);
        const __m512i even8 = _mm512_shuffle_i32x4(x[c + 8], x[c + 12], 0x88);
        const __m512i odd8 = _mm512_shuffle_i32x4(x[c + 8], x[c + 12], 0xdd);
        y[c] = _mm512_shuffle_i32x4(even0, even8, 0x88);
        y[c + 4] = _mm512_shuffle_i32x4(odd0, odd8, 0x88);
        y[c + 8] = _mm512_shuffle_i32x4(even0, even8, 0xdd);
        y[c + 12] = _mm512_shuffle_i32x4(odd0, odd8, 0xdd);
    }
    memcpy(x, y, sizeof y);
}

struct PairSpan {  // of bfloat16
    uint32_t keys[kWidestHead / 2 * kSpan];    // [head_dim / 2, kSpan]: elements 2i and 2i + 1
    uint32_t values[kSpan / 2 * kWidestHead];  // [kSpan / 2, head_dim]: tokens 2i and 2i + 1
    uint32_t queries[kQueries * kWidestHead / 2];
    uint32_t weights[kQueries * kSpan / 2];

    void take_keys(int t, const uint16_t* const* from, int size) {  // of 16 tokens
        int i = 0;
        for (; i + 16 <= size / 2; i += 16) {
            __m512i pairs[16];
            for (int n = 0; n < 16; n++) pairs[n] = load<__m512i>(from[n] + 2 * i);
            transpose16(pairs);
            for (int n = 0; n < 16; n++) store(keys + (i + n) * kSpan + t, pairs[n]);
        }
        for (; i < size / 2; i++)
            for (int n = 0; n < 16; n++) keys[i * kSpan + t + n] = load<uint32_t>(from[n] + 2 * i);
    }
    void take_values(int t, const uint16_t* even, const uint16_t* odd, int size) {
        for (int i = 0; i < size; i++) values[t / 2 * size + i] = even[i] | (uint32_t)odd[i] << 16;
    }
    void take_query(int q, const float* x, int size) {
        for (int i = 0; i < size / 2; i++)
            queries[q * (size / 2) + i] = to_bfloat16(x[2 * i]) | (uint32_t)to_bfloat16(x[2 * i + 1]) << 16;
    }
    void take_weights(int q, int t, F16 x) {
        const __m512i bits = (__m512i)x;  // rounded to the nearest: weights are no NaN, or all is
        const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
        const __m512i wide = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        const __m256i rounded = _mm512_cvtepi32_epi16(_mm512_srli_epi32(wide, 16));
        _mm256_storeu_si256((__m256i*)(weights + q * (kSpan / 2) + t / 2), rounded);
    }
    static F16 multiply(F16 sums, const uint32_t* x, uint32_t y) {
        return (F16)_mm512_dpbf16_ps((__m512)sums, load<__m512bh>(x), (__m512bh)_mm512_set1_epi32(y));
    }
    template <int Q>
    void scores(int q, int size, F16 (*found)[kSpan / 16]) const {  // of Q queries from q on
        F16 sums[Q][kSpan / 16] = {};
        for (int i = 0; i < size / 2; i++)
            for (int v = 0; v < kSpan / 16; v++)
                for (int n = 0; n < Q; n++) {
                    const uint32_t query = queries[(q + n) * (size / 2) + i];
                    sums[n][v] = multiply(sums[n][v], keys + i * kSpan + v * 16, query);
                }
        memcpy(found, sums, sizeof sums);
    }
    template <int Q, int V>
    void add_values(int q, int size, int d, F16 (*sums)[V]) const {  // V vectors of outputs from d on
        for (int i = 0; i < kSpan / 2; i++)
            for (int v = 0; v < V; v++)
                for (int n = 0; n < Q; n++) {
                    const uint32_t weight = weights[(q + n) * (kSpan / 2) + i];
                    sums[n][v] = multiply(sums[n][v], values + i * size + d + 16 * v, weight);
                }
    }
};
#endif

template <class T>
struct FloatSpan {
    float keys[kWidestHead * kSpan];    // [head_dim, kSpan]
    float values[kSpan * kWidestHead];  // [kSpan, head_dim]
    float queries[kQueries * kWidestHead];
    float weights[kQueries * kSpan];

    void take_keys(int t, const T* const* from, int size) {  // of 16 tokens
        for (int n = 0; n < 16; n++)
            for (int i = 0; i < size; i++) keys[i * kSpan + t + n] = read1(from[n] + i);
    }
    void take_values(int t, const T* even, const T* odd, int size) {
        for (int i = 0; i < size; i += 16) {
            store(values + t * size + i, read16(even + i));
            store(values + (t + 1) * size + i, read16(odd + i));
        }
    }
    void take_query(int q, const float* x, int size) { memcpy(queries + q * size, x, size * sizeof(float)); }
    void take_weights(int q, int t, F16 x) { store(weights + q * kSpan + t, x); }
    template <int Q>
    void scores(int q, int size, F16 (*found)[kSpan / 16]) const {
        F16 sums[Q][kSpan / 16] = {};
        for (int i = 0; i < size; i++)
            for (int v = 0; v < kSpan / 16; v++)
                for (int n = 0; n < Q; n++) {
                    const F16 query = splat(queries[(q + n) * size + i]);
                    sums[n][v] = fma(load<F16>(keys + i * kSpan + v * 16), query, sums[n][v]);
                }
        memcpy(found, sums, sizeof sums);
    }
    template <int Q, int V>
    void add_values(int q, int size, int d, F16 (*sums)[V]) const {
        for (int i = 0; i < kSpan; i++)
            for (int v = 0; v < V; v++)
                for (int n = 0; n < Q; n++) {
                    const F16 weight = splat(weights[(q + n) * kSpan + i]);
                    sums[n][v] = fma(load<F16>(values + i * size + d + 16 * v), weight, sums[n][v]);
                }
    }
};

#ifdef __AVX512BF16__
template <class T>
using SpanOf = std::conditional_t<std::is_same<T, uint16_t>::value, PairSpan, FloatSpan<T>>;
#else
template <class T>
using SpanOf = FloatSpan<T>;
#endif

// The queries of rows that follow one another in a sequence, over a key-value head.
struct Block {
    int row, heads, head;  // query q is of row + q / heads and of head + q % heads
    int64_t start;         // position of the first row
    int64_t window;
    float most[kQueries], total[kQueries];

    int64_t position(int q) const { return start + q / heads; }
    int64_t first(int q) const { return window && position(q) + 1 > window ? position(q) + 1 - window : 0; }
    int before(int64_t token) const { return token > start ? (int)(token - start) * heads : 0; }  // queries
    int64_t place(int q, int all) const { return (int64_t)(row + q / heads) * all + head + q % heads; }
};

// The weights of query q over the span that begins at token `begin`, out of its scores; the factor of what was before.
template <class Span>
inline float weigh(const Model& m, Span& span, Block& b, int q, int64_t begin, F16* found) {
    constexpr int V = kSpan / 16;
    const F16 factor = splat(1.0f / sqrtf((float)m.head_dim));
    const I16 places = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const int32_t last = b.position(q) - begin, seen = b.first(q) - begin;
    F16 all = splat(-INFINITY), sums = {};
    for (int v = 0; v < V; v++) {
        const I16 at = places + v * 16, hidden = (at > last) | (at < seen);
        found[v] = hidden ? splat(-INFINITY) : found[v] * factor;
        all = max(all, found[v]);
    }
    const float before = b.most[q], now = largest(all), most = now > before ? now : before;
    b.most[q] = most;
    const float keep = before == most ? 1.0f : expf(before - most);
    for (int v = 0; v < V; v++) {  // nothing seen yet: nothing counts
        const F16 weight = most == -INFINITY ? F16{} : exp16(found[v] - splat(most));
        span.take_weights(q, v * 16, weight);
        sums = sums + weight;
    }
    b.total[q] = fma(b.total[q], keep, sum(sums));
    return keep;
}

// Q queries from q on over a span.
template <int Q, class Span>
inline void attend_queries(const Model& m, const Step& s, Span& span, Block& b, int q, int64_t begin) {
    const int size = m.head_dim;
    F16 found[Q][kSpan / 16];
    span.template scores<Q>(q, size, found);
    float keep[Q];
    for (int n = 0; n < Q; n++) keep[n] = weigh(m, span, b, q + n, begin, found[n]);
    const auto add = [&](auto vectors, int d) {
        constexpr int W = decltype(vectors)::value;
        F16 sums[Q][W];
        float* out[Q];
        for (int n = 0; n < Q; n++) {
            out[n] = s.attention + b.place(q + n, m.heads) * size + d;
            for (int v = 0; v < W; v++) sums[n][v] = load<F16>(out[n] + 16 * v) * splat(keep[n]);
        }
        span.template add_values<Q, W>(q, size, d, sums);
        for (int n = 0; n < Q; n++)
            for (int v = 0; v < W; v++) store(out[n] + 16 * v, sums[n][v]);
    };
    int d = 0;
    for (; d + 64 <= size; d += 64) add(std::integral_constant<int, 4>{}, d);
    for (; d < size; d += 16) add(std::integral_constant<int, 1>{}, d);
}

// All queries over a span, but for those that come before all of its tokens.
template <class Span>
void attend_span(const Model& m, const Step& s, Span& span, Block& b, int queries, int64_t begin) {
    int q = b.before(begin);
    for (; q + 2 <= queries; q += 2) attend_queries<2>(m, s, span, b, q, begin);
    if (q < queries) attend_queries<1>(m, s, span, b, q, begin);
}

#ifdef __AMX_BF16__
// As many as two tiles hold of the `left` queries from `first` on.
inline void attend_tiles(const Model& m, const Step& s, PairSpan& span, Block& b, int first, int left, int64_t begin) {
    constexpr int V = kSpan / 16;
    const int size = m.head_dim, upper = left < kTileRows ? left : kTileRows;
    const int lower = left < 2 * kTileRows ? left - upper : kTileRows;
    const uint32_t *queries = span.queries + first * (size / 2), *weights = span.weights + first * (kSpan / 2);
    shape_tiles(upper, lower ? lower : 1, 64);
    alignas(64) F16 found[2 * kTileRows][V], sums[2 * kTileRows];
    for (int v = 0; v < V; v++) {
        tile_zero<0>();
        tile_zero<2>();
        for (int i = 0; i < size / 2; i += 16) {
            tile_load<4>(queries + i, size * 2);
            tile_load<6>(span.keys + i * kSpan + v * 16, kSpan * 4);
            tile_dot16<0, 4, 6>();
            if (!lower) continue;
            tile_load<5>(queries + kTileRows * (size / 2) + i, size * 2);
            tile_dot16<2, 5, 6>();
        }
        tile_store<0>(&found[0][v], sizeof found[0]);
        if (lower) tile_store<2>(&found[kTileRows][v], sizeof found[0]);
    }
    float keep[2 * kTileRows];
    for (int q = 0; q < upper + lower; q++) keep[q] = weigh(m, span, b, first + q, begin, found[q]);
    for (int d = 0; d < size; d += 16) {
        tile_zero<0>();
        tile_zero<2>();
        for (int i = 0; i < kSpan / 2; i += 16) {
            tile_load<4>(weights + i, kSpan * 2);
            tile_load<6>(span.values + i * size + d, size * 4);
            tile_dot16<0, 4, 6>();
            if (!lower) continue;
            tile_load<5>(weights + kTileRows * (kSpan / 2) + i, kSpan * 2);
            tile_dot16<2, 5, 6>();
        }
        tile_store<0>(sums, 64);
        if (lower) tile_store<2>(sums + kTileRows, 64);
        for (int q = 0; q < upper + lower; q++) {
            float* out = s.attention + b.place(first + q, m.heads) * size + d;
            store(out, fma(load<F16>(out), splat(keep[q]), sums[q]));
        }
    }
}

inline void attend_span(const Model& m, const Step& s, PairSpan& span, Block& b, int queries, int64_t begin) {
    const int size = m.head_dim;
    if (!kTilesAllowed || size % 32) return attend_span<PairSpan>(m, s, span, b, queries, begin);
    for (int q = b.before(begin); q < queries; q += 2 * kTileRows) attend_tiles(m, s, span, b, q, queries - q, begin);
}
#endif

template <class Cache>
void attend_block(const Model& m, const Layer& layer, const Step& s, int row, int rows, int kv_head, int head,
                  int heads) {
    using T = typename Cache::Number;
    const int size = m.head_dim, queries = rows * heads;
    const int64_t values = (int64_t)m.kv_heads * m.block_size;  // vectors from a key to its value
    const int32_t* table = s.tables + (int64_t)s.sequence[row] * s.table_width;
    static thread_local SpanOf<T> span;
    alignas(64) T room[kTile * kWidestHead];
    Block b{row, heads, head, s.positions[row], layer.window, {}, {}};
    const int64_t stop = b.start + rows;
    for (int q = 0; q < queries; q++) {
        b.most[q] = -INFINITY;
        span.take_query(q, s.qkv + b.place(q, m.heads + 2 * m.kv_heads) * size, size);
        memset(s.attention + b.place(q, m.heads) * size, 0, size * sizeof(float));
    }
    for (int64_t begin = b.first(0) / kSpan * kSpan; begin < stop; begin += kSpan) {
        const int tokens = stop - begin < kSpan ? stop - begin : kSpan;
        int64_t keys[kSpan];
        uint32_t block = begin / m.block_size, offset = begin % m.block_size;
        for (int t = 0; t < kSpan; t++) {  // the last stands for those that are not there
            keys[t] = vectors(m, table[block], kv_head) + offset;
            if (t + 1 < tokens && ++offset == (uint32_t)m.block_size) block++, offset = 0;
        }
        for (int t = 0; t < kSpan; t += kTile) {
            const T* read[kTile];
            for (int n = 0; n < kTile; n++) read[n] = Cache::read(m, layer, keys[t + n], room + n * size);
            span.take_keys(t, read, size);
        }
        for (int t = 0; t < kSpan; t += 2)
            span.take_values(t, Cache::read(m, layer, keys[t] + values, room),
                             Cache::read(m, layer, keys[t + 1] + values, room + size), size);
        attend_span(m, s, span, b, queries, begin);
    }
    for (int q = 0; q < queries; q++) {
        float* out = s.attention + b.place(q, m.heads) * size;
        for (int d = 0; d < size; d += 16) store(out + d, load<F16>(out + d) / splat(b.total[q]));
    }
}

template <class Cache>
void attend_blocks(const Model& m, const Layer& layer, const Step& s) {
    const int group = m.heads / m.kv_heads;
#pragma omp for schedule(dynamic)
    for (int item = 0; item < s.blocks * m.kv_heads; item++) {
        const int kv_head = item % m.kv_heads;
        const int32_t* block = s.block_rows + 2 * (s.blocks - 1 - item / m.kv_heads);  // long contexts first
        const int fit = kQueries / group > 0 ? kQueries / group : 1, pieces = (block[1] + fit - 1) / fit;
        for (int piece = 0; piece < pieces; piece++) {
            const int begin = block[1] * piece / pieces, rows = block[1] * (piece + 1) / pieces - begin;
            for (int head = 0; head < group; head += kQueries) {
                const int count = group - head < kQueries ? group - head : kQueries;
                attend_block<Cache>(m, layer, s, block[0] + begin, rows, kv_head, kv_head * group + head, count);
            }
        }
    }
}

// Rows of x as inputs of `w`.
void round_rows(const float* x, int rows, const Matrix& w, const Step& s) {
    float scratch[kWidestGroup];
    const int group = w.group, groups = w.inputs / group;
#pragma omp for schedule(static)
    for (int item = 0; item < rows * groups; item++) {
        const float* from = x + (int64_t)item * group;
        if (w.order) {
            const int g = item % groups * group;
            for (int i = 0; i < group; i += 16) store(scratch + i, inputs16(w, from - g, g + i));
            from = scratch;
        }
        round_for(w, from, item, s);
    }
}

void before_attention(const Model& m, const Layer& layer, const Step& s) {
    norm_round(s.x, s.rows, layer.input_norm, m.eps, layer.qkv, s);
    multiply(layer.qkv, s.rows, s, s.qkv, layer.qkv.outputs, false);
#pragma omp barrier
}

void after_attention(const Model& m, const Layer& layer, const Step& s) {
    round_rows(s.attention, s.rows, layer.o, s);
    multiply(layer.o, s.rows, s, s.x, m.hidden, true);
#pragma omp barrier
    norm_round(s.x, s.rows, layer.post_norm, m.eps, layer.gate_up, s);
    multiply(layer.gate_up, s.rows, s, s.inner, 2 * m.inner, false);
#pragma omp barrier
    silu_round(s.inner, s.rows, layer.down, s);
    multiply(layer.down, s.rows, s, s.x, m.hidden, true);
#pragma omp barrier
}

template <class Cache>
void attention(const Model& m, const Layer& layer, const Step& s) {
    rotate_store<Cache>(m, layer, s);
    attend<Cache>(m, layer, s);
    attend_blocks<Cache>(m, layer, s);
}

void attention(const Model& m, const Layer& layer, const Step& s) {
    switch (m.cache_kind) {
        case kFloat32: return attention<Plain<float>>(m, layer, s);
        case kBFloat16: return attention<Plain<uint16_t>>(m, layer, s);
        case kInt8: return attention<Int8>(m, layer, s);
        case kInt4: return attention<Int4>(m, layer, s);
    }
}

}  // namespace

extern "C" {

// All layers, from x to x.
void run_layers(const Model* m, const Step* s, int32_t layers) {
#pragma omp parallel num_threads(s->threads)
    {
        for (int i = 0; i < layers; i++) {
            before_attention(*m, m->layers[i], *s);
            attention(*m, m->layers[i], *s);
            after_attention(*m, m->layers[i], *s);
        }
        release_tiles();
    }
}

// Logits [rows, head.outputs] of rows x [rows, hidden]; the step is over, and its room is used again.
void run_head(const Model* m, const Step* s, const Matrix* head, const float* norm, int32_t rows, const float* x,
              float* logits) {
#pragma omp parallel num_threads(s->threads)
    {
        norm_round(x, rows, norm, m->eps, *head, *s);
        multiply(*head, rows, *s, logits, head->outputs, false);
        release_tiles();
    }
}

// y [rows, outputs] = x W^T + bias, by itself: of the step, `rows`, `threads`, `codes` and `scales` count.
void run_linear(const Matrix* w, const Step* s, const float* x, float* y) {
#pragma omp parallel num_threads(s->threads)
    {
        round_rows(x, s->rows, *w, *s);
        multiply(*w, s->rows, *s, y, w->outputs, false);
        release_tiles();
    }
}

}  // extern "C"
