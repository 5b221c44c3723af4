/* Loader for objects compiled with --target cuda: opens the driver, uploads the weights, and keeps
 * the whole model as one CUDA graph that each run replays with a single launch.
 *
 * A model with control flow is several graphs, between which the host reads what to do next.
 * Every driver call's result is looked at. Host memory is taken by malloc when a context is created
 * and at no other time. Nothing of the CUDA runtime or toolkit is needed, to build it or to run. */

#include "aotc_cuda.h"

#include "aotc_cuda_session.h"

enum { STREAM_NON_BLOCKING = 1, EVENT_DISABLE_TIMING = 2 };
enum { DEVICE_ALIGNMENT = 16, STAGING_ALIGNMENT = 256 };

/* CUtensorMap, in memory aligned as it has to be. */
typedef struct tensor_map { unsigned char bytes[AOTC_CUDA_MAP_BYTES]; } tensor_map;

struct aotc_cuda_context {
    atomic_flag busy;
    const aotc_cuda_model *model;
    session *shared;
    struct aotc_cuda_context *next; /* of those that aotc_cuda_run created */
    device_pointer arena, staging;
    void *stream; /* of runs with host pointers */
    void *done; /* the event that ends the last run, if there are several entries */
    uint32_t last; /* entry that was run */
    void **graphs, **execs;
    void **nodes; /* of the graphs, one for each launch */
    void **after;
    device_pointer *tensors; /* that the graphs have now, of one entry after the other */
    device_pointer *wanted;  /* by a run */
    device_pointer *values;  /* arguments of one launch */
    int64_t *counters;
    void **params;
    tensor_map *maps;
    unsigned char room[];
};

static const aotc_cuda_variant *variant_of(const aotc_cuda_context *c)
{
    return c->shared->variant;
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
        const aotc_cuda_move *move = &variant_of(c)->move[arg->first_move + i];
        found += (device_pointer)(c->counters[move->counter] * move->bytes);
    }
    return found;
}

/* Writes the tensor map of a tensor that begins at `start`. */
static int encode(const driver *cu, const aotc_cuda_map *map, device_pointer start, tensor_map *to)
{
    static const uint32_t steps[AOTC_CUDA_MAP_AXES] = {1, 1, 1, 1, 1};
    void *first = (void *)(uintptr_t)(start + map->offset);
    return status_of(cu->encode_map(to, (int)map->type, map->rank, first, map->dims, map->strides,
                                    map->box, steps, NO_INTERLEAVE, SWIZZLE_128_BYTES,
                                    (int)map->promotion, FILL_WITH_ZEROS));
}

/* What launch number i is given: pointers, and tensor maps of what lies at these. While nobody has
 * said where a tensor is, its maps are zeros: the first run writes them. */
static int describe(aotc_cuda_context *c, uint32_t i, const device_pointer *tensors,
                    kernel_node *node)
{
    const aotc_cuda_variant *v = variant_of(c);
    const aotc_cuda_launch *launch = &v->launch[i];
    const aotc_cuda_kernel *kernel = &v->kernel[launch->kernel];
    const aotc_cuda_arg *args = &v->arg[launch->first_arg];
    for (uint32_t j = 0; j < launch->args; j++) {
        c->values[j] = place(c, &args[j], tensors);
        c->params[j] = &c->values[j];
    }
    for (uint32_t j = 0; j < kernel->maps; j++) {
        const aotc_cuda_map *map = &v->map[kernel->first_map + j];
        const aotc_cuda_arg *arg = &args[map->arg];
        c->params[launch->args + j] = &c->maps[j];
        memset(&c->maps[j], 0, sizeof c->maps[j]);
        if (arg->space != AOTC_CUDA_IN_TENSOR || tensors[arg->tensor])
            TRY(encode(c->shared->cu, map, c->values[map->arg], &c->maps[j]));
    }
    *node = (kernel_node){.function = c->shared->functions[launch->kernel], .params = c->params};
    memcpy(node->grid, kernel->grid, sizeof node->grid);
    memcpy(node->block, kernel->block, sizeof node->block);
    node->shared_bytes = kernel->shared_bytes;
    return AOTC_CUDA_OK;
}

/* Graph number g, for tensors that the first run will name. */
static int build_graph(aotc_cuda_context *c, uint32_t g)
{
    const aotc_cuda_variant *v = variant_of(c);
    const driver *cu = c->shared->cu;
    TRY(status_of(cu->graph_create(&c->graphs[g], 0)));
    for (uint32_t i = v->graph[g].first; i < v->graph[g].end; i++) {
        const aotc_cuda_launch *launch = &v->launch[i];
        kernel_node node;
        TRY(describe(c, i, c->tensors, &node));
        for (uint32_t j = 0; j < launch->afters; j++)
            c->after[j] = c->nodes[v->after[launch->first_after + j]];
        TRY(status_of(
            cu->graph_kernel(&c->nodes[i], c->graphs[g], c->after, launch->afters, &node)));
    }
    return status_of(cu->graph_instantiate(&c->execs[g], c->graphs[g], 0));
}

static int fill_context(aotc_cuda_context *c)
{
    const aotc_cuda_variant *v = variant_of(c);
    if (v->arena_bytes)
        TRY(status_of(c->shared->cu->alloc(&c->arena, v->arena_bytes)));
    if (c->model->entries > 1)
        TRY(status_of(c->shared->cu->event_create(&c->done, EVENT_DISABLE_TIMING)));
    for (uint32_t g = 0; g < v->graphs; g++)
        TRY(build_graph(c, g));
    return AOTC_CUDA_OK;
}

static int free_context(aotc_cuda_context *c)
{
    const driver *cu = c->shared->cu;
    int status = enter(c->shared), entered = !status;
    if (entered)
        status = status_of(cu->synchronize());
    for (uint32_t g = 0; g < variant_of(c)->graphs; g++) {
        if (c->execs[g])
            status = worse(status, status_of(cu->exec_destroy(c->execs[g])));
        if (c->graphs[g])
            status = worse(status, status_of(cu->graph_destroy(c->graphs[g])));
    }
    if (entered) { /* else the rest goes with the driver's context */
        if (c->stream)
            status = worse(status, status_of(cu->stream_destroy(c->stream)));
        if (c->done)
            status = worse(status, status_of(cu->event_destroy(c->done)));
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

/* The first place from `start` on that is aligned for tensor maps. */
static tensor_map *aligned_maps(void *start)
{
    size_t misfit = (uintptr_t)start % AOTC_CUDA_MAP_ALIGNMENT;
    unsigned char *place = start;
    return (tensor_map *)(void *)(place + (misfit ? AOTC_CUDA_MAP_ALIGNMENT - misfit : 0));
}

/* A context of the session, which it counts as its user. */
static int open_context(const aotc_cuda_model *m, session *s, aotc_cuda_context **made)
{
    const aotc_cuda_variant *v = s->variant;
    size_t tensors = (size_t)m->inputs + m->outputs;
    size_t pointers = 2 * ((size_t)v->launches + v->graphs) + v->most_args + v->most_maps;
    size_t places = (m->entries + 1) * tensors + v->most_args + v->counters;
    size_t maps = v->most_maps * sizeof(tensor_map) + AOTC_CUDA_MAP_ALIGNMENT;
    aotc_cuda_context *c =
        calloc(1, sizeof *c + pointers * sizeof *c->params + places * sizeof *c->values + maps);
    if (!c) {
        drop_session(s);
        return AOTC_CUDA_OUT_OF_HOST_MEMORY;
    }
    atomic_flag_clear(&c->busy);
    c->model = m;
    c->shared = s;
    c->tensors = (device_pointer *)(void *)c->room;
    c->wanted = c->tensors + m->entries * tensors;
    c->values = c->wanted + tensors;
    c->counters = (int64_t *)(c->values + v->most_args);
    c->params = (void **)(c->counters + v->counters);
    c->nodes = c->params + v->most_args + v->most_maps;
    c->after = c->nodes + v->launches;
    c->graphs = c->after + v->launches;
    c->execs = c->graphs + v->graphs;
    c->maps = aligned_maps(c->execs + v->graphs);
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

int aotc_cuda_create(const aotc_cuda_model *model, int device, const void *weights,
                     aotc_cuda_context **context)
{
    session *s;
    if (!context)
        return AOTC_CUDA_WRONG_CONTEXT;
    *context = NULL;
    if (model->layout != AOTC_CUDA_LAYOUT)
        return AOTC_CUDA_OTHER_LOADER;
    TRY(open_session(model, device, weights, &s));
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

static uint32_t count_tensors(const aotc_cuda_model *m)
{
    return m->inputs + m->outputs;
}

/* Whether launch number i has arguments that differ from those its node has: those that counters
 * move, or tensors that were where `before` says. */
static int is_moved(const aotc_cuda_context *c, uint32_t i, const device_pointer *before)
{
    const aotc_cuda_launch *launch = &variant_of(c)->launch[i];
    for (uint32_t j = 0; j < launch->args; j++) {
        const aotc_cuda_arg *arg = &variant_of(c)->arg[launch->first_arg + j];
        if (!before && arg->moves)
            return 1;
        if (before && arg->space == AOTC_CUDA_IN_TENSOR
            && before[arg->tensor] != c->wanted[arg->tensor])
            return 1;
    }
    return 0;
}

/* Writes the arguments of such launches of a graph into its nodes. Launches under way keep those
 * that they were made with. */
static int update(aotc_cuda_context *c, uint32_t g, const device_pointer *before)
{
    const aotc_cuda_graph *graph = &variant_of(c)->graph[g];
    for (uint32_t i = graph->first; i < graph->end; i++) {
        if (!is_moved(c, i, before))
            continue;
        kernel_node node;
        TRY(describe(c, i, c->wanted, &node));
        TRY(status_of(c->shared->cu->exec_set(c->execs[g], c->nodes[i], &node)));
    }
    return AOTC_CUDA_OK;
}

static int aim(aotc_cuda_context *c, uint32_t e)
{
    const aotc_cuda_entry *entry = &variant_of(c)->entry[e];
    device_pointer *now = c->tensors + (size_t)e * count_tensors(c->model);
    size_t bytes = count_tensors(c->model) * sizeof *now;
    if (!memcmp(now, c->wanted, bytes))
        return AOTC_CUDA_OK;
    for (uint32_t g = entry->first_graph; g < entry->end_graph; g++) {
        int status = update(c, g, now);
        if (status) { /* some have the new pointers: the next run sets all of them again */
            memset(now, 0, bytes);
            return status;
        }
    }
    memcpy(now, c->wanted, bytes);
    return AOTC_CUDA_OK;
}

/* Waits for the stream and reads what a step asks for. */
static int read_back(aotc_cuda_context *c, const aotc_cuda_step *step, void *to, size_t bytes,
                     void *stream)
{
    const driver *cu = c->shared->cu;
    device_pointer from = place(c, &variant_of(c)->arg[step->arg - 1], c->wanted);
    int status = status_of(cu->download_async(to, from, bytes, stream));
    return worse(status, status_of(cu->stream_synchronize(stream)));
}

/* The number of the step that follows, or that the step jumps to. */
static int take_step(aotc_cuda_context *c, uint32_t *next, void *stream)
{
    const aotc_cuda_step *step = &variant_of(c)->step[*next];
    const driver *cu = c->shared->cu;
    unsigned char flag = 1;
    int64_t number;
    ++*next;
    switch (step->op) {
    case AOTC_CUDA_RUN:
        if (variant_of(c)->counters)
            TRY(update(c, step->number, NULL));
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
        device_pointer to = place(c, &variant_of(c)->arg[step->arg - 1], c->wanted);
        uint64_t bits = (uint64_t)c->counters[step->number];
        TRY(status_of(cu->fill_async(to, (unsigned)bits, 1, stream)));
        return status_of(cu->fill_async(to + 4, (unsigned)(bits >> 32), 1, stream));
    }
    default: return AOTC_CUDA_OTHER_LOADER;
    }
    return AOTC_CUDA_OK;
}

/* Runs an entry on the tensors that are wanted. One graph is one launch, and launches of one graph
 * follow each other in whatever streams; entries, which share the arena, wait for an event. Steps
 * have no such order, so a run of several ends here. */
static int launch(aotc_cuda_context *c, uint32_t e, void *stream)
{
    const aotc_cuda_entry *entry = &variant_of(c)->entry[e];
    const driver *cu = c->shared->cu;
    uint32_t next = entry->first_step;
    TRY(aim(c, e));
    if (c->last != e)
        TRY(status_of(cu->stream_wait(stream, c->done, 0)));
    int status = AOTC_CUDA_OK;
    while (!status && next < entry->end_step)
        status = take_step(c, &next, stream);
    if (entry->end_step - entry->first_step > 1)
        status = worse(status, status_of(cu->stream_synchronize(stream)));
    if (c->done)
        status = worse(status, status_of(cu->event_record(c->done, stream)));
    c->last = e;
    return status;
}

static const uint64_t *tensor_bytes(const aotc_cuda_model *m, uint32_t e)
{
    return m->tensor_bytes + (size_t)e * count_tensors(m);
}

/* The tensors must be there unless they are empty. */
static int check_tensors(const aotc_cuda_model *m, uint32_t e, const void *const *tensors,
                         unsigned alignment)
{
    const uint64_t *bytes = tensor_bytes(m, e);
    for (uint32_t i = 0; i < count_tensors(m); i++)
        if (bytes[i] && !tensors[i])
            return i < m->inputs ? AOTC_CUDA_NULL_INPUT : AOTC_CUDA_NULL_OUTPUT;
    for (uint32_t i = 0; i < count_tensors(m); i++)
        if (bytes[i] && (uintptr_t)tensors[i] % alignment)
            return i < m->inputs ? AOTC_CUDA_MISALIGNED_INPUT : AOTC_CUDA_MISALIGNED_OUTPUT;
    return AOTC_CUDA_OK;
}

int aotc_cuda_run_device(const aotc_cuda_model *model, uint32_t entry, aotc_cuda_context *context,
                         void *stream, const void *const *tensors)
{
    if (!context || context->model != model)
        return AOTC_CUDA_WRONG_CONTEXT;
    TRY(check_tensors(model, entry, tensors, DEVICE_ALIGNMENT));
    if (atomic_flag_test_and_set_explicit(&context->busy, memory_order_acquire))
        return AOTC_CUDA_BUSY_CONTEXT;
    int status = enter(context->shared);
    if (!status) {
        for (uint32_t i = 0; i < count_tensors(model); i++)
            context->wanted[i] = (device_pointer)(uintptr_t)tensors[i];
        status = leave_with(context->shared, launch(context, entry, stream));
    }
    leave(&context->busy);
    return status;
}

/* Writes where the tensors of an entry are in the device memory for runs with host pointers, and
 * returns how much of that it needs. */
static uint64_t place_tensors(aotc_cuda_context *c, uint32_t e)
{
    const uint64_t *bytes = tensor_bytes(c->model, e);
    uint64_t end = 0;
    for (uint32_t i = 0; i < count_tensors(c->model); i++) {
        c->wanted[i] = c->staging + end;
        end += (bytes[i] + STAGING_ALIGNMENT - 1) / STAGING_ALIGNMENT * STAGING_ALIGNMENT;
    }
    return end;
}

/* That memory, enough for any entry, and a stream for these runs. */
static int prepare_staging(aotc_cuda_context *c)
{
    uint64_t most = 0;
    if (!c->stream)
        TRY(status_of(c->shared->cu->stream_create(&c->stream, STREAM_NON_BLOCKING)));
    for (uint32_t e = 0; e < c->model->entries; e++) {
        uint64_t needed = place_tensors(c, e);
        most = needed > most ? needed : most;
    }
    if (!c->staging && most)
        return status_of(c->shared->cu->alloc(&c->staging, most));
    return AOTC_CUDA_OK;
}

static int enqueue(aotc_cuda_context *c, uint32_t e, const void *const *tensors)
{
    const aotc_cuda_model *m = c->model;
    const driver *cu = c->shared->cu;
    const uint64_t *bytes = tensor_bytes(m, e);
    uint32_t i = 0;
    place_tensors(c, e);
    for (; i < m->inputs; i++)
        if (bytes[i])
            TRY(status_of(cu->upload_async(c->wanted[i], tensors[i], bytes[i], c->stream)));
    TRY(launch(c, e, c->stream));
    for (; i < count_tensors(m); i++) {
        void *output = (void *)(uintptr_t)tensors[i];
        if (bytes[i])
            TRY(status_of(cu->download_async(output, c->wanted[i], bytes[i], c->stream)));
    }
    return AOTC_CUDA_OK;
}

/* By a thread that has the context for itself. */
static int run_host(aotc_cuda_context *c, uint32_t e, const void *const *tensors)
{
    int status = enter(c->shared);
    if (status)
        return status;
    status = prepare_staging(c);
    if (!status) {
        status = enqueue(c, e, tensors);
        /* whatever was begun must end before the caller has his memory back */
        status = worse(status, status_of(c->shared->cu->stream_synchronize(c->stream)));
    }
    return leave_with(c->shared, status);
}

int aotc_cuda_run_host(const aotc_cuda_model *model, uint32_t entry, aotc_cuda_context *context,
                       const void *const *tensors)
{
    if (!context || context->model != model)
        return AOTC_CUDA_WRONG_CONTEXT;
    TRY(check_tensors(model, entry, tensors, 1));
    if (atomic_flag_test_and_set_explicit(&context->busy, memory_order_acquire))
        return AOTC_CUDA_BUSY_CONTEXT;
    int status = run_host(context, entry, tensors);
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
static int take_from_list(const aotc_cuda_model *model, const void *weights,
                          aotc_cuda_context **taken)
{
    for (;;) {
        int status = AOTC_CUDA_OK;
        wait_for(&list_turn);
        aotc_cuda_context **place = find_in_list(model);
        if (!*place)
            status = aotc_cuda_create(model, 0, weights, place);
        *taken = *place;
        int got = !status
                  && !atomic_flag_test_and_set_explicit(&(*taken)->busy, memory_order_acquire);
        leave(&list_turn);
        if (status || got)
            return status;
        give_way();
    }
}

int aotc_cuda_run(const aotc_cuda_model *model, uint32_t entry, const void *weights,
                  const void *const *tensors)
{
    aotc_cuda_context *context;
    const unsigned char *constants;
    TRY(check_tensors(model, entry, tensors, 1));
    TRY(take_from_list(model, weights, &context));
    int status = find_constants(model, weights, &constants); /* of every run, as for a processor */
    if (!status)
        status = run_host(context, entry, tensors);
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
