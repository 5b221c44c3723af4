/* A GPU's threads as threads of this machine: a kernel's code, compiled for it, runs block after
   block, each thread of a block in a thread of its own. Barriers, shuffles and products of tensor
   cores are what the code calls in place of instructions. */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { WARP = 32, MOST_WARPS = 32, MOST_PARAMS = 16, SHARED = 1 << 18 };

typedef void *P;
typedef void (*entry)(P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P);

typedef struct {
    uint32_t words[6];
    float sums[4];
} held;

_Alignas(1024) char shared[SHARED];
static pthread_barrier_t block_barrier, warp_barriers[MOST_WARPS];
static uint32_t exchanged[MOST_WARPS][WARP];
static const uint16_t *matrix_rows[MOST_WARPS][WARP];
static held fragments[MOST_WARPS][WARP];
static _Thread_local uint32_t thread_at[3], block_at[3], lane, warp;

uint32_t sreg_tid_x(void) { return thread_at[0]; }
uint32_t sreg_tid_y(void) { return thread_at[1]; }
uint32_t sreg_tid_z(void) { return thread_at[2]; }
uint32_t sreg_ctaid_x(void) { return block_at[0]; }
uint32_t sreg_ctaid_y(void) { return block_at[1]; }
uint32_t sreg_ctaid_z(void) { return block_at[2]; }

void gpu_barrier(uint32_t number) {
    (void)number;
    pthread_barrier_wait(&block_barrier);
}

uint32_t gpu_shuffle_i32(uint32_t mask, uint32_t x, uint32_t source, uint32_t clamp) {
    (void)mask, (void)clamp;
    exchanged[warp][lane] = x;
    pthread_barrier_wait(&warp_barriers[warp]);
    uint32_t found = exchanged[warp][source];
    pthread_barrier_wait(&warp_barriers[warp]);
    return found;
}

float gpu_shuffle_f32(uint32_t mask, float x, uint32_t source, uint32_t clamp) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    bits = gpu_shuffle_i32(mask, bits, source, clamp);
    memcpy(&x, &bits, 4);
    return x;
}

/* Copies end at once here; the evaluator finds those that are used too early. */
#define COPY(size)                                                                                \
    void gpu_copy_##size##_s(char *to, int32_t at, const char *from, int32_t first,               \
                             uint32_t read) {                                                     \
        memset(to + at, 0, size);                                                                 \
        memcpy(to + at, from + first, read);                                                      \
    }                                                                                             \
    void gpu_copy_##size(char *to, int32_t at, const char *from, int32_t first) {                 \
        gpu_copy_##size##_s(to, at, from, first, size);                                           \
    }
COPY(4)
COPY(8)
COPY(16)

void gpu_copies(void) {}
void gpu_copies_wait(uint32_t pending) { (void)pending; }

uint32_t gpu_tf32(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (bits & 0x7F800000u) == 0x7F800000u ? bits : (bits + 0x1000u) & 0xFFFFE000u;
}

/* Of each matrix thread t gets two elements of 16 bits, side by side, or, transposed, below each
   other. */
void gpu_matrices(uint32_t *out, const uint16_t *row, uint32_t count, uint32_t is_transposed) {
    matrix_rows[warp][lane] = row;
    pthread_barrier_wait(&warp_barriers[warp]);
    for (uint32_t m = 0; m < count; m++)
        for (uint32_t e = 0; e < 2; e++) {
            uint32_t down = lane / 4, along = lane % 4 * 2 + e;
            const uint16_t *at = is_transposed ? matrix_rows[warp][m * 8 + along] + down
                                               : matrix_rows[warp][m * 8 + down] + along;
            out[m] = e ? out[m] | (uint32_t)*at << 16 : *at;
        }
    pthread_barrier_wait(&warp_barriers[warp]);
}

static double half(uint16_t bits) {
    int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    double size = exponent == 31  ? (mantissa ? 0.0 / 0.0 : 1.0 / 0.0)
                  : exponent == 0 ? mantissa / 16777216.0
                                  : (1024 + mantissa) / 33554432.0 * (1u << exponent);
    return bits >> 15 ? -size : size;
}

static double single(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

/* Element (row, k) of the left factor, or (k, row) of the right one, which has one row of words. */
static double element(int kind, int is_left, int row, int k) {
    int first = is_left ? 0 : 4, rows = is_left ? 2 : 1;
    if (kind == 0) {
        const held *from = &fragments[warp][row % 8 * 4 + k % 4];
        return single(from->words[first + row / 8 + rows * (k / 4)] & 0xFFFFE000u);
    }
    const held *from = &fragments[warp][row % 8 * 4 + k % 8 / 2];
    uint16_t bits = (uint16_t)(from->words[first + row / 8 + rows * (k / 8)] >> (k % 2 * 16));
    return kind == 1 ? half(bits) : single((uint32_t)bits << 16);
}

static void multiply(int kind, float *sums) {
    pthread_barrier_wait(&warp_barriers[warp]);
    for (int i = 0; i < 4; i++) {
        int row = (int)lane / 4 + i / 2 * 8, column = (int)lane % 4 * 2 + i % 2;
        double total = 0;
        for (int k = 0; k < (kind ? 16 : 8); k++)
            total += element(kind, 1, row, k) * element(kind, 0, column, k);
        sums[i] = (float)(sums[i] + total);
    }
    pthread_barrier_wait(&warp_barriers[warp]);
}

#define MMA(name, kind)                                                                           \
    void gpu_mma_##name(float *out, uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t e,   \
                        uint32_t f, float s, float t, float u, float v) {                         \
        fragments[warp][lane] = (held){{a, b, c, d, e, f}, {s, t, u, v}};                         \
        out[0] = s, out[1] = t, out[2] = u, out[3] = v;                                           \
        multiply(kind, out);                                                                      \
    }
MMA(tf32, 0)
MMA(f16, 1)
MMA(bf16, 2)

/* Shared memory by its addresses of 18 bits. */
static uint32_t place_of(uint64_t address) {
    return (uint32_t)(address - (uint64_t)(uintptr_t)shared) & (SHARED - 1);
}

static uint32_t swizzled(uint32_t place) { return place ^ (place >> 7 & 7) << 4; }

/* Signals (mbarriers), each known by its place. */
typedef struct {
    int64_t arrivals, left, bytes;
    uint32_t phase;
} signal_state;

static signal_state signals[SHARED / 8];
static pthread_mutex_t signals_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t signals_changed = PTHREAD_COND_INITIALIZER;

void gpu_signal_init(uint32_t at, uint32_t arrivals) {
    signals[place_of(at) / 8] = (signal_state){arrivals, arrivals, 0, 0};
}

static void change_signal(uint32_t at, int64_t arrivals, int64_t bytes) {
    signal_state *s = &signals[place_of(at) / 8];
    pthread_mutex_lock(&signals_lock);
    s->left -= arrivals, s->bytes += bytes;
    if (!s->left && !s->bytes)
        s->left = s->arrivals, s->phase++;
    pthread_cond_broadcast(&signals_changed);
    pthread_mutex_unlock(&signals_lock);
}

void gpu_signal_expect(uint32_t at, uint32_t bytes) { change_signal(at, 1, bytes); }

void gpu_signal_wait(uint32_t at, uint32_t parity) {
    pthread_mutex_lock(&signals_lock);
    while ((signals[place_of(at) / 8].phase & 1) == parity)
        pthread_cond_wait(&signals_changed, &signals_lock);
    pthread_mutex_unlock(&signals_lock);
}

/* A tensor map as gpu_code.py writes it; axes from the inside out, strides in elements. */
typedef struct {
    const char *first;
    int64_t axes, elem_bytes, is_tf32, dims[5], strides[5], box[5];
} tensor_map;

static uint32_t nearest_tf32(uint32_t bits) {
    if ((bits & 0x7F800000u) == 0x7F800000u)
        return bits;
    return (bits + 0xFFFu + (bits >> 13 & 1)) & 0xFFFFE000u;
}

/* The whole box, and then its bytes: nobody sees when within that the hardware brings which. */
void gpu_tile(uint32_t to, const tensor_map *map, uint32_t signal, int32_t a, int32_t b, int32_t c,
              int32_t d, int32_t e) {
    int64_t start[5] = {a, b, c, d, e}, count = 1, size = map->elem_bytes;
    for (int64_t i = 0; i < map->axes; i++)
        count *= map->box[i];
    for (int64_t n = 0; n < count; n++) {
        int64_t rest = n, at = 0, is_inside = 1;
        for (int64_t i = 0; i < map->axes; rest /= map->box[i], i++) {
            int64_t place = start[i] + rest % map->box[i];
            is_inside &= place >= 0 && place < map->dims[i];
            at += place * map->strides[i];
        }
        uint32_t bits = 0;
        if (is_inside)
            memcpy(&bits, map->first + at * size, (size_t)size);
        bits = map->is_tf32 ? nearest_tf32(bits) : bits;
        memcpy(shared + swizzled(place_of(to) + (uint32_t)(n * size)), &bits, (size_t)size);
    }
    change_signal(signal, 0, -count * size);
}

/* Element `along` (depth) of row or column `across` of a factor that a matrix descriptor tells of;
   `is_across`: rows of 128 bytes are the depth. */
static double described(uint64_t descriptor, int kind, int is_across, uint32_t across,
                        uint32_t along) {
    uint32_t size = kind ? 2 : 4, start = place_of((descriptor & 0xFFFF) << 4);
    uint32_t leading = (descriptor >> 16 & 0x3FFF) << 4, stride = (descriptor >> 32 & 0x3FFF) << 4;
    uint32_t row = is_across ? along : across, place = is_across ? across % 64 : along;
    if (descriptor >> 62 != 1)
        abort(); /* not the pattern of 128 bytes */
    start += row / 8 * stride + row % 8 * 128 + place * size + (is_across ? across / 64 * leading : 0);
    uint32_t bits = 0;
    memcpy(&bits, shared + swizzled(start), size);
    return kind == 0   ? single(bits & 0xFFFFE000u)
           : kind == 1 ? half((uint16_t)bits)
                       : single(bits << 16);
}

/* A product of a warpgroup, done at once: the evaluator finds what is touched too early. `words`
   has the left factor in registers, or is NULL. */
void gpu_wgmma(float *sums, const uint32_t *words, uint64_t left, uint64_t right, uint32_t columns,
               int kind, int is_across) {
    if (words) {
        memcpy(fragments[warp][lane].words, words, 16);
        pthread_barrier_wait(&warp_barriers[warp]);
    }
    for (uint32_t i = 0; i < columns / 2; i++) {
        uint32_t row = lane / 4 + i % 4 / 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
        double total = 0;
        for (uint32_t k = 0; k < (kind ? 16 : 8); k++) {
            double a = words ? element(kind, 1, (int)row, (int)k)
                             : described(left, kind, 0, warp % 4 * 16 + row, k);
            total += a * described(right, kind, is_across, column, k);
        }
        sums[i] = (float)(sums[i] + total);
    }
    if (words)
        pthread_barrier_wait(&warp_barriers[warp]);
}

typedef struct {
    entry code;
    P *params;
    uint32_t block[3], at[3], number;
} task;

static void *run_thread(void *given) {
    const task *t = given;
    P *p = t->params;
    thread_at[0] = t->number % t->block[0];
    thread_at[1] = t->number / t->block[0] % t->block[1];
    thread_at[2] = t->number / t->block[0] / t->block[1];
    memcpy(block_at, t->at, sizeof block_at);
    lane = t->number % WARP, warp = t->number / WARP;
    t->code(p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9], p[10], p[11], p[12], p[13],
            p[14], p[15]);
    return NULL;
}

/* Runs all blocks; `params` has MOST_PARAMS pointers. 0, or -1 when threads cannot be had. */
int launch(entry code, P *params, const uint32_t *grid, const uint32_t *block) {
    uint32_t count = block[0] * block[1] * block[2];
    task *tasks = calloc(count, sizeof *tasks);
    pthread_t *threads = calloc(count, sizeof *threads);
    int status = tasks && threads ? 0 : -1;
    for (uint32_t at = 0; !status && at < grid[0] * grid[1] * grid[2]; at++) {
        memset(shared, 0xFF, SHARED);
        pthread_barrier_init(&block_barrier, NULL, count);
        for (uint32_t w = 0; w * WARP < count; w++) {
            uint32_t size = count - w * WARP;
            pthread_barrier_init(&warp_barriers[w], NULL, size < WARP ? size : WARP);
        }
        uint32_t place[3] = {at % grid[0], at / grid[0] % grid[1], at / grid[0] / grid[1]};
        for (uint32_t i = 0; i < count; i++) {
            tasks[i] = (task){code, params, {block[0], block[1], block[2]}, {0}, i};
            memcpy(tasks[i].at, place, sizeof place);
            if (pthread_create(&threads[i], NULL, run_thread, &tasks[i]))
                abort(); /* the threads that exist would wait for ever */
        }
        for (uint32_t i = 0; i < count; i++)
            pthread_join(threads[i], NULL);
        pthread_barrier_destroy(&block_barrier);
        for (uint32_t w = 0; w * WARP < count; w++)
            pthread_barrier_destroy(&warp_barriers[w]);
    }
    free(tasks);
    free(threads);
    return status;
}
