/* A plugin for QEMU (plugin API version 1) that counts the instructions a guest executes and prints
 * the number when it ends. The prototypes are those that QEMU documents for plugins; they stand here
 * because distributions seldom package the header. */

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

typedef uint64_t plugin_id;
struct qemu_plugin_tb;

enum { INLINE_ADD = 0 };

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id,
                                           void (*on)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *block, int operation,
                                              void *counter, uint64_t amount);
void qemu_plugin_register_atexit_cb(plugin_id id, void (*on)(plugin_id, void *), void *arg);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
void qemu_plugin_outs(const char *text);

int qemu_plugin_version = 1;

static uint64_t executed;

static void on_block(plugin_id id, struct qemu_plugin_tb *block)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(block, INLINE_ADD, &executed,
                                             qemu_plugin_tb_n_insns(block));
}

static void on_exit(plugin_id id, void *arg)
{
    char text[48];
    (void)id;
    (void)arg;
    snprintf(text, sizeof text, "instructions: %" PRIu64 "\n", executed);
    qemu_plugin_outs(text);
}

int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
    (void)info;
    (void)argc;
    (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_block);
    qemu_plugin_register_atexit_cb(id, on_exit, NULL);
    return 0;
}
