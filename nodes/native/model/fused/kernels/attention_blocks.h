// Attention of rows that follow one another, prompts: keys and values are laid out once for many queries.
#pragma once

#include <type_traits>

#include "cache.h"
#include "linear_tiles.h"

namespace {

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
    Seen sees[kQueries];   // what each row sees
    float most[kQueries], total[kQueries];

    int before(int64_t token) const {  // queries
        int rows = 0;
        while (sees[rows].to <= token) rows++;
        return rows * heads;
    }
    int64_t place(int q, int all) const { return (int64_t)(row + q / heads) * all + head + q % heads; }
};

// The weights of query q over the span that begins at token `begin`, out of its scores; the factor of what was before.
template <class Span>
inline float weigh(const Model& m, Span& span, Block& b, int q, int64_t begin, F16* found) {
    constexpr int V = kSpan / 16;
    const F16 factor = splat(1.0f / sqrtf((float)m.head_dim));
    const I16 places = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const Seen sees = b.sees[q / b.heads];
    const int32_t last = sees.to - 1 - begin, seen = sees.from - begin;
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
    Block b{row, heads, head, {}, {}, {}};
    for (int i = 0; i < rows; i++) b.sees[i] = seen(layer, s, row + i);
    const int64_t stop = b.sees[rows - 1].to;
    for (int q = 0; q < queries; q++) {
        b.most[q] = -INFINITY;
        span.take_query(q, s.qkv + b.place(q, m.heads + 2 * m.kv_heads) * size, size);
        memset(s.attention + b.place(q, m.heads) * size, 0, size * sizeof(float));
    }
    for (int64_t begin = b.sees[0].from / kSpan * kSpan; begin < stop; begin += kSpan) {
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
        if (s.log_sums) s.log_sums[b.place(q, m.heads)] = b.most[q] + logf(b.total[q]);
        for (int d = 0; d < size && b.total[q] > 0; d += 16) store(out + d, load<F16>(out + d) / splat(b.total[q]));
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

}  // namespace
