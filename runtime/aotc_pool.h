/* A pool of POSIX threads for models compiled with --threads. */

#ifndef AOTC_POOL_H
#define AOTC_POOL_H

#ifdef __cplusplus
extern "C" {
#endif

#ifndef AOTC_POOL_TYPE
#define AOTC_POOL_TYPE
/* Threads that the program lends to a model. run calls task(arg, part, parts) once for each part
 * from 0 to parts - 1, all at the same time on threads of their own, and returns when all are done.
 * barrier is called by every part and returns when all parts have called it; what a part wrote
 * before is then visible to all. runtime/aotc_pool.c is a pool for POSIX threads. */
typedef struct aotc_pool {
    void *self;
    void (*run)(void *self, void (*task)(void *arg, int part, int parts), void *arg);
    void (*barrier)(void *self);
} aotc_pool;
#endif

/* Starts a pool of `threads` threads, the caller's own among them. NULL when memory or threads are
 * short, or threads < 1. Any thread may use the pool; runs of several at once take turns. */
aotc_pool *aotc_pool_create(int threads);

/* Ends the threads and frees the pool. NULL is allowed. */
void aotc_pool_destroy(aotc_pool *pool);

#ifdef __cplusplus
}
#endif

#endif /* AOTC_POOL_H */
