/* The part of the CUDA driver's interface that aotc_cuda.c uses, and how it is opened. Private to
 * that file: the driver's own header is not needed. */

#ifndef AOTC_CUDA_DRIVER_H
#define AOTC_CUDA_DRIVER_H

#include "aotc_cuda.h"

#include <stddef.h>
#include <string.h>

#ifdef _WIN32
#include <windows.h>
#define CUDAAPI __stdcall
#define DRIVER_LIBRARY "nvcuda.dll"
#else
#include <dlfcn.h>
#include <sched.h>
#define CUDAAPI
#define DRIVER_LIBRARY "libcuda.so.1"
#endif

/* Values that never change. */
typedef int result;
typedef uint64_t device_pointer;
enum {
    SUCCESS = 0,
    OUT_OF_MEMORY = 2,
    DEINITIALIZED = 4,
    STUB_LIBRARY = 34,
    DEVICE_UNAVAILABLE = 46,
    CALL_NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    NO_BINARY_FOR_GPU = 209,
    ECC_UNCORRECTABLE = 214,
    INVALID_PTX = 218,
    NVLINK_UNCORRECTABLE = 220,
    JIT_COMPILER_NOT_FOUND = 221,
    UNSUPPORTED_PTX_VERSION = 222,
    JIT_COMPILATION_DISABLED = 223,
    ILLEGAL_ADDRESS = 700,
    LAUNCH_OUT_OF_RESOURCES = 701,
    LAUNCH_TIMEOUT = 702,
    CONTEXT_IS_DESTROYED = 709,
    FIRST_FAULT_IN_KERNEL = 714,
    LAST_FAULT_IN_KERNEL = 719,
    SYSTEM_DRIVER_MISMATCH = 803,
    COMPAT_NOT_SUPPORTED = 804
};
enum { /* attributes of devices and functions */
    MOST_THREADS = 1,
    MAJOR = 75,
    MINOR = 76,
    MOST_SHARED_BYTES = 97,
    DYNAMIC_SHARED_BYTES = 8
};
enum { /* of tensor maps: CUtensorMapInterleave, ...Swizzle, ...FloatOOBfill */
    NO_INTERLEAVE = 0,
    SWIZZLE_128_BYTES = 3,
    FILL_WITH_ZEROS = 0
};

typedef struct kernel_node {
    void *function;
    unsigned grid[3], block[3], shared_bytes;
    void **params;
    void **extra;
} kernel_node;

/* Symbols with their versions: a header of the driver would add these by macros. */
#define DRIVER_CALLS(call)                                                                         \
    call(init, "cuInit", (unsigned))                                                               \
    call(version, "cuDriverGetVersion", (int *))                                                   \
    call(device_count, "cuDeviceGetCount", (int *))                                                \
    call(device_get, "cuDeviceGet", (int *, int))                                                  \
    call(device_attribute, "cuDeviceGetAttribute", (int *, int, int))                              \
    call(primary_retain, "cuDevicePrimaryCtxRetain", (void **, int))                               \
    call(primary_release, "cuDevicePrimaryCtxRelease_v2", (int))                                   \
    call(push, "cuCtxPushCurrent_v2", (void *))                                                    \
    call(pop, "cuCtxPopCurrent_v2", (void **))                                                     \
    call(synchronize, "cuCtxSynchronize", (void))                                                  \
    call(module_load, "cuModuleLoadData", (void **, const void *))                                 \
    call(module_unload, "cuModuleUnload", (void *))                                                \
    call(module_function, "cuModuleGetFunction", (void **, void *, const char *))                  \
    call(function_set, "cuFuncSetAttribute", (void *, int, int))                                   \
    call(alloc, "cuMemAlloc_v2", (device_pointer *, size_t))                                       \
    call(free, "cuMemFree_v2", (device_pointer))                                                   \
    call(upload, "cuMemcpyHtoD_v2", (device_pointer, const void *, size_t))                        \
    call(upload_async, "cuMemcpyHtoDAsync_v2", (device_pointer, const void *, size_t, void *))     \
    call(download_async, "cuMemcpyDtoHAsync_v2", (void *, device_pointer, size_t, void *))         \
    call(fill_async, "cuMemsetD32Async", (device_pointer, unsigned, size_t, void *))               \
    call(stream_create, "cuStreamCreate", (void **, unsigned))                                     \
    call(stream_destroy, "cuStreamDestroy_v2", (void *))                                           \
    call(stream_synchronize, "cuStreamSynchronize", (void *))                                      \
    call(stream_wait, "cuStreamWaitEvent", (void *, void *, unsigned))                             \
    call(event_create, "cuEventCreate", (void **, unsigned))                                       \
    call(event_record, "cuEventRecord", (void *, void *))                                          \
    call(event_destroy, "cuEventDestroy_v2", (void *))                                             \
    call(graph_create, "cuGraphCreate", (void **, unsigned))                                       \
    call(graph_destroy, "cuGraphDestroy", (void *))                                                \
    call(graph_kernel, "cuGraphAddKernelNode",                                                     \
         (void **, void *, void *const *, size_t, const kernel_node *))                            \
    call(graph_instantiate, "cuGraphInstantiateWithFlags", (void **, void *, unsigned long long))  \
    call(exec_set, "cuGraphExecKernelNodeSetParams", (void *, void *, const kernel_node *))        \
    call(exec_launch, "cuGraphLaunch", (void *, void *))                                           \
    call(exec_destroy, "cuGraphExecDestroy", (void *))

/* What only models with tensor maps need; NULL in a driver that lacks it (before CUDA 12.0). */
#define LATER_CALLS(call)                                                                          \
    call(encode_map, "cuTensorMapEncodeTiled",                                                     \
         (void *, int, uint32_t, void *, const uint64_t *, const uint64_t *, const uint32_t *,     \
          const uint32_t *, int, int, int, int))

typedef struct driver {
#define DECLARE(field, symbol, parameters) result(CUDAAPI *field) parameters;
    DRIVER_CALLS(DECLARE)
    LATER_CALLS(DECLARE)
#undef DECLARE
} driver;

static int status_of(result r)
{
    if (r >= FIRST_FAULT_IN_KERNEL && r <= LAST_FAULT_IN_KERNEL)
        return AOTC_CUDA_LOST_DEVICE;
    switch (r) {
    case SUCCESS: return AOTC_CUDA_OK;
    case OUT_OF_MEMORY: return AOTC_CUDA_OUT_OF_DEVICE_MEMORY;
    case STUB_LIBRARY: return AOTC_CUDA_NO_DRIVER;
    case CALL_NO_DEVICE:
    case INVALID_DEVICE: return AOTC_CUDA_NO_DEVICE;
    case LAUNCH_OUT_OF_RESOURCES: return AOTC_CUDA_SMALL_DEVICE;
    case INVALID_IMAGE:
    case INVALID_PTX:
    case JIT_COMPILER_NOT_FOUND:
    case JIT_COMPILATION_DISABLED: return AOTC_CUDA_REJECTED_KERNELS;
    case NO_BINARY_FOR_GPU: return AOTC_CUDA_UNSUPPORTED_DEVICE;
    case UNSUPPORTED_PTX_VERSION:
    case SYSTEM_DRIVER_MISMATCH:
    case COMPAT_NOT_SUPPORTED: return AOTC_CUDA_OLD_DRIVER;
    case DEINITIALIZED:
    case DEVICE_UNAVAILABLE:
    case ECC_UNCORRECTABLE:
    case NVLINK_UNCORRECTABLE:
    case ILLEGAL_ADDRESS:
    case LAUNCH_TIMEOUT:
    case CONTEXT_IS_DESTROYED: return AOTC_CUDA_LOST_DEVICE;
    default: return AOTC_CUDA_FAILED_DRIVER;
    }
}

/* Opens the library; the driver stays loaded, as it wants to. */
static int load_driver(driver *d)
{
    static const struct { const char *name; size_t place; int later; } symbols[] = {
#define NAME(field, symbol, parameters) {symbol, offsetof(driver, field), 0},
        DRIVER_CALLS(NAME)
#undef NAME
#define NAME(field, symbol, parameters) {symbol, offsetof(driver, field), 1},
        LATER_CALLS(NAME)
#undef NAME
    };
#ifdef _WIN32
    HMODULE library = LoadLibraryExA(DRIVER_LIBRARY, NULL, LOAD_LIBRARY_SEARCH_SYSTEM32);
#else
    void *library = dlopen(DRIVER_LIBRARY, RTLD_NOW | RTLD_LOCAL);
#endif
    if (!library)
        return AOTC_CUDA_NO_DRIVER;
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
#ifdef _WIN32
        FARPROC found = GetProcAddress(library, symbols[i].name);
#else
        void *found = dlsym(library, symbols[i].name);
#endif
        if (!found && !symbols[i].later)
            return AOTC_CUDA_OLD_DRIVER;
        memcpy((char *)d + symbols[i].place, &found, sizeof found);
    }
    return AOTC_CUDA_OK;
}

#endif /* AOTC_CUDA_DRIVER_H */
