/* What objects compiled with --target cuda need at run time: the CUDA driver, opened when a context
 * is created. A program uses the functions of the model's own header, which call these. */

#ifndef AOTC_CUDA_H
#define AOTC_CUDA_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The layout of what follows; an object and a loader of different layouts refuse each other. */
#define AOTC_CUDA_LAYOUT 2

/* What every function returns; the same values as in the model's header. */
enum {
    AOTC_CUDA_OK = 0,
    AOTC_CUDA_NULL_INPUT = 1,
    AOTC_CUDA_NULL_OUTPUT = 2,
    AOTC_CUDA_MISALIGNED_INPUT = 4,
    AOTC_CUDA_MISALIGNED_OUTPUT = 5,
    AOTC_CUDA_NULL_WEIGHTS = 7,
    AOTC_CUDA_MISALIGNED_WEIGHTS = 8,
    AOTC_CUDA_WRONG_WEIGHTS = 9,
    AOTC_CUDA_OUT_OF_BOUNDS = 11,
    AOTC_CUDA_NO_DRIVER = 64,
    AOTC_CUDA_OLD_DRIVER = 65,
    AOTC_CUDA_NO_DEVICE = 66,
    AOTC_CUDA_UNSUPPORTED_DEVICE = 67,
    AOTC_CUDA_SMALL_DEVICE = 68,
    AOTC_CUDA_OUT_OF_DEVICE_MEMORY = 69,
    AOTC_CUDA_OUT_OF_HOST_MEMORY = 70,
    AOTC_CUDA_LOST_DEVICE = 71,
    AOTC_CUDA_BUSY_CONTEXT = 72,
    AOTC_CUDA_WRONG_CONTEXT = 73,
    AOTC_CUDA_REJECTED_KERNELS = 74,
    AOTC_CUDA_FAILED_DRIVER = 75,
    AOTC_CUDA_OTHER_LOADER = 76
};

/* Device code. arch is ten times the major compute capability plus the minor one. */
enum { AOTC_CUDA_CUBIN = 1, AOTC_CUDA_EXACT = 2 };
typedef struct aotc_cuda_image {
    const void *data; /* an ELF file if kind has CUBIN, else PTX that ends in a NUL */
    uint64_t bytes;
    uint32_t arch;
    uint32_t kind;    /* EXACT: for this compute capability only, as sm_90a */
    uint32_t driver;  /* least version, as cuDriverGetVersion has it */
    uint32_t variant; /* whose kernels it has */
} aotc_cuda_image;

typedef struct aotc_cuda_kernel {
    const char *name;
    uint32_t grid[3];
    uint32_t block[3];
    uint32_t shared_bytes;    /* of dynamic shared memory in each block */
    uint32_t first_map, maps; /* parameters behind the pointers */
    uint32_t reserved;
} aotc_cuda_kernel;

/* A tensor map (CUtensorMap), which a kernel takes by value: boxes of a tensor that lies at one of
 * the kernel's pointers. Axes are from the inside out. */
enum { AOTC_CUDA_MAP_AXES = 5, AOTC_CUDA_MAP_BYTES = 128, AOTC_CUDA_MAP_ALIGNMENT = 64 };
typedef struct aotc_cuda_map {
    uint32_t arg;       /* the number of the pointer */
    uint32_t type;      /* CUtensorMapDataType */
    uint32_t promotion; /* CUtensorMapL2promotion */
    uint32_t rank;
    uint64_t offset; /* in bytes, of the first element */
    uint64_t dims[AOTC_CUDA_MAP_AXES];
    uint64_t strides[AOTC_CUDA_MAP_AXES - 1]; /* in bytes, of all axes but the innermost */
    uint32_t box[AOTC_CUDA_MAP_AXES];
    uint32_t reserved;
} aotc_cuda_map;

/* `bytes` more for each that a counter of the host has counted. */
typedef struct aotc_cuda_move {
    uint64_t counter;
    int64_t bytes;
} aotc_cuda_move;

/* Where a pointer that a kernel is given points to. */
enum { AOTC_CUDA_IN_CONSTANTS = 0, AOTC_CUDA_IN_ARENA = 1, AOTC_CUDA_IN_TENSOR = 2 };
typedef struct aotc_cuda_arg {
    uint32_t space;
    uint32_t tensor; /* the inputs are numbered first, then the outputs */
    uint64_t offset; /* in bytes */
    uint32_t first_move, moves;
} aotc_cuda_arg;

typedef struct aotc_cuda_launch {
    uint32_t kernel;
    uint32_t first_arg, args;     /* as many as the kernel has pointers */
    uint32_t first_after, afters; /* earlier ones of its graph that must be complete before */
} aotc_cuda_launch;

/* The launches from `first` up to the one before `end`. */
typedef struct aotc_cuda_graph {
    uint32_t first, end;
} aotc_cuda_graph;

/* What the host does, one step after the other: an entry without control flow runs one graph. */
enum {
    AOTC_CUDA_RUN = 0,    /* graph `number` */
    AOTC_CUDA_JUMP = 1,   /* to step `target` */
    AOTC_CUDA_UNLESS = 2, /* to step `target` if the bool at the argument is false */
    AOTC_CUDA_CHECK = 3,  /* ends the run if the bool at the argument is false */
    AOTC_CUDA_SET = 4,    /* counter `number` to `value`, or to a smaller int64 at the argument */
    AOTC_CUDA_NEXT = 5,   /* adds 1 to counter `number` */
    AOTC_CUDA_PAST = 6,   /* to step `target` if counter `number` has reached counter `value` */
    AOTC_CUDA_STORE = 7   /* counter `number` as an int64 at the argument */
};
typedef struct aotc_cuda_step {
    uint32_t op, number, target;
    uint32_t arg; /* one more than its number, or 0 */
    int64_t value;
} aotc_cuda_step;

/* A model in one size: graphs and steps, from the first up to the one before the end. */
typedef struct aotc_cuda_entry {
    uint32_t first_graph, end_graph;
    uint32_t first_step, end_step;
} aotc_cuda_entry;

/* Constants that a variant needs: where they are among those of the object, and of the device. */
typedef struct aotc_cuda_piece {
    uint64_t from, to, bytes;
} aotc_cuda_piece;

/* The model as it is run on some devices, in all its sizes. */
typedef struct aotc_cuda_variant {
    uint32_t kernels, launches, graphs, pieces;
    uint32_t most_args, most_maps, counters, reserved;
    const aotc_cuda_kernel *kernel;
    const aotc_cuda_map *map;
    const aotc_cuda_launch *launch;
    const aotc_cuda_arg *arg;
    const aotc_cuda_move *move;
    const uint32_t *after;
    const aotc_cuda_graph *graph;
    const aotc_cuda_step *step;
    const aotc_cuda_entry *entry;
    const aotc_cuda_piece *piece;
    uint64_t constants_bytes; /* on the device */
    uint64_t arena_bytes;
} aotc_cuda_variant;

/* A compiled model: read-only, part of the object. */
typedef struct aotc_cuda_model {
    uint32_t layout;
    uint32_t images, variants, entries, inputs, outputs;
    const aotc_cuda_image *image;
    const aotc_cuda_variant *variant;
    const uint64_t *tensor_bytes; /* of inputs, then outputs, of one entry after the other */
    const void *constants;
    const unsigned char *digest; /* 32 bytes, if the constants are in a file; else NULL */
} aotc_cuda_model;

/* A device with the model's weights on it, and the memory of one run at a time. */
typedef struct aotc_cuda_context aotc_cuda_context;

/* Opens the driver and `device` (counted from 0), uploads the weights, prepares the launches. The
 * context takes host memory by malloc. `weights` are the contents of the file of weights, if there
 * is one, which are needed until the function returns. */
int aotc_cuda_create(const aotc_cuda_model *model, int device, const void *weights,
                     aotc_cuda_context **context);

/* Another context with the weights of `first`, which may be destroyed before or after it. */
int aotc_cuda_share(aotc_cuda_context *first, aotc_cuda_context **context);

/* Waits for the device and frees everything. NULL is allowed. The status is that of the first
 * driver call that failed; everything is freed all the same, unless the context is busy. */
int aotc_cuda_destroy(aotc_cuda_context *context);

/* Puts one run of an entry in order into the stream (a CUstream; NULL is the default stream) and
 * returns; if it has control flow, when the run is complete. `tensors` are device pointers, inputs
 * first, aligned to 16 bytes. */
int aotc_cuda_run_device(const aotc_cuda_model *model, uint32_t entry, aotc_cuda_context *context,
                         void *stream, const void *const *tensors);

/* Copies the inputs to the device, runs, copies the outputs back, and returns when all is done.
 * `tensors` are host pointers. */
int aotc_cuda_run_host(const aotc_cuda_model *model, uint32_t entry, aotc_cuda_context *context,
                       const void *const *tensors);

/* The same on device 0, in a context that the first call creates; threads take turns. */
int aotc_cuda_run(const aotc_cuda_model *model, uint32_t entry, const void *weights,
                  const void *const *tensors);

/* Frees the context that aotc_cuda_run created, if there is one. */
int aotc_cuda_release(const aotc_cuda_model *model);

/* A program may have several copies of the loader that are compiled so; it uses one. */
#ifdef AOTC_CUDA_SHARED
#pragma weak aotc_cuda_create
#pragma weak aotc_cuda_share
#pragma weak aotc_cuda_destroy
#pragma weak aotc_cuda_run_device
#pragma weak aotc_cuda_run_host
#pragma weak aotc_cuda_run
#pragma weak aotc_cuda_release
#endif

#ifdef __cplusplus
}
#endif

#endif /* AOTC_CUDA_H */
