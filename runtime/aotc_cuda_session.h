/* A device with the weights of a model on it and its kernels loaded: what contexts that share
 * their weights have in common. Private to aotc_cuda.c. */

#ifndef AOTC_CUDA_SESSION_H
#define AOTC_CUDA_SESSION_H

#include "aotc_cuda.h"

#include "aotc_cuda_driver.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { USUAL_SHARED_BYTES = 48 << 10, OLDEST_DRIVER = 11040 };
enum { WEIGHTS_ALIGNMENT = 64, WEIGHTS_HEADER_BYTES = 64, DIGEST_BYTES = 32 };

typedef struct session {
    atomic_int users;
    const driver *cu;
    int version; /* of the driver */
    int device;
    void *primary;
    void *module;
    const aotc_cuda_variant *variant; /* that the device runs */
    device_pointer constants;
    void *functions[]; /* one for each kernel */
} session;

#define TRY(status)                                                                                \
    do {                                                                                           \
        int found_ = (status);                                                                     \
        if (found_)                                                                                \
            return found_;                                                                         \
    } while (0)

static int worse(int status, int other)
{
    return status ? status : other;
}

static void give_way(void)
{
#ifdef _WIN32
    SwitchToThread();
#else
    sched_yield();
#endif
}

static void wait_for(atomic_flag *turn)
{
    while (atomic_flag_test_and_set_explicit(turn, memory_order_acquire))
        give_way();
}

static void leave(atomic_flag *turn)
{
    atomic_flag_clear_explicit(turn, memory_order_release);
}

static int find_driver(const driver **found)
{
    static atomic_flag turn = ATOMIC_FLAG_INIT;
    static driver loaded;
    static int ready;
    wait_for(&turn);
    int status = ready ? AOTC_CUDA_OK : load_driver(&loaded);
    ready = !status;
    leave(&turn);
    *found = &loaded;
    return status;
}

/* The driver's current context is the caller's own before and after. */
static int enter(const session *s)
{
    return status_of(s->cu->push(s->primary));
}

static int leave_with(const session *s, int status)
{
    void *was;
    return worse(status, status_of(s->cu->pop(&was)));
}

static int fits(const aotc_cuda_image *image, int major, int minor)
{
    int arch = 10 * major + minor, own = (int)image->arch;
    if (image->kind & AOTC_CUDA_EXACT)
        return own == arch;
    if (image->kind & AOTC_CUDA_CUBIN)
        return own / 10 == major && own % 10 <= minor;
    return own <= arch;
}

/* Cubins before PTX, and those for newer devices before others. */
static int merit(const aotc_cuda_image *image)
{
    int exact = image->kind & AOTC_CUDA_EXACT ? 1 : 0;
    return (image->kind & AOTC_CUDA_CUBIN ? 20000 : 10000) + 2 * (int)image->arch + exact;
}

/* Loads an image, if the driver is new enough for it and its kernels. */
static int load_image(const aotc_cuda_model *m, session *s, const aotc_cuda_image *image)
{
    s->variant = &m->variant[image->variant];
    if (s->version < (int)image->driver || (s->variant->most_maps && !s->cu->encode_map))
        return AOTC_CUDA_OLD_DRIVER;
    int status = status_of(s->cu->module_load(&s->module, image->data));
    if (status)
        s->module = NULL;
    return status;
}

/* Loads the best image that the device and the driver take, and with it chooses the variant. */
static int load_module(const aotc_cuda_model *m, session *s, int major, int minor)
{
    int status = AOTC_CUDA_UNSUPPORTED_DEVICE;
    for (int limit = 1 << 20;;) {
        const aotc_cuda_image *best = NULL;
        for (uint32_t i = 0; i < m->images; i++) {
            const aotc_cuda_image *image = &m->image[i];
            if (!fits(image, major, minor) || merit(image) >= limit)
                continue;
            if (!best || merit(image) > merit(best))
                best = image;
        }
        if (!best)
            return status;
        status = load_image(m, s, best);
        int refused = status == AOTC_CUDA_UNSUPPORTED_DEVICE
                      || status == AOTC_CUDA_REJECTED_KERNELS || status == AOTC_CUDA_OLD_DRIVER;
        if (!refused)
            return status;
        limit = merit(best);
    }
}

static int find_functions(session *s)
{
    int most_shared, most_threads;
    TRY(status_of(s->cu->device_attribute(&most_shared, MOST_SHARED_BYTES, s->device)));
    TRY(status_of(s->cu->device_attribute(&most_threads, MOST_THREADS, s->device)));
    for (uint32_t i = 0; i < s->variant->kernels; i++) {
        const aotc_cuda_kernel *k = &s->variant->kernel[i];
        uint64_t threads = (uint64_t)k->block[0] * k->block[1] * k->block[2];
        if (k->shared_bytes > (uint64_t)most_shared || threads > (uint64_t)most_threads)
            return AOTC_CUDA_SMALL_DEVICE;
        void **function = &s->functions[i];
        int bytes = (int)k->shared_bytes;
        TRY(status_of(s->cu->module_function(function, s->module, k->name)));
        if (bytes > USUAL_SHARED_BYTES)
            TRY(status_of(s->cu->function_set(*function, DYNAMIC_SHARED_BYTES, bytes)));
    }
    return AOTC_CUDA_OK;
}

/* Where the model's constants are on the host: in the object, or in the contents of its file. */
static int find_constants(const aotc_cuda_model *m, const void *weights,
                          const unsigned char **found)
{
    *found = m->constants;
    if (!m->digest)
        return AOTC_CUDA_OK;
    if (!weights)
        return AOTC_CUDA_NULL_WEIGHTS;
    if ((uintptr_t)weights % WEIGHTS_ALIGNMENT)
        return AOTC_CUDA_MISALIGNED_WEIGHTS;
    if (memcmp(weights, m->digest, DIGEST_BYTES))
        return AOTC_CUDA_WRONG_WEIGHTS;
    *found = (const unsigned char *)weights + WEIGHTS_HEADER_BYTES;
    return AOTC_CUDA_OK;
}

static int fill_session(const aotc_cuda_model *m, session *s, const unsigned char *constants,
                        int major, int minor)
{
    TRY(load_module(m, s, major, minor));
    TRY(find_functions(s));
    const aotc_cuda_variant *v = s->variant;
    if (!v->constants_bytes)
        return AOTC_CUDA_OK;
    TRY(status_of(s->cu->alloc(&s->constants, v->constants_bytes)));
    for (uint32_t i = 0; i < v->pieces; i++) {
        const aotc_cuda_piece *piece = &v->piece[i];
        const unsigned char *from = constants + piece->from;
        TRY(status_of(s->cu->upload(s->constants + piece->to, from, piece->bytes)));
    }
    /* that returns when the host's memory is free again, which can be before the copy is done */
    return status_of(s->cu->synchronize());
}

/* Lets go of the session; the last user frees it. */
static int drop_session(session *s)
{
    const driver *cu = s->cu;
    if (atomic_fetch_sub(&s->users, 1) > 1)
        return AOTC_CUDA_OK;
    int status = enter(s);
    if (!status) { /* else all of it goes with the driver's context */
        if (s->constants)
            status = status_of(cu->free(s->constants));
        if (s->module)
            status = worse(status, status_of(cu->module_unload(s->module)));
        status = leave_with(s, status);
    }
    status = worse(status, status_of(cu->primary_release(s->device)));
    free(s);
    return status;
}

static int open_session(const aotc_cuda_model *m, int number, const void *weights, session **made)
{
    const driver *cu;
    const unsigned char *constants;
    int version, count, device, major, minor;
    uint32_t kernels = 0;
    TRY(find_constants(m, weights, &constants));
    TRY(find_driver(&cu));
    TRY(status_of(cu->init(0)));
    TRY(status_of(cu->version(&version)));
    if (version < OLDEST_DRIVER)
        return AOTC_CUDA_OLD_DRIVER;
    TRY(status_of(cu->device_count(&count)));
    if (number < 0 || number >= count)
        return AOTC_CUDA_NO_DEVICE;
    TRY(status_of(cu->device_get(&device, number)));
    TRY(status_of(cu->device_attribute(&major, MAJOR, device)));
    TRY(status_of(cu->device_attribute(&minor, MINOR, device)));
    for (uint32_t i = 0; i < m->variants; i++)
        if (m->variant[i].kernels > kernels)
            kernels = m->variant[i].kernels;
    session *s = calloc(1, sizeof *s + kernels * sizeof *s->functions);
    if (!s)
        return AOTC_CUDA_OUT_OF_HOST_MEMORY;
    s->cu = cu;
    s->version = version;
    s->device = device;
    atomic_init(&s->users, 1);
    int status = status_of(cu->primary_retain(&s->primary, device));
    if (status) {
        free(s);
        return status;
    }
    status = enter(s);
    if (!status)
        status = leave_with(s, fill_session(m, s, constants, major, minor));
    if (status) {
        drop_session(s);
        return status;
    }
    *made = s;
    return AOTC_CUDA_OK;
}

#endif /* AOTC_CUDA_SESSION_H */
