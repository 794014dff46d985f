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

#include "attention_blocks.h"
#include "attention_rows.h"
#include "inputs.h"
#include "linear.h"
#include "shared_memory.h"
#include "structs.h"

namespace {

// Calls `work` with the kind of cache that the model has.
template <class Work>
void with_cache(const Model& m, Work work) {
    switch (m.cache_kind) {
        case kFloat32: return work(Plain<float>{});
        case kBFloat16: return work(Plain<uint16_t>{});
        case kInt8: return work(Int8{});
        case kInt4: return work(Int4{});
    }
}

void attention(const Model& m, const Layer& layer, const Step& s) {
    with_cache(m, [&](auto kind) {
        using Cache = decltype(kind);
        if (s.slots)
            store_rows<Cache>(m, layer, s);
        else
            rotate_store<Cache>(m, layer, s);
        attend<Cache>(m, layer, s);
        attend_blocks<Cache>(m, layer, s);
    });
}

void qkv_part(const Model& m, const Layer& layer, const Step& s) {
    norm_round(s.x, s.rows, layer.input_norm, m.eps, layer.qkv, s);
    multiply(layer.qkv, s.rows, s, s.qkv, layer.qkv.outputs, false);
#pragma omp barrier
}

void output_part(const Model& m, const Layer& layer, const Step& s, float* y) {
    round_rows(s.attention, s.rows, m.heads * m.head_dim, layer.o, s);
    multiply(layer.o, s.rows, s, y, m.hidden, y == s.x);
#pragma omp barrier
}

// What attention adds to x, into y [rows, hidden]: onto what is there if that is x itself.
void attention_part(const Model& m, const Layer& layer, const Step& s, float* y) {
    qkv_part(m, layer, s);
    attention(m, layer, s);
    output_part(m, layer, s, y);
}

// The same of the MLP.
void mlp_part(const Model& m, const Layer& layer, const Step& s, float* y) {
    norm_round(s.x, s.rows, layer.post_norm, m.eps, layer.gate_up, s);
    multiply(layer.gate_up, s.rows, s, s.inner, 2 * m.inner, false);
#pragma omp barrier
    silu_round(s.inner, s.rows, layer.down, s);
    multiply(layer.down, s.rows, s, y, m.hidden, y == s.x);
#pragma omp barrier
}

}  // namespace

extern "C" {

// All layers, from x to x. With `sum`, other ranks of this node compute other heads and neurons: each part's share goes
// to `share` [rows, hidden], and the sum of all is added to x. Ends early where a rank is lost.
void run_layers(const Model* m, const Step* s, int32_t layers, Sum* sum, float* share) {
    float* y = sum ? share : s->x;
#pragma omp parallel num_threads(s->threads)
    {
        for (int i = 0; i < 2 * layers && !(sum && sum->waits->lost); i++) {
            (i % 2 ? mlp_part : attention_part)(*m, m->layers[i / 2], *s, y);
            if (sum) sum_shares<true>(*sum, share, s->x, (int64_t)s->rows * m->hidden, sum->ranks);
        }
        release_tiles();
    }
}

// One part of a layer, attention or MLP, of which ranks elsewhere compute other heads or neurons: its share of what is to
// be added to x, into y [rows, hidden].
void run_part(const Model* m, const Step* s, int32_t layer, int32_t is_mlp, float* y) {
#pragma omp parallel num_threads(s->threads)
    {
        (is_mlp ? mlp_part : attention_part)(*m, m->layers[layer], *s, y);
        release_tiles();
    }
}

// Attention of ranks that share the tokens, in three: queries, keys and values of this rank's rows, rotated ...
void run_qkv(const Model* m, const Step* s, int32_t layer) {
#pragma omp parallel num_threads(s->threads)
    {
        qkv_part(*m, m->layers[layer], *s);
        with_cache(*m, [&](auto kind) { rotate_rows<decltype(kind)>(*m, m->layers[layer], *s); });
        release_tiles();
    }
}

// ... of the rows of all ranks, what those keys give that lie here ...
void run_attention(const Model* m, const Step* s, int32_t layer) {
#pragma omp parallel num_threads(s->threads)
    {
        attention(*m, m->layers[layer], *s);
        release_tiles();
    }
}

// ... and of this rank's rows, what attention adds to x, as in run_part.
void run_output(const Model* m, const Step* s, int32_t layer, float* y) {
#pragma omp parallel num_threads(s->threads)
    {
        output_part(*m, m->layers[layer], *s, y);
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
        round_rows(x, s->rows, w->inputs, *w, *s);
        multiply(*w, s->rows, *s, y, w->outputs, false);
        release_tiles();
    }
}

}  // extern "C"
