/* Threads that spin for a while and then sleep: a task starts within a microsecond when runs follow
 * each other closely, and idle threads cost nothing.
 *
 * All counters only grow (and wrap); a thread waits for a counter to leave the value it saw. Nothing
 * is allocated and, while nobody sleeps, no system call is made after aotc_pool_create. */

#include "aotc_pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

/* Looks at a counter: so many while others run on cores of their own (about ten milliseconds: longer
 * than a host takes a core away for), then so many more that offer the core to whoever waits for
 * one, before the thread goes to sleep. */
enum { PATIENT_LOOKS = 300000, YIELDING_LOOKS = 200 };

typedef struct counter {
    _Alignas(64) atomic_uint value;
    atomic_uint sleepers;
} counter;

typedef struct pool {
    aotc_pool face;
    int parts;
    int started;
    atomic_int stopping;
    void (*task)(void *arg, int part, int parts);
    void *arg;
    pthread_mutex_t turn; /* held for a run: threads that share the pool take turns */
    counter go;      /* one step for each run */
    counter arrived; /* generation of the barrier */
    _Alignas(64) atomic_int waiting; /* parts at the barrier of this generation */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct worker {
        struct pool *pool;
        pthread_t thread;
        int part;
    } *workers;
} pool;

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Returns when the counter is no longer `seen`. */
static void await(pool *p, counter *c, unsigned seen)
{
    for (int i = 0; i < PATIENT_LOOKS + YIELDING_LOOKS; i++) {
        if (atomic_load_explicit(&c->value, memory_order_acquire) != seen)
            return;
        if (i < PATIENT_LOOKS)
            relax();
        else
            sched_yield();
    }
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&c->sleepers, 1);
    while (atomic_load(&c->value) == seen)
        pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&c->sleepers, 1);
    pthread_mutex_unlock(&p->lock);
}

/* Steps the counter. Whoever counts itself as a sleeper first and then still sees the old value is
 * woken, because both sides use sequentially consistent operations. */
static void advance(pool *p, counter *c)
{
    atomic_fetch_add(&c->value, 1);
    if (atomic_load(&c->sleepers)) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
    }
}

static void barrier(void *self)
{
    pool *p = self;
    unsigned seen = atomic_load_explicit(&p->arrived.value, memory_order_acquire);
    if (atomic_fetch_add(&p->waiting, 1) + 1 == p->parts) {
        atomic_store(&p->waiting, 0);
        advance(p, &p->arrived);
    } else {
        await(p, &p->arrived, seen);
    }
}

static void *work(void *arg)
{
    struct worker *me = arg;
    pool *p = me->pool;
    for (unsigned seen = 0;; seen++) {
        await(p, &p->go, seen);
        if (atomic_load(&p->stopping))
            return NULL;
        p->task(p->arg, me->part, p->parts);
        barrier(p);
    }
}

static void run(void *self, void (*task)(void *arg, int part, int parts), void *arg)
{
    pool *p = self;
    pthread_mutex_lock(&p->turn);
    p->task = task;
    p->arg = arg;
    advance(p, &p->go);
    task(arg, 0, p->parts);
    barrier(p);
    pthread_mutex_unlock(&p->turn);
}

void aotc_pool_destroy(aotc_pool *face)
{
    if (!face)
        return;
    pool *p = face->self;
    atomic_store(&p->stopping, 1);
    advance(p, &p->go);
    for (int i = 0; i < p->started; i++)
        pthread_join(p->workers[i].thread, NULL);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    pthread_mutex_destroy(&p->turn);
    free(p->workers);
    free(p);
}

aotc_pool *aotc_pool_create(int threads)
{
    if (threads < 1)
        return NULL;
    pool *p = aligned_alloc(64, (sizeof *p + 63) / 64 * 64);
    if (!p)
        return NULL;
    *p = (pool){.parts = threads};
    p->face = (aotc_pool){p, run, barrier};
    pthread_mutex_init(&p->turn, NULL);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    p->workers = calloc((size_t)threads, sizeof *p->workers);
    if (!p->workers) {
        aotc_pool_destroy(&p->face);
        return NULL;
    }
    for (int i = 0; i < threads - 1; i++) {
        p->workers[i] = (struct worker){.pool = p, .part = i + 1};
        if (pthread_create(&p->workers[i].thread, NULL, work, &p->workers[i])) {
            aotc_pool_destroy(&p->face);
            return NULL;
        }
        p->started++;
    }
    return &p->face;
}
