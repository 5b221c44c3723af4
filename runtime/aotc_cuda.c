/* Loader for objects compiled with --target cuda: opens the driver, uploads the weights, and keeps
 * the whole model as one CUDA graph that each run replays with a single launch.
 *
 * A model with control flow is several graphs, between which the host reads what to do next.
 * Every driver call's result is looked at. Host memory is taken by malloc when a context is created
 * and at no other time. Nothing of the CUDA runtime or toolkit is needed, to build it or to run. */

#include "aotc_cuda.h"

#include "aotc_cuda_driver.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { STREAM_NON_BLOCKING = 1, USUAL_SHARED_BYTES = 48 << 10, OLDEST_DRIVER = 11040 };
enum { DEVICE_ALIGNMENT = 16, STAGING_ALIGNMENT = 256 };

/* What contexts that share their weights have in common. */
typedef struct session {
    atomic_int users;
    const driver *cu;
    int device;
    void *primary;
    void *module;
    device_pointer constants;
    void *functions[]; /* one for each kernel */
} session;

struct aotc_cuda_context {
    atomic_flag busy;
    const aotc_cuda_model *model;
    session *shared;
    struct aotc_cuda_context *next; /* of those that aotc_cuda_run created */
    device_pointer arena, staging;
    void *stream; /* of runs with host pointers */
    void **graphs, **execs;
    void **nodes; /* of the graphs, one for each launch */
    void **after;
    device_pointer *tensors; /* that the graph has now */
    device_pointer *wanted;
    device_pointer *values; /* arguments of one launch */
    int64_t *counters;
    void **params;
    unsigned char room[];
};

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

/* Loads the best image that the device and the driver take. */
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
        status = status_of(s->cu->module_load(&s->module, best->data));
        int refused = status == AOTC_CUDA_UNSUPPORTED_DEVICE
                      || status == AOTC_CUDA_REJECTED_KERNELS || status == AOTC_CUDA_OLD_DRIVER;
        if (!refused)
            return status;
        s->module = NULL;
        limit = merit(best);
    }
}

static int find_functions(const aotc_cuda_model *m, session *s)
{
    int most_shared, most_threads;
    TRY(status_of(s->cu->device_attribute(&most_shared, MOST_SHARED_BYTES, s->device)));
    TRY(status_of(s->cu->device_attribute(&most_threads, MOST_THREADS, s->device)));
    for (uint32_t i = 0; i < m->kernels; i++) {
        const aotc_cuda_kernel *k = &m->kernel[i];
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

static int fill_session(const aotc_cuda_model *m, session *s, int major, int minor)
{
    TRY(load_module(m, s, major, minor));
    TRY(find_functions(m, s));
    if (!m->constants_bytes)
        return AOTC_CUDA_OK;
    TRY(status_of(s->cu->alloc(&s->constants, m->constants_bytes)));
    TRY(status_of(s->cu->upload(s->constants, m->constants, m->constants_bytes)));
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

static int open_session(const aotc_cuda_model *m, int number, session **made)
{
    const driver *cu;
    int version, count, device, major, minor;
    TRY(find_driver(&cu));
    TRY(status_of(cu->init(0)));
    TRY(status_of(cu->version(&version)));
    if (version < OLDEST_DRIVER || version < (int)m->driver)
        return AOTC_CUDA_OLD_DRIVER;
    TRY(status_of(cu->device_count(&count)));
    if (number < 0 || number >= count)
        return AOTC_CUDA_NO_DEVICE;
    TRY(status_of(cu->device_get(&device, number)));
    TRY(status_of(cu->device_attribute(&major, MAJOR, device)));
    TRY(status_of(cu->device_attribute(&minor, MINOR, device)));
    session *s = calloc(1, sizeof *s + m->kernels * sizeof *s->functions);
    if (!s)
        return AOTC_CUDA_OUT_OF_HOST_MEMORY;
    s->cu = cu;
    s->device = device;
    atomic_init(&s->users, 1);
    int status = status_of(cu->primary_retain(&s->primary, device));
    if (status) {
        free(s);
        return status;
    }
    status = enter(s);
    if (!status)
        status = leave_with(s, fill_session(m, s, major, minor));
    if (status) {
        drop_session(s);
        return status;
    }
    *made = s;
    return AOTC_CUDA_OK;
}

/* Where an argument is now, with the tensors where `tensors` says. */
static device_pointer place(const aotc_cuda_context *c, const aotc_cuda_arg *arg,
                            const device_pointer *tensors)
{
    device_pointer found = c->arena + arg->offset;
    if (arg->space == AOTC_CUDA_IN_CONSTANTS)
        found = c->shared->constants + arg->offset;
    else if (arg->space == AOTC_CUDA_IN_TENSOR)
        found = tensors[arg->tensor] + arg->offset;
    for (uint32_t i = 0; i < arg->moves; i++) {
        const aotc_cuda_move *move = &c->model->move[arg->first_move + i];
        found += (device_pointer)(c->counters[move->counter] * move->bytes);
    }
    return found;
}

/* What launch number i is given. */
static kernel_node describe(aotc_cuda_context *c, uint32_t i, const device_pointer *tensors)
{
    const aotc_cuda_model *m = c->model;
    const aotc_cuda_launch *launch = &m->launch[i];
    const aotc_cuda_kernel *kernel = &m->kernel[launch->kernel];
    for (uint32_t j = 0; j < launch->args; j++) {
        c->values[j] = place(c, &m->arg[launch->first_arg + j], tensors);
        c->params[j] = &c->values[j];
    }
    kernel_node node = {.function = c->shared->functions[launch->kernel], .params = c->params};
    memcpy(node.grid, kernel->grid, sizeof node.grid);
    memcpy(node.block, kernel->block, sizeof node.block);
    node.shared_bytes = kernel->shared_bytes;
    return node;
}

/* Graph number g, for tensors that the first run will name. */
static int build_graph(aotc_cuda_context *c, uint32_t g)
{
    const aotc_cuda_model *m = c->model;
    const driver *cu = c->shared->cu;
    TRY(status_of(cu->graph_create(&c->graphs[g], 0)));
    for (uint32_t i = m->graph[g].first; i < m->graph[g].end; i++) {
        const aotc_cuda_launch *launch = &m->launch[i];
        kernel_node node = describe(c, i, c->tensors);
        for (uint32_t j = 0; j < launch->afters; j++)
            c->after[j] = c->nodes[m->after[launch->first_after + j]];
        TRY(status_of(
            cu->graph_kernel(&c->nodes[i], c->graphs[g], c->after, launch->afters, &node)));
    }
    return status_of(cu->graph_instantiate(&c->execs[g], c->graphs[g], 0));
}

static int fill_context(aotc_cuda_context *c)
{
    if (c->model->arena_bytes)
        TRY(status_of(c->shared->cu->alloc(&c->arena, c->model->arena_bytes)));
    for (uint32_t g = 0; g < c->model->graphs; g++)
        TRY(build_graph(c, g));
    return AOTC_CUDA_OK;
}

static int free_context(aotc_cuda_context *c)
{
    const driver *cu = c->shared->cu;
    int status = enter(c->shared), entered = !status;
    if (entered)
        status = status_of(cu->synchronize());
    for (uint32_t g = 0; g < c->model->graphs; g++) {
        if (c->execs[g])
            status = worse(status, status_of(cu->exec_destroy(c->execs[g])));
        if (c->graphs[g])
            status = worse(status, status_of(cu->graph_destroy(c->graphs[g])));
    }
    if (entered) { /* else the rest goes with the driver's context */
        if (c->stream)
            status = worse(status, status_of(cu->stream_destroy(c->stream)));
        if (c->staging)
            status = worse(status, status_of(cu->free(c->staging)));
        if (c->arena)
            status = worse(status, status_of(cu->free(c->arena)));
        status = leave_with(c->shared, status);
    }
    status = worse(status, drop_session(c->shared));
    free(c);
    return status;
}

/* A context of the session, which it counts as its user. */
static int open_context(const aotc_cuda_model *m, session *s, aotc_cuda_context **made)
{
    size_t tensors = (size_t)m->inputs + m->outputs;
    size_t pointers = 2 * ((size_t)m->launches + m->graphs) + m->most_args;
    size_t places = 2 * tensors + m->most_args + m->counters;
    aotc_cuda_context *c =
        calloc(1, sizeof *c + pointers * sizeof *c->params + places * sizeof *c->values);
    if (!c) {
        drop_session(s);
        return AOTC_CUDA_OUT_OF_HOST_MEMORY;
    }
    atomic_flag_clear(&c->busy);
    c->model = m;
    c->shared = s;
    c->tensors = (device_pointer *)(void *)c->room;
    c->wanted = c->tensors + tensors;
    c->values = c->wanted + tensors;
    c->counters = (int64_t *)(c->values + m->most_args);
    c->params = (void **)(c->counters + m->counters);
    c->nodes = c->params + m->most_args;
    c->after = c->nodes + m->launches;
    c->graphs = c->after + m->launches;
    c->execs = c->graphs + m->graphs;
    int status = enter(s);
    if (!status)
        status = leave_with(s, fill_context(c));
    if (status) {
        free_context(c);
        return status;
    }
    *made = c;
    return AOTC_CUDA_OK;
}

int aotc_cuda_create(const aotc_cuda_model *model, int device, aotc_cuda_context **context)
{
    session *s;
    if (!context)
        return AOTC_CUDA_WRONG_CONTEXT;
    *context = NULL;
    if (model->layout != AOTC_CUDA_LAYOUT)
        return AOTC_CUDA_OTHER_LOADER;
    TRY(open_session(model, device, &s));
    return open_context(model, s, context);
}

int aotc_cuda_share(aotc_cuda_context *first, aotc_cuda_context **context)
{
    if (context)
        *context = NULL;
    if (!first || !context)
        return AOTC_CUDA_WRONG_CONTEXT;
    if (atomic_flag_test_and_set_explicit(&first->busy, memory_order_acquire))
        return AOTC_CUDA_BUSY_CONTEXT;
    atomic_fetch_add(&first->shared->users, 1);
    int status = open_context(first->model, first->shared, context);
    leave(&first->busy);
    return status;
}

int aotc_cuda_destroy(aotc_cuda_context *context)
{
    if (!context)
        return AOTC_CUDA_OK;
    if (atomic_flag_test_and_set_explicit(&context->busy, memory_order_acquire))
        return AOTC_CUDA_BUSY_CONTEXT;
    return free_context(context);
}

/* Whether launch number i has arguments that differ from those its node has. */
static int is_moved(const aotc_cuda_context *c, uint32_t i, int tensors)
{
    const aotc_cuda_launch *launch = &c->model->launch[i];
    for (uint32_t j = 0; j < launch->args; j++) {
        const aotc_cuda_arg *arg = &c->model->arg[launch->first_arg + j];
        if (!tensors && arg->moves)
            return 1;
        if (tensors && arg->space == AOTC_CUDA_IN_TENSOR
            && c->tensors[arg->tensor] != c->wanted[arg->tensor])
            return 1;
    }
    return 0;
}

/* Writes the arguments of such launches of a graph into its nodes. Launches under way keep those
 * that they were made with. */
static int update(aotc_cuda_context *c, uint32_t g, int tensors)
{
    for (uint32_t i = c->model->graph[g].first; i < c->model->graph[g].end; i++) {
        if (!is_moved(c, i, tensors))
            continue;
        kernel_node node = describe(c, i, c->wanted);
        TRY(status_of(c->shared->cu->exec_set(c->execs[g], c->nodes[i], &node)));
    }
    return AOTC_CUDA_OK;
}

static int aim(aotc_cuda_context *c)
{
    const aotc_cuda_model *m = c->model;
    size_t bytes = (m->inputs + m->outputs) * sizeof *c->tensors;
    if (!memcmp(c->tensors, c->wanted, bytes))
        return AOTC_CUDA_OK;
    for (uint32_t g = 0; g < m->graphs; g++) {
        int status = update(c, g, 1);
        if (status) { /* some have the new pointers: the next run sets all of them again */
            memset(c->tensors, 0, bytes);
            return status;
        }
    }
    memcpy(c->tensors, c->wanted, bytes);
    return AOTC_CUDA_OK;
}

/* Waits for the stream and reads what a step asks for. */
static int read_back(aotc_cuda_context *c, const aotc_cuda_step *step, void *to, size_t bytes,
                     void *stream)
{
    const driver *cu = c->shared->cu;
    device_pointer from = place(c, &c->model->arg[step->arg - 1], c->wanted);
    int status = status_of(cu->download_async(to, from, bytes, stream));
    return worse(status, status_of(cu->stream_synchronize(stream)));
}

/* The number of the step that follows, or that the step jumps to. */
static int take_step(aotc_cuda_context *c, uint32_t *next, void *stream)
{
    const aotc_cuda_step *step = &c->model->step[*next];
    const driver *cu = c->shared->cu;
    unsigned char flag = 1;
    int64_t number;
    ++*next;
    switch (step->op) {
    case AOTC_CUDA_RUN:
        if (c->model->counters)
            TRY(update(c, step->number, 0));
        return status_of(cu->exec_launch(c->execs[step->number], stream));
    case AOTC_CUDA_JUMP: *next = step->target; break;
    case AOTC_CUDA_UNLESS:
    case AOTC_CUDA_CHECK:
        TRY(read_back(c, step, &flag, 1, stream));
        if (!flag && step->op == AOTC_CUDA_CHECK)
            return AOTC_CUDA_OUT_OF_BOUNDS;
        if (!flag)
            *next = step->target;
        break;
    case AOTC_CUDA_SET:
        number = step->value;
        if (step->arg)
            TRY(read_back(c, step, &number, sizeof number, stream));
        c->counters[step->number] = number < step->value ? number : step->value;
        break;
    case AOTC_CUDA_NEXT: c->counters[step->number]++; break;
    case AOTC_CUDA_PAST:
        if (c->counters[step->number] >= c->counters[step->value])
            *next = step->target;
        break;
    case AOTC_CUDA_STORE: {
        device_pointer to = place(c, &c->model->arg[step->arg - 1], c->wanted);
        uint64_t bits = (uint64_t)c->counters[step->number];
        TRY(status_of(cu->fill_async(to, (unsigned)bits, 1, stream)));
        return status_of(cu->fill_async(to + 4, (unsigned)(bits >> 32), 1, stream));
    }
    default: return AOTC_CUDA_OTHER_LOADER;
    }
    return AOTC_CUDA_OK;
}

/* Runs on the tensors that are wanted. One graph is one launch, and launches of one graph follow
 * each other in whatever streams. Steps have no such order, so a run of several ends here. */
static int launch(aotc_cuda_context *c, void *stream)
{
    uint32_t next = 0;
    int status = aim(c);
    if (status)
        return status;
    while (!status && next < c->model->steps)
        status = take_step(c, &next, stream);
    if (c->model->steps > 1)
        status = worse(status, status_of(c->shared->cu->stream_synchronize(stream)));
    return status;
}

/* The tensors must be there unless they are empty. */
static int check_tensors(const aotc_cuda_model *m, const void *const *tensors, unsigned alignment)
{
    for (uint32_t i = 0; i < m->inputs + m->outputs; i++)
        if (m->tensor_bytes[i] && !tensors[i])
            return i < m->inputs ? AOTC_CUDA_NULL_INPUT : AOTC_CUDA_NULL_OUTPUT;
    for (uint32_t i = 0; i < m->inputs + m->outputs; i++)
        if (m->tensor_bytes[i] && (uintptr_t)tensors[i] % alignment)
            return i < m->inputs ? AOTC_CUDA_MISALIGNED_INPUT : AOTC_CUDA_MISALIGNED_OUTPUT;
    return AOTC_CUDA_OK;
}

int aotc_cuda_run_device(const aotc_cuda_model *model, aotc_cuda_context *context, void *stream,
                         const void *const *tensors)
{
    if (!context || context->model != model)
        return AOTC_CUDA_WRONG_CONTEXT;
    TRY(check_tensors(model, tensors, DEVICE_ALIGNMENT));
    if (atomic_flag_test_and_set_explicit(&context->busy, memory_order_acquire))
        return AOTC_CUDA_BUSY_CONTEXT;
    int status = enter(context->shared);
    if (!status) {
        for (uint32_t i = 0; i < model->inputs + model->outputs; i++)
            context->wanted[i] = (device_pointer)(uintptr_t)tensors[i];
        status = leave_with(context->shared, launch(context, stream));
    }
    leave(&context->busy);
    return status;
}

/* Device memory for all tensors of runs with host pointers, and a stream for these. */
static int prepare_staging(aotc_cuda_context *c)
{
    const aotc_cuda_model *m = c->model;
    uint64_t end = 0;
    if (!c->stream)
        TRY(status_of(c->shared->cu->stream_create(&c->stream, STREAM_NON_BLOCKING)));
    for (uint32_t i = 0; i < m->inputs + m->outputs; i++) {
        c->wanted[i] = end;
        end += (m->tensor_bytes[i] + STAGING_ALIGNMENT - 1) / STAGING_ALIGNMENT * STAGING_ALIGNMENT;
    }
    if (!c->staging && end)
        TRY(status_of(c->shared->cu->alloc(&c->staging, end)));
    for (uint32_t i = 0; i < m->inputs + m->outputs; i++)
        c->wanted[i] += c->staging;
    return AOTC_CUDA_OK;
}

static int enqueue(aotc_cuda_context *c, const void *const *tensors)
{
    const aotc_cuda_model *m = c->model;
    const driver *cu = c->shared->cu;
    const uint64_t *bytes = m->tensor_bytes;
    uint32_t i = 0;
    for (; i < m->inputs; i++)
        if (bytes[i])
            TRY(status_of(cu->upload_async(c->wanted[i], tensors[i], bytes[i], c->stream)));
    TRY(launch(c, c->stream));
    for (; i < m->inputs + m->outputs; i++) {
        void *output = (void *)(uintptr_t)tensors[i];
        if (bytes[i])
            TRY(status_of(cu->download_async(output, c->wanted[i], bytes[i], c->stream)));
    }
    return AOTC_CUDA_OK;
}

/* By a thread that has the context for itself. */
static int run_host(aotc_cuda_context *c, const void *const *tensors)
{
    int status = enter(c->shared);
    if (status)
        return status;
    status = prepare_staging(c);
    if (!status) {
        status = enqueue(c, tensors);
        /* whatever was begun must end before the caller has his memory back */
        status = worse(status, status_of(c->shared->cu->stream_synchronize(c->stream)));
    }
    return leave_with(c->shared, status);
}

int aotc_cuda_run_host(const aotc_cuda_model *model, aotc_cuda_context *context,
                       const void *const *tensors)
{
    if (!context || context->model != model)
        return AOTC_CUDA_WRONG_CONTEXT;
    TRY(check_tensors(model, tensors, 1));
    if (atomic_flag_test_and_set_explicit(&context->busy, memory_order_acquire))
        return AOTC_CUDA_BUSY_CONTEXT;
    int status = run_host(context, tensors);
    leave(&context->busy);
    return status;
}

/* The contexts of programs that create none. */
static atomic_flag list_turn = ATOMIC_FLAG_INIT;
static aotc_cuda_context *list;

static aotc_cuda_context **find_in_list(const aotc_cuda_model *model)
{
    aotc_cuda_context **place = &list;
    while (*place && (*place)->model != model)
        place = &(*place)->next;
    return place;
}

/* The model's context in the list, created if need be, for the caller alone. */
static int take_from_list(const aotc_cuda_model *model, aotc_cuda_context **taken)
{
    for (;;) {
        int status = AOTC_CUDA_OK;
        wait_for(&list_turn);
        aotc_cuda_context **place = find_in_list(model);
        if (!*place)
            status = aotc_cuda_create(model, 0, place);
        *taken = *place;
        int got = !status
                  && !atomic_flag_test_and_set_explicit(&(*taken)->busy, memory_order_acquire);
        leave(&list_turn);
        if (status || got)
            return status;
        give_way();
    }
}

int aotc_cuda_run(const aotc_cuda_model *model, const void *const *tensors)
{
    aotc_cuda_context *context;
    TRY(check_tensors(model, tensors, 1));
    TRY(take_from_list(model, &context));
    int status = run_host(context, tensors);
    leave(&context->busy);
    return status;
}

int aotc_cuda_release(const aotc_cuda_model *model)
{
    wait_for(&list_turn);
    aotc_cuda_context **place = find_in_list(model), *found = *place;
    if (found) {
        wait_for(&found->busy);
        *place = found->next;
    }
    leave(&list_turn);
    return found ? free_context(found) : AOTC_CUDA_OK;
}
