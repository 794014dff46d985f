// What ranks of one node do through memory that they share: sums over some of them, and messages from one to another.
// The structs are mirrored in structs.py and checked at load (structs.h).
//
// Who writes counts in a word, who reads waits for it. Nobody locks anything, so a rank that is killed leaves nothing
// locked; `ended` lets those go who wait for it.
#pragma once

#include <immintrin.h>
#include <linux/futex.h>
#include <omp.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cstdint>
#include <cstring>

#include "vectors.h"

extern "C" {

// In the shared memory, a cache line of its own.
struct alignas(64) Word {
    std::atomic<uint32_t> value, sleepers;
    uint8_t rest[56];
};

// How one rank waits, and what came of it.
struct Waits {
    const std::atomic<uint32_t>* ended;  // not 0: a rank is gone
    int64_t spin_ns;                     // before it sleeps
    double seconds;                      // spent here
    int32_t lost;                        // not 0: it has not come, and nothing more is done
};

// One rank's place among those who sum.
struct Sum {
    Waits* waits;
    Word* arrived;  // [ranks]: how often each has come to a meeting
    float* slots;   // [2, ranks, slot]: a piece is written into one half while the other may still be read
    int64_t slot;   // numbers, a multiple of 16
    int32_t rank, ranks;
    uint32_t meetings, pieces;  // until now
};

// Messages of one rank to another, in order.
struct Link {
    Waits* waits;
    Word *filled, *emptied;  // slots, until now
    uint8_t* slots;          // [depth, slot]
    int64_t slot;            // bytes
    uint32_t depth;
    uint32_t messages;       // until now
};

}  // extern "C"

namespace {

constexpr int kLooks = 32;                       // between two at the clock
constexpr timespec kNap = {0, 20 * 1000 * 1000};  // after which a sleeper looks whether a rank is gone
constexpr int64_t kSectioned = 4096;             // numbers from which on it pays to meet twice, and read less

inline int64_t now_ns() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ll + now.tv_nsec;
}

inline long futex(std::atomic<uint32_t>* word, int what, uint32_t value, const timespec* most) {
    return syscall(SYS_futex, (uint32_t*)word, what, value, most, nullptr, 0);
}

inline bool reached(const Word& word, uint32_t value) {
    return (int32_t)(word.value.load(std::memory_order_acquire) - value) >= 0;
}

inline void set(Word& word, uint32_t value) {
    word.value.store(value);  // in one order with the look at sleepers, who count themselves before they look at it
    if (word.sleepers.load()) futex(&word.value, FUTEX_WAKE, INT_MAX, nullptr);
}

// Until the word is at `value`. Called by one thread.
void wait(Word& word, uint32_t value, Waits& how) {
    const int64_t until = now_ns() + how.spin_ns;
    do {
        for (int i = 0; i < kLooks; i++, _mm_pause())
            if (reached(word, value)) return;
    } while (now_ns() < until);
    word.sleepers.fetch_add(1);
    while (!reached(word, value) && !how.lost) {
        const uint32_t seen = word.value.load();
        if ((int32_t)(seen - value) < 0) futex(&word.value, FUTEX_WAIT, seen, &kNap);
        if (how.ended->load() && !reached(word, value)) how.lost = 1;
    }
    word.sleepers.fetch_sub(1);
}

// All threads of all ranks have done what comes before, when a thread goes on.
void meet(Sum& s) {
#pragma omp barrier
#pragma omp master
    {
        s.meetings++;
        set(s.arrived[s.rank], s.meetings);
        for (int rank = 0; rank < s.ranks && !s.waits->lost; rank++) wait(s.arrived[rank], s.meetings, *s.waits);
    }
#pragma omp barrier
}

struct Span {
    int64_t begin, end;
};

// One of `parts` of [0, count), whose borders are multiples of 16.
inline Span part_of(int64_t count, int index, int parts) {
    const int64_t vectors = (count + 15) / 16, end = vectors * (index + 1) / parts * 16;
    return {vectors * index / parts * 16, end < count ? end : count};
}

// to = the sum of the first `ranks` slots from number `at` on, or is added to it. Always in the order of the ranks, so
// that all have the same bits.
template <bool add>
void sum_slots(const Sum& s, const float* slots, int ranks, Span span, float* to) {
    int64_t i = span.begin;
    for (; i + 16 <= span.end; i += 16) {
        F16 total = load<F16>(slots + i);
        for (int rank = 1; rank < ranks; rank++) total += load<F16>(slots + rank * s.slot + i);
        store(to + i, add ? load<F16>(to + i) + total : total);
    }
    for (; i < span.end; i++) {
        float total = slots[i];
        for (int rank = 1; rank < ranks; rank++) total += slots[rank * s.slot + i];
        to[i] = add ? to[i] + total : total;
    }
}

// y = the sum over the first `ranks` of x [count], or is added to it; y may be x. Called by all threads.
template <bool add>
void sum_shares(Sum& s, const float* x, float* y, int64_t count, int ranks) {
    const int thread = omp_get_thread_num(), threads = omp_get_num_threads();
    const int64_t began = now_ns();
    uint32_t piece = s.pieces;
    for (int64_t at = 0; at < count && !s.waits->lost; at += s.slot, piece++) {
        const int64_t size = count - at < s.slot ? count - at : s.slot;
        const Span own = part_of(size, thread, threads);
        float* slots = s.slots + (piece & 1) * s.ranks * s.slot;
        if (s.rank < ranks)
            memcpy(slots + s.rank * s.slot + own.begin, x + at + own.begin, (own.end - own.begin) * sizeof(float));
        meet(s);
        if (s.waits->lost) break;
        if (ranks < 3 || size < kSectioned) {
            sum_slots<add>(s, slots, ranks, own, y + at);
            continue;
        }
        // Each rank sums a section, where its own share was; then all read what the others have.
        const Span section = part_of(size, s.rank, ranks);
        const Span mine = part_of(section.end - section.begin, thread, threads);
        float* sums = slots + s.rank * s.slot;
        sum_slots<false>(s, slots, ranks, {section.begin + mine.begin, section.begin + mine.end}, sums);
        meet(s);
        if (s.waits->lost) break;
        for (int rank = 0; rank < ranks; rank++) {
            const Span theirs = part_of(size, rank, ranks);
            const Span from = {theirs.begin > own.begin ? theirs.begin : own.begin,
                               theirs.end < own.end ? theirs.end : own.end};
            sum_slots<add>(s, slots + rank * s.slot, 1, from, y + at);
        }
    }
#pragma omp master
    {
        s.pieces = piece;
        s.waits->seconds += (now_ns() - began) * 1e-9;
    }
#pragma omp barrier
}

}  // namespace

extern "C" {

// x [count] = its sum over the first `ranks` of all; of 1: what the first has.
void sum_over(Sum* s, float* x, int64_t count, int32_t ranks, int32_t threads) {
#pragma omp parallel num_threads(threads)
    sum_shares<false>(*s, x, x, count, ranks);
}

// Send `size` bytes, which fit into a slot. Waits only while `depth` messages have not been fetched.
void post(Link* link, const void* from, int64_t size) {
    const int64_t began = now_ns();
    wait(*link->emptied, link->messages + 1 - link->depth, *link->waits);
    if (!link->waits->lost) {
        memcpy(link->slots + link->messages % link->depth * link->slot, from, size);
        set(*link->filled, ++link->messages);
    }
    link->waits->seconds += (now_ns() - began) * 1e-9;
}

// The next message, of `size` bytes.
void fetch(Link* link, void* to, int64_t size) {
    const int64_t began = now_ns();
    wait(*link->filled, link->messages + 1, *link->waits);
    if (!link->waits->lost) {
        memcpy(to, link->slots + link->messages % link->depth * link->slot, size);
        set(*link->emptied, ++link->messages);
    }
    link->waits->seconds += (now_ns() - began) * 1e-9;
}

}  // extern "C"
