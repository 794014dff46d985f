// y = x W^T of rounded inputs.
#pragma once

#include <omp.h>

#include "linear_tiles.h"

namespace {

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

}  // namespace
