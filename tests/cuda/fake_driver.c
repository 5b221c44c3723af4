/* A CUDA driver for tests, built as libcuda.so.1: device memory is host memory, work put into a
 * stream waits until somebody synchronizes, and a launch calls a function of the host.
 *
 * It is stricter than the driver: misuse ends the process with a message. Nodes of a graph run in
 * the last order that their dependencies allow, so that a missing one shows. FAKE_CUDA_* in the
 * environment, or fake_cuda_set, say what the device is and which call fails. A call that ends
 * something does so and then reports the failure, as the driver does with errors of earlier work. */

#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int result;
typedef uint64_t device_pointer;
typedef struct kernel_node {
    void *function;
    unsigned grid[3], block[3], shared_bytes;
    void **params;
    void **extra;
} kernel_node;

/* What runs a kernel: its name, grid, block, shared bytes, and as many pointers as it takes. One
 * that stands for a tensor map points to a tensor_map. */
typedef void executor(const char *name, const unsigned *grid, const unsigned *block,
                      unsigned shared_bytes, void *const *pointers, unsigned count);

enum { OK, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101 };
enum { NO_BINARY = 209, INVALID_PTX = 218, NOT_FOUND = 500 };
enum { MAP_BYTES = 128, MAP_MAGIC = 0x50414D };
enum { MOST_PARAMS = 64, MOST_MAPS = 4, MOST_NODES = 4096, MOST_BLOCKS = 4096, MOST_QUEUED = 65536, DEVICES = 8 };

typedef struct block { char *start; size_t bytes; int device; } block;
typedef struct function {
    char name[256];
    unsigned params;
    char is_map[MOST_PARAMS];
    int device, shared;
} function;

/* What cuTensorMapEncodeTiled was told, in the 128 bytes of a CUtensorMap. */
typedef struct tensor_map {
    uint64_t address;
    uint64_t strides[4];
    uint32_t dims[5], box[5]; /* a dim of 2^32 is 0 */
    uint32_t magic;
    uint8_t type, rank, promotion, swizzle;
    char rest[MAP_BYTES - 8 - 32 - 40 - 8];
} tensor_map;
typedef struct module { int device; function *functions[MOST_NODES]; unsigned count; } module;
typedef struct stream { int device; } stream;
typedef struct event { long when; int device; } event;
typedef struct node {
    struct graph *graph;
    function *function;
    unsigned grid[3], block[3], shared_bytes;
    void *pointers[MOST_PARAMS];
    tensor_map maps[MOST_MAPS]; /* in order of the parameters that are maps */
    struct node *after[MOST_PARAMS];
    unsigned afters, number;
} node;
typedef struct graph { node *nodes[MOST_NODES]; unsigned count; } graph;
typedef struct exec_graph { graph *made_of; unsigned count; int device; node *nodes; } exec_graph;
typedef struct work {
    enum { UPLOAD, DOWNLOAD, FILL, GRAPH } kind;
    unsigned word;
    char *to;
    const char *from;
    size_t bytes;
    node *nodes;
    unsigned count;
} work;

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static long calls, live, launches, node_updates, uploaded_bytes, used_bytes;
static long map_encodings, waits;
static long fail_at, fail_with = 999, version = 12040, devices = 1, arch = 80, memory = 1L << 30;
static long most_shared = 163 << 10, most_threads = 1024;
static pthread_cond_t idle = PTHREAD_COND_INITIALIZER;
static int draining;
static _Thread_local int draining_here;
static int uploading; /* a copy from the host that nobody has waited for */
static int initialized, primaries[DEVICES];
static block blocks[MOST_BLOCKS];
static module *modules[MOST_BLOCKS];
static stream *streams[MOST_BLOCKS];
static event *events[MOST_BLOCKS];
static work queue[MOST_QUEUED];
static unsigned queued;
static executor *run_kernel;
static _Thread_local int current[16], depth;

static void die(const char *what)
{
    fprintf(stderr, "fake driver: %s\n", what);
    abort();
}

#define EXPECT(condition, what)                                                                    \
    do {                                                                                           \
        if (!(condition))                                                                          \
            die(what);                                                                             \
    } while (0)

static const struct setting { const char *name; long *value; } settings[] = {
    {"FAIL_AT", &fail_at}, {"FAIL_WITH", &fail_with}, {"VERSION", &version},
    {"DEVICES", &devices}, {"ARCH", &arch}, {"MEMORY", &memory}, {"SHARED", &most_shared},
    {"THREADS", &most_threads}, {"CALLS", &calls}, {"LIVE", &live}, {"LAUNCHES", &launches},
    {"NODE_UPDATES", &node_updates}, {"UPLOADED", &uploaded_bytes}, {"USED", &used_bytes},
    {"MAP_ENCODINGS", &map_encodings}, {"WAITS", &waits},
};

static long *find_setting(const char *name)
{
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        if (!strcmp(settings[i].name, name))
            return settings[i].value;
    die(name);
    return NULL;
}

long fake_cuda_get(const char *name);
void fake_cuda_set(const char *name, long value);
void fake_cuda_execute_by(executor *given);
result cuInit(unsigned flags);

long fake_cuda_get(const char *name)
{
    pthread_mutex_lock(&turn);
    long value = *find_setting(name);
    pthread_mutex_unlock(&turn);
    return value;
}

void fake_cuda_set(const char *name, long value)
{
    pthread_mutex_lock(&turn);
    *find_setting(name) = value;
    pthread_mutex_unlock(&turn);
}

void fake_cuda_execute_by(executor *given)
{
    run_kernel = given;
}

__attribute__((constructor)) static void read_environment(void)
{
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        char name[64];
        snprintf(name, sizeof name, "FAKE_CUDA_%s", settings[i].name);
        if (getenv(name))
            *settings[i].value = atol(getenv(name));
    }
    const char *library = getenv("FAKE_CUDA_KERNELS");
    void *opened = library ? dlopen(library, RTLD_NOW) : NULL;
    if (opened)
        *(void **)&run_kernel = dlsym(opened, "run_kernel");
}

/* Every call begins so; one of them fails if a test wants it. */
static result begin(void)
{
    pthread_mutex_lock(&turn);
    return ++calls == fail_at ? (result)fail_with : OK;
}

static result end(result r)
{
    pthread_mutex_unlock(&turn);
    return r;
}

#define BEGIN                                                                                      \
    do {                                                                                           \
        result begun_ = begin();                                                                   \
        if (begun_)                                                                                \
            return end(begun_);                                                                    \
        EXPECT(initialized, "a call before cuInit");                                               \
    } while (0)

/* The same for a call that ends something. */
#define BEGIN_ENDING                                                                               \
    result late = begin();                                                                         \
    EXPECT(initialized, "a call before cuInit")

static int device_now(void)
{
    EXPECT(depth > 0, "a call without a current context");
    return current[depth - 1];
}

static block *find_block(const void *start, size_t bytes)
{
    for (int i = 0; i < MOST_BLOCKS; i++) {
        block *b = &blocks[i];
        if (b->start && (const char *)start >= b->start
            && (const char *)start + bytes <= b->start + b->bytes)
            return b;
    }
    die("an address outside the device's memory");
    return NULL;
}

static void run_nodes(const node *nodes, unsigned count)
{
    char *done = calloc(count + 1, 1);
    for (unsigned left = count; left; left--) {
        int next = -1;
        for (unsigned i = 0; i < count; i++) {
            int ready = !done[i];
            for (unsigned j = 0; j < nodes[i].afters; j++)
                ready &= done[nodes[i].after[j]->number];
            if (ready)
                next = (int)i;
        }
        EXPECT(next >= 0, "a graph with a cycle");
        const node *n = &nodes[next];
        void *pointers[MOST_PARAMS];
        unsigned maps = 0;
        for (unsigned i = 0; i < n->function->params; i++) {
            const tensor_map *map = &n->maps[maps];
            int is_map = n->function->is_map[i];
            EXPECT(!is_map || map->magic == MAP_MAGIC, "a launch with a map that nobody encoded");
            pointers[i] = is_map ? (void *)(uintptr_t)&n->maps[maps++] : n->pointers[i];
        }
        done[next] = 1;
        if (run_kernel)
            run_kernel(n->function->name, n->grid, n->block, n->shared_bytes, pointers,
                       n->function->params);
    }
    free(done);
}

/* Does what waits, in order, outside the lock: a kernel may be a function of Python. */
static void drain(void)
{
    if (draining_here)
        return; /* Python's collector freed something in the middle of a kernel */
    while (draining)
        pthread_cond_wait(&idle, &turn);
    draining = draining_here = 1;
    uploading = 0;
    while (queued) {
        work first = queue[0];
        memmove(queue, queue + 1, --queued * sizeof *queue);
        pthread_mutex_unlock(&turn);
        if (first.kind == GRAPH)
            run_nodes(first.nodes, first.count);
        else
            memcpy(first.to, first.kind == FILL ? (char *)&first.word : first.from, first.bytes);
        free(first.nodes);
        pthread_mutex_lock(&turn);
    }
    draining = draining_here = 0;
    pthread_cond_broadcast(&idle);
}

static void enqueue(work w)
{
    EXPECT(queued < MOST_QUEUED, "the queue is full");
    queue[queued++] = w;
}

result cuInit(unsigned flags)
{
    result r = begin();
    if (!r && flags)
        r = INVALID_VALUE;
    if (!r && !devices)
        r = NO_DEVICE;
    if (!r)
        initialized = 1;
    return end(r);
}

result cuDriverGetVersion(int *found)
{
    BEGIN;
    *found = (int)version;
    return end(OK);
}

result cuDeviceGetCount(int *count)
{
    BEGIN;
    *count = (int)devices;
    return end(OK);
}

result cuDeviceGet(int *device, int number)
{
    BEGIN;
    if (number < 0 || number >= devices)
        return end(INVALID_DEVICE);
    *device = number;
    return end(OK);
}

result cuDeviceGetName(char *name, int bytes, int device)
{
    BEGIN;
    snprintf(name, (size_t)bytes, "fake device %d", device);
    return end(OK);
}

result cuDeviceGetAttribute(int *value, int attribute, int device)
{
    BEGIN;
    EXPECT(device >= 0 && device < devices, "no such device");
    switch (attribute) {
    case 1: *value = (int)most_threads; break;
    case 75: *value = (int)arch / 10; break;
    case 76: *value = (int)arch % 10; break;
    case 97: *value = (int)most_shared; break;
    default: die("an unknown attribute");
    }
    return end(OK);
}

result cuDevicePrimaryCtxRetain(void **context, int device)
{
    BEGIN;
    EXPECT(device >= 0 && device < devices, "no such device");
    primaries[device]++;
    live++;
    *context = &primaries[device];
    return end(OK);
}

static void free_block(block *b)
{
    used_bytes -= (long)b->bytes;
    free(b->start);
    b->start = NULL;
    live--;
}

static void free_module(module **m)
{
    for (unsigned i = 0; i < (*m)->count; i++)
        free((*m)->functions[i]);
    free(*m);
    *m = NULL;
    live--;
}

static void free_stream(stream **s)
{
    free(*s);
    *s = NULL;
    live--;
}

static void free_event(event **e)
{
    free(*e);
    *e = NULL;
    live--;
}

static int find_free(void *const *places)
{
    for (int i = 0; i < MOST_BLOCKS; i++)
        if (!places[i])
            return i;
    die("too many objects");
    return 0;
}

static int find_place(void *const *places, const void *object)
{
    for (int i = 0; i < MOST_BLOCKS; i++)
        if (places[i] == object)
            return i;
    die("an object that is not there");
    return 0;
}

/* The last release takes with it what the context holds. */
result cuDevicePrimaryCtxRelease_v2(int device)
{
    BEGIN_ENDING;
    EXPECT(primaries[device] > 0, "a context is released too often");
    live--;
    if (!--primaries[device]) {
        for (int i = 0; i < MOST_BLOCKS; i++) {
            if (blocks[i].start && blocks[i].device == device)
                free_block(&blocks[i]);
            if (modules[i] && modules[i]->device == device)
                free_module(&modules[i]);
            if (streams[i] && streams[i]->device == device)
                free_stream(&streams[i]);
            if (events[i] && events[i]->device == device)
                free_event(&events[i]);
        }
    }
    return end(late);
}

result cuCtxPushCurrent_v2(void *context)
{
    BEGIN;
    int device = (int)((int *)context - primaries);
    EXPECT(device >= 0 && device < DEVICES && primaries[device], "a context that is not there");
    EXPECT(depth < 16, "contexts are pushed without end");
    current[depth++] = device;
    return end(OK);
}

result cuCtxPopCurrent_v2(void **context)
{
    BEGIN_ENDING;
    *context = &primaries[device_now()];
    depth--;
    return end(late);
}

result cuCtxSynchronize(void)
{
    BEGIN_ENDING;
    device_now();
    drain();
    return end(late);
}

/* Reads ".entry name(" and counts the parameters up to the closing parenthesis. */
static unsigned read_entries(module *m, const char *text)
{
    for (const char *at = text; (at = strstr(at, ".entry "));) {
        function *f = calloc(1, sizeof *f);
        at += strlen(".entry ");
        size_t length = strcspn(at, "( \n\t");
        EXPECT(length < sizeof f->name && m->count < MOST_NODES, "a name too long");
        memcpy(f->name, at, length);
        const char *close = strchr(at, ')');
        EXPECT(close, "an entry without parameters");
        for (const char *p = at; (p = strstr(p, ".param")) && p < close; p++) {
            const char *next = strstr(p + 1, ".param"), *aligned = strstr(p, ".align 64 .b8");
            EXPECT(f->params < MOST_PARAMS, "a kernel with too many parameters");
            f->is_map[f->params++] = aligned && aligned < close && (!next || aligned < next);
        }
        f->device = m->device;
        m->functions[m->count++] = f;
    }
    return m->count;
}

/* PTX, or a "cubin" that is PTX behind the four bytes of an ELF file and "sm_NN\n". */
result cuModuleLoadData(void **made, const void *image)
{
    BEGIN;
    const char *text = image;
    int is_cubin = !memcmp(text, "\177ELF", 4);
    if (is_cubin && (strncmp(text + 4, "sm_", 3) || atoi(text + 7) / 10 != arch / 10))
        return end(NO_BINARY);
    module *m = calloc(1, sizeof *m);
    m->device = device_now();
    if (!read_entries(m, is_cubin ? text + 4 : text)) {
        free(m);
        return end(INVALID_PTX);
    }
    live++;
    modules[find_free((void *const *)modules)] = m;
    *made = m;
    return end(OK);
}

result cuModuleUnload(void *given)
{
    BEGIN_ENDING;
    module **m = &modules[find_place((void *const *)modules, given)];
    EXPECT((*m)->device == device_now(), "a module of another context");
    free_module(m);
    return end(late);
}

result cuModuleGetFunction(void **found, void *given, const char *name)
{
    BEGIN;
    module *m = given;
    for (unsigned i = 0; i < m->count; i++) {
        if (!strcmp(m->functions[i]->name, name)) {
            *found = m->functions[i];
            return end(OK);
        }
    }
    return end(NOT_FOUND);
}

result cuFuncSetAttribute(void *given, int attribute, int value)
{
    BEGIN;
    function *f = given;
    EXPECT(attribute == 8, "an unknown attribute of a function");
    if (value > most_shared)
        return end(INVALID_VALUE);
    f->shared = value;
    return end(OK);
}

result cuMemAlloc_v2(device_pointer *made, size_t bytes)
{
    BEGIN;
    int device = device_now();
    if (!bytes)
        return end(INVALID_VALUE);
    if (used_bytes + (long)bytes > memory)
        return end(OUT_OF_MEMORY);
    int i = 0;
    while (i < MOST_BLOCKS && blocks[i].start)
        i++;
    EXPECT(i < MOST_BLOCKS, "too many blocks");
    blocks[i] = (block){aligned_alloc(256, (bytes + 255) / 256 * 256), bytes, device};
    memset(blocks[i].start, 0xA5, bytes);
    used_bytes += (long)bytes;
    live++;
    *made = (device_pointer)(uintptr_t)blocks[i].start;
    return end(OK);
}

result cuMemFree_v2(device_pointer address)
{
    BEGIN_ENDING;
    block *b = find_block((void *)(uintptr_t)address, 1);
    EXPECT(b->start == (char *)(uintptr_t)address, "only part of a block is freed");
    EXPECT(b->device == device_now(), "memory of another context");
    EXPECT(!queued || draining_here, "memory is freed while work is under way");
    free_block(b);
    return end(late);
}

result cuMemcpyHtoD_v2(device_pointer to, const void *from, size_t bytes)
{
    BEGIN;
    device_now();
    drain();
    uploaded_bytes += (long)bytes;
    uploading = 1;
    find_block((void *)(uintptr_t)to, bytes);
    memcpy((void *)(uintptr_t)to, from, bytes);
    return end(OK);
}

result cuMemcpyDtoH_v2(void *to, device_pointer from, size_t bytes)
{
    BEGIN;
    device_now();
    drain();
    find_block((void *)(uintptr_t)from, bytes);
    memcpy(to, (void *)(uintptr_t)from, bytes);
    return end(OK);
}

result cuMemcpyHtoDAsync_v2(device_pointer to, const void *from, size_t bytes, void *stream)
{
    BEGIN;
    EXPECT(stream, "copies belong into a stream");
    find_block((void *)(uintptr_t)to, bytes);
    enqueue((work){.kind = UPLOAD, .to = (char *)(uintptr_t)to, .from = from, .bytes = bytes});
    return end(OK);
}

result cuMemcpyDtoHAsync_v2(void *to, device_pointer from, size_t bytes, void *stream)
{
    (void)stream;
    BEGIN;
    find_block((void *)(uintptr_t)from, bytes);
    const char *source = (const char *)(uintptr_t)from;
    enqueue((work){.kind = DOWNLOAD, .to = to, .from = source, .bytes = bytes});
    return end(OK);
}

result cuMemcpyDtoDAsync_v2(device_pointer to, device_pointer from, size_t bytes, void *stream)
{
    (void)stream;
    BEGIN;
    find_block((void *)(uintptr_t)to, bytes);
    find_block((void *)(uintptr_t)from, bytes);
    const char *source = (const char *)(uintptr_t)from;
    enqueue((work){.kind = UPLOAD, .to = (char *)(uintptr_t)to, .from = source, .bytes = bytes});
    launches++;
    return end(OK);
}

result cuMemsetD32Async(device_pointer to, unsigned word, size_t count, void *stream)
{
    (void)stream;
    BEGIN;
    EXPECT(count == 1, "one word at a time");
    find_block((void *)(uintptr_t)to, sizeof word);
    char *place = (char *)(uintptr_t)to;
    enqueue((work){.kind = FILL, .to = place, .word = word, .bytes = sizeof word});
    return end(OK);
}

result cuStreamCreate(void **stream, unsigned flags)
{
    BEGIN;
    EXPECT(flags <= 1, "unknown flags of a stream");
    struct stream *made = calloc(1, sizeof *made);
    made->device = device_now();
    streams[find_free((void *const *)streams)] = made;
    live++;
    *stream = made;
    return end(OK);
}

result cuStreamDestroy_v2(void *stream)
{
    BEGIN_ENDING;
    device_now();
    free_stream(&streams[find_place((void *const *)streams, stream)]);
    return end(late);
}

result cuStreamSynchronize(void *stream)
{
    BEGIN_ENDING;
    device_now();
    if ((uintptr_t)stream > 2) /* the default streams have small numbers */
        find_place((void *const *)streams, stream);
    drain();
    return end(late);
}

result cuGraphCreate(void **made, unsigned flags)
{
    BEGIN;
    EXPECT(!flags, "unknown flags of a graph");
    *made = calloc(1, sizeof(graph));
    live++;
    return end(OK);
}

result cuGraphDestroy(void *given)
{
    BEGIN_ENDING;
    graph *g = given;
    for (unsigned i = 0; i < g->count; i++)
        free(g->nodes[i]);
    free(g);
    live--;
    return end(late);
}

static void fill_node(node *n, const kernel_node *given)
{
    function *f = n->function = given->function;
    unsigned threads = given->block[0] * given->block[1] * given->block[2];
    EXPECT(given->grid[0] && given->grid[1] && given->grid[2] && threads, "an empty launch");
    EXPECT(threads <= (unsigned)most_threads, "too many threads");
    EXPECT(given->grid[1] < 65536 && given->grid[2] < 65536, "too large a grid");
    EXPECT(given->shared_bytes <= 48 << 10 || (int)given->shared_bytes <= f->shared,
           "more shared memory than was asked for");
    memcpy(n->grid, given->grid, sizeof n->grid);
    memcpy(n->block, given->block, sizeof n->block);
    n->shared_bytes = given->shared_bytes;
    unsigned maps = 0;
    for (unsigned i = 0; i < f->params; i++) {
        EXPECT(!f->is_map[i] || maps < MOST_MAPS, "a kernel with too many maps");
        if (f->is_map[i])
            memcpy(&n->maps[maps++], given->params[i], MAP_BYTES);
        else
            memcpy(&n->pointers[i], given->params[i], sizeof(void *));
    }
}

result cuGraphAddKernelNode(void **made, void *given, void *const *after, size_t afters,
                            const kernel_node *params)
{
    BEGIN;
    graph *g = given;
    node *n = calloc(1, sizeof *n);
    EXPECT(g->count < MOST_NODES && afters < MOST_PARAMS, "too large a graph");
    n->graph = g;
    n->number = g->count;
    n->afters = (unsigned)afters;
    for (size_t i = 0; i < afters; i++) {
        n->after[i] = after[i];
        EXPECT(n->after[i]->graph == g, "a node of another graph");
    }
    fill_node(n, params);
    g->nodes[g->count++] = n;
    *made = n;
    return end(OK);
}

result cuGraphInstantiateWithFlags(void **made, void *given, unsigned long long flags)
{
    BEGIN;
    EXPECT(!flags, "unknown flags of an executable graph");
    graph *g = given;
    exec_graph *e = calloc(1, sizeof *e);
    e->made_of = g;
    e->count = g->count;
    e->device = device_now();
    e->nodes = calloc(g->count + 1, sizeof *e->nodes);
    for (unsigned i = 0; i < g->count; i++)
        e->nodes[i] = *g->nodes[i];
    live++;
    *made = e;
    return end(OK);
}

result cuGraphExecKernelNodeSetParams(void *given, void *which, const kernel_node *params)
{
    BEGIN;
    exec_graph *e = given;
    node *n = which;
    EXPECT(n->graph == e->made_of, "a node of another graph");
    fill_node(&e->nodes[n->number], params);
    node_updates++;
    return end(OK);
}

result cuGraphLaunch(void *given, void *stream)
{
    BEGIN;
    EXPECT((uintptr_t)stream <= 2 || !uploading, "a run that does not wait for an upload");
    exec_graph *e = given;
    EXPECT(e->device == device_now(), "a graph of another context");
    node *copy = calloc(e->count + 1, sizeof *copy);
    memcpy(copy, e->nodes, e->count * sizeof *copy);
    enqueue((work){.kind = GRAPH, .nodes = copy, .count = e->count});
    launches++;
    return end(OK);
}

result cuGraphExecDestroy(void *given)
{
    BEGIN_ENDING;
    exec_graph *e = given;
    free(e->nodes);
    free(e);
    live--;
    return end(late);
}

/* What the driver's reference demands of its arguments, for tensors without interleave. */
__attribute__((unused)) static int is_encodable(const tensor_map *made, int type, uint32_t rank, const void *address,
                        const uint64_t *dims, const uint64_t *strides, const uint32_t *box,
                        const uint32_t *steps)
{
    static const char sizes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4};
    if ((uintptr_t)made % 64 || type < 0 || type >= (int)sizeof sizes || !rank || rank > 5)
        return 0;
    if (!address || (uintptr_t)address % 16 || box[0] * sizes[type] % 16)
        return 0;
    if (box[0] * sizes[type] > 128)
        return 0; /* more than a row of the swizzle */
    for (uint32_t i = 0; i < rank; i++) {
        if (!dims[i] || dims[i] > 1ULL << 32 || !box[i] || box[i] > 256 || !steps[i]
            || steps[i] > 8)
            return 0;
        if (i + 1 < rank && (strides[i] % 16 || strides[i] >= 1ULL << 40))
            return 0;
    }
    return 1;
}

#ifndef NO_TENSOR_MAPS /* as before CUDA 12.0 */
result cuTensorMapEncodeTiled(tensor_map *made, int type, uint32_t rank, void *address,
                              const uint64_t *dims, const uint64_t *strides, const uint32_t *box,
                              const uint32_t *steps, int interleave, int swizzle, int promotion,
                              int fill)
{
    BEGIN;
    if (interleave || swizzle != 3 || promotion < 0 || promotion > 3 || fill
        || !is_encodable(made, type, rank, address, dims, strides, box, steps))
        return end(INVALID_VALUE);
    tensor_map map = {(uint64_t)(uintptr_t)address, {0}, {0}, {0}, MAP_MAGIC, (uint8_t)type,
                      (uint8_t)rank, (uint8_t)promotion, (uint8_t)swizzle, {0}};
    for (uint32_t i = 0; i < rank; i++) {
        map.dims[i] = (uint32_t)dims[i];
        map.box[i] = box[i];
        if (i + 1 < rank)
            map.strides[i] = strides[i];
    }
    *made = map;
    map_encodings++;
    return end(OK);
}
#endif

result cuStreamWaitEvent(void *stream, void *given, unsigned flags)
{
    (void)stream;
    BEGIN;
    EXPECT(given && !flags, "a wait for no event");
    find_place((void *const *)events, given);
    device_now();
    waits++;
    return end(OK);
}

/* Events: the clock counts runs, a millisecond each. */
result cuEventCreate(void **made, unsigned flags)
{
    BEGIN;
    EXPECT(!flags || flags == 2, "unknown flags of an event");
    event *e = calloc(1, sizeof *e);
    e->device = device_now();
    events[find_free((void *const *)events)] = e;
    live++;
    *made = e;
    return end(OK);
}

result cuEventRecord(void *given, void *stream)
{
    (void)stream;
    BEGIN;
    events[find_place((void *const *)events, given)]->when = launches;
    return end(OK);
}

result cuEventSynchronize(void *given)
{
    (void)given;
    BEGIN_ENDING;
    drain();
    return end(late);
}

result cuEventElapsedTime(float *milliseconds, void *from, void *to)
{
    BEGIN;
    *milliseconds = (float)(((event *)to)->when - ((event *)from)->when);
    return end(OK);
}

result cuEventDestroy_v2(void *given)
{
    BEGIN_ENDING;
    free_event(&events[find_place((void *const *)events, given)]);
    return end(late);
}
